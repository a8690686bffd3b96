// The queue: open requests, one line each, the card on demand.
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { Approval } from "../protocol";
import { isOpen } from "../state";
import { ApprovalCard } from "./card";
import { countdown, person, place, rank } from "./format";
import { StateChip } from "./outcome";
import { useNow, useScreen } from "./screen";
import { t } from "./strings";
import { EnvironmentBadge, Exact, RiskBadge } from "./text";

/** Lines that are drawn before somebody asks for more: a queue may be as long as it likes. */
export const PAGE = 50;

/** Open requests, the gravest first, then the oldest. */
export function queue(approvals: Record<string, Approval>): Approval[] {
  return Object.values(approvals)
    .filter(isOpen)
    .sort((a, b) => rank(b.risk) - rank(a.risk) || (a.created_at < b.created_at ? -1 : 1));
}

/** ``chosen`` is a request that somebody asked for elsewhere on the page. */
export function ApprovalList({ chosen = "", older }: { chosen?: string; older?: Older }) {
  const { state } = useScreen();
  const [opened, setOpened] = useState(chosen);
  useEffect(() => {
    if (chosen) setOpened(chosen);
  }, [chosen]);
  const [drawn, setDrawn] = useState(PAGE);
  const open = useMemo(() => queue(state.approvals), [state.approvals]);
  const shown = state.approvals[opened];
  const pending = open.filter((approval) => approval.state === "pending").length;
  const now = useNow(pending > 0);
  return (
    <section class="oa-list" aria-label={t("list.title")}>
      <h2>
        {t("list.title")} · {atLeast(pending, state.crowded)}
      </h2>
      {open.length === 0 && state.lists > 0 && <p class="oa-muted">{t("list.none")}</p>}
      <ul>
        {open.slice(0, drawn).map((approval) => (
          <li key={approval.id}>
            <Line
              approval={approval}
              now={now}
              isOpen={approval.id === opened}
              onToggle={() => setOpened(approval.id === opened ? "" : approval.id)}
            />
          </li>
        ))}
      </ul>
      <More held={open.length} drawn={drawn} onDraw={setDrawn} older={older} />
      {shown && <ApprovalCard key={opened} approval={shown} />}
    </section>
  );
}

/** A count that may not be all. */
export function atLeast(count: number, crowded: boolean): string {
  return crowded ? `${count}+` : String(count);
}

/** Open requests that no list told of, where the screen has a way to read them. */
export interface Older {
  /** Whether there may be any. */
  left: boolean;
  running: boolean;
  read(): void;
  /** Why they were not read. */
  notice?: ComponentChildren;
}

interface MoreProps {
  held: number;
  drawn: number;
  onDraw(lines: number): void;
  older?: Older;
}

/** The next lines of those that are held; when all of them are drawn, older ones, or a word on where they are. */
function More({ held, drawn, onDraw, older }: MoreProps) {
  const { crowded } = useScreen().state;
  if (drawn >= held && !(crowded && older?.left !== false)) return null;
  if (drawn >= held && !older) return <p class="oa-muted oa-small">{t("list.newest", { n: held })}</p>;
  const more = () => {
    onDraw(drawn + PAGE);
    if (drawn + PAGE > held) older?.read();
  };
  return (
    <>
      <button type="button" class="oa-quiet" aria-busy={older?.running} onClick={more}>
        {t("list.more")}
      </button>
      {older?.notice}
    </>
  );
}

interface LineProps {
  approval: Approval;
  now: number;
  isOpen: boolean;
  onToggle(): void;
}

/** Drawn anew only when something of it is another, once a second while it waits: a queue may be long. */
function Line(line: LineProps) {
  const second = line.approval.state === "pending" ? Math.floor(line.now / 1000) : 0;
  return useMemo(() => drawn(line), [line.approval, second, line.isOpen]);
}

function drawn(props: LineProps) {
  const { approval } = props;
  const pending = approval.state === "pending";
  const left = Date.parse(approval.expires_at) - props.now;
  return (
    <div class="oa-line">
      <div class="oa-row">
        <span class="oa-grow">
          <Exact text={approval.plan.title} />
        </span>
        <button type="button" aria-expanded={props.isOpen} onClick={props.onToggle}>
          {t(props.isOpen ? "list.close" : "list.open")}
        </button>
      </div>
      <div class="oa-row oa-small">
        <RiskBadge risk={approval.risk} />
        <EnvironmentBadge environment={approval.target.environment} />
        <span class="oa-muted">
          <Exact text={`${place(approval.target)} · ${person(approval.requester)}`} />
          {pending && ` · ${t("list.left", { left: countdown(left) })}`}
        </span>
        {!pending && <StateChip state={approval.state} />}
      </div>
    </div>
  );
}
