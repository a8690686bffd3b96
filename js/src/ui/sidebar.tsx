// The sidebar: what is attached, conversations, and what waits for a decision, one tab each.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { atLeast } from "./approvals";
import { Chats } from "./chats";
import { useAsked, useDesk, useLine, usePlace } from "./desk";
import { visible } from "./exact";
import type { Tab } from "./place";
import { useNow, useScreen } from "./screen";
import { Servers } from "./servers";
import { Exact } from "./text";
import { Waiting } from "./waiting";
import { w } from "./wording";

const TABS: Tab[] = ["servers", "chats", "waiting"];

export function Sidebar() {
  const [place] = usePlace();
  return (
    <div class="oa-sidebar">
      <Tabs />
      <LineState />
      <TabPanel tab="servers">{place.tab === "servers" && <Servers />}</TabPanel>
      <TabPanel tab="chats">{place.tab === "chats" && <Chats />}</TabPanel>
      <TabPanel tab="waiting">{place.tab === "waiting" && <Waiting />}</TabPanel>
      <Footer />
    </div>
  );
}

function TabPanel({ tab, children }: { tab: Tab; children: ComponentChildren }) {
  const [place] = usePlace();
  return (
    <div
      role="tabpanel"
      id={`oa-panel-${tab}`}
      aria-labelledby={`oa-tab-${tab}`}
      class={`oa-panel oa-panel-${tab}`}
      hidden={place.tab !== tab}
    >
      {children}
    </div>
  );
}

/** How many requests nobody has decided yet. */
export function pendingCount(approvals: Record<string, { state: string }>): number {
  return Object.values(approvals).filter((approval) => approval.state === "pending").length;
}

/** Tabs as a screen reader knows them: one stop of the Tab key, arrows go between them. */
function Tabs() {
  const [place, go] = usePlace();
  const { page } = useDesk();
  const { approvals, crowded } = useScreen().state;
  const list = useRef<HTMLDivElement>(null);
  const count = pendingCount(approvals);
  const waiting = atLeast(count, crowded);
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -TABS.indexOf(place.tab), End: -1 - TABS.indexOf(place.tab) }[
      event.key
    ];
    if (step === undefined) return;
    event.preventDefault();
    const tab = TABS[(TABS.indexOf(place.tab) + step + TABS.length) % TABS.length] as Tab;
    go({ tab });
    list.current?.querySelector<HTMLElement>(`#oa-tab-${tab}`)?.focus();
  };
  return (
    <div class="oa-tabs">
      <div role="tablist" aria-label={w("side.tabs")} ref={list} onKeyDown={onKeyDown}>
        {TABS.map((tab) => (
          <button
            key={tab}
            type="button"
            role="tab"
            id={`oa-tab-${tab}`}
            aria-controls={`oa-panel-${tab}`}
            aria-selected={place.tab === tab}
            tabIndex={place.tab === tab ? 0 : -1}
            onClick={() => go({ tab, ...(tab === place.tab ? { session: "" } : {}) })}
          >
            {w(`side.${tab}`)}
            {tab === "waiting" && count > 0 && (
              <>
                {" "}
                <span class="oa-count">{waiting}</span> <span class="oa-sr">{w("side.waiting.count")}</span>
              </>
            )}
          </button>
        ))}
      </div>
      <button type="button" class="oa-quiet" title={w("side.audit.title")} onClick={() => page.openAudit()}>
        {w("side.audit")} <span aria-hidden="true">↗</span>
      </button>
    </div>
  );
}

/** Says when the line to the server is not there, and why when the server says so. */
function LineState() {
  const line = useLine();
  const { announce } = useScreen();
  const was = useRef(false);
  useEffect(() => {
    if (was.current && line.state === "open") announce(w("line.back"));
    if (line.state !== "connecting") was.current = line.state === "lost";
  }, [line.state]);
  return line.state === "lost" ? <Lost next={line.next} tries={line.tries} /> : null;
}

function Lost({ next, tries }: { next: number; tries: number }) {
  const { line } = useDesk();
  const seconds = Math.max(0, Math.ceil((next - useNow(true)) / 1000));
  return (
    <div class="oa-line-lost">
      <div class="oa-row">
        <span class="oa-grow" role="timer" aria-live="off">
          {w("line.lost", { seconds })}
        </span>
        <button type="button" class="oa-quiet" onClick={line.retry}>
          {w("line.retry")}
        </button>
      </div>
      {tries > 1 && <Reason />}
    </div>
  );
}

/** A WebSocket that is refused does not say why; a request does. */
function Reason() {
  const { api } = useDesk();
  const { refusal } = useAsked(() => api.servers(), []);
  if (!refusal || refusal.status === 0) return null;
  const text =
    refusal.status === 404 ? w("line.missing") : w("line.refused", { message: refusal.message, hint: refusal.hint });
  return (
    <p class="oa-warn" role="alert">
      <Exact text={text} />
    </p>
  );
}

function Footer() {
  const { welcome } = useScreen().state;
  if (!welcome) return null;
  return (
    <p class="oa-footer oa-muted oa-small" title={visible(welcome.claim)}>
      <Exact text={w("side.claim", { setup: welcome.setup, name: welcome.actor.name })} />
    </p>
  );
}
