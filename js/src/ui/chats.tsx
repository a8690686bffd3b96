// Conversations: the list of them, and the one that is open.
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Session } from "../protocol";
import { ChatPanel } from "./chat";
import { useAsked, useDeed, useDesk, usePlace } from "./desk";
import { visible } from "./exact";
import { clock, sessionPlace } from "./format";
import { Refused } from "./refused";
import { keepKeys, useScreen } from "./screen";
import { Exact } from "./text";
import { modelName } from "./transcript";
import { w } from "./wording";

export function Chats() {
  const [place] = usePlace();
  return place.session ? <OpenChat key={place.session} id={place.session} /> : <ChatList />;
}

function OpenChat({ id }: { id: string }) {
  const [place, go] = usePlace();
  const { state, send } = useScreen();
  const { api, store } = useDesk();
  const close = useDeed();
  const session = state.chats[id]?.session;
  useEffect(() => {
    send({ type: "chat:join", session: id, since: 0 });
    return () => send({ type: "chat:leave", session: id });
  }, [id]);
  const end = async () => {
    store.learn({ type: "chat:session", seq: 0, session: await api.close(id) });
    go({ session: "" });
  };
  return (
    <>
      <div class="oa-row oa-chat-bar">
        <button type="button" class="oa-quiet" onClick={() => go({ session: "" })}>
          <span aria-hidden="true">‹ </span>
          {w("back")}
        </button>
        <span class="oa-grow" />
        {session && !session.closed && <ModelPicker session={session} />}
        {session && !session.closed && (
          <button type="button" class="oa-quiet" aria-busy={close.running} onClick={() => close.start(end)}>
            {w("chats.close")}
          </button>
        )}
      </div>
      <Refused refusal={close.refusal} />
      <ChatPanel session={id} draft={place.draft} onDraftTaken={() => go({ draft: "" })} />
    </>
  );
}

/** Another model for the next turns; the conversation stays. */
function ModelPicker({ session }: { session: Session }) {
  const { models } = useDesk();
  const chosen = models.chosen(session.id) || session.model;
  const [, redraw] = useState(0);
  const choose = (name: string) => {
    models.choose(session.id, name.trim() === session.model ? "" : name.trim());
    redraw((count) => count + 1);
  };
  return <ModelField value={chosen} session={session.id} onChange={choose} quiet />;
}

interface ModelFieldProps {
  value: string;
  session?: string;
  onChange(name: string): void;
  quiet?: boolean;
}

/** The value of the choice that asks for a name. */
const OTHER = "";

/** The models that the server knows, with what is missing for those that cannot be used yet; any other by its name. */
function ModelField({ value, session = "", onChange, quiet }: ModelFieldProps) {
  const { api } = useDesk();
  const { state } = useScreen();
  const [writing, setWriting] = useState(false);
  const known = useAsked(() => api.modelChoices(session), [session]).value?.items ?? [];
  const missing = new Map(known.map((choice) => [choice.name, choice.missing]));
  const names = [...new Set([value, ...missing.keys(), state.welcome?.model ?? "", "offline"])].filter(Boolean);
  const look = quiet ? "oa-model" : "";
  const take = (name: string) => {
    setWriting(false);
    if (name.trim()) onChange(name.trim());
  };
  if (writing) return <ModelName look={look} onTake={take} onLeave={() => setWriting(false)} />;
  return (
    <select
      class={look}
      value={value}
      aria-label={w("chats.model")}
      title={w("chats.model.title")}
      onChange={(event) => (event.currentTarget.value === OTHER ? setWriting(true) : take(event.currentTarget.value))}
    >
      {names.map((name) => (
        <option key={name} value={name} disabled={Boolean(missing.get(name)) && name !== value}>
          {visible(missing.get(name) ? w("chats.model.missing", { name, missing: missing.get(name) ?? "" }) : name)}
        </option>
      ))}
      <option value={OTHER}>{w("chats.model.other")}</option>
    </select>
  );
}

function ModelName(props: { look: string; onTake(name: string): void; onLeave(): void }) {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  return (
    <input
      ref={field}
      type="text"
      class={props.look}
      aria-label={w("chats.model.name")}
      placeholder={w("chats.model.name")}
      autocomplete="off"
      spellcheck={false}
      onKeyDown={(event) => {
        keepKeys(event);
        if (event.key !== "Enter" && event.key !== "Escape") return;
        event.preventDefault();
        event.stopPropagation();
        if (event.key === "Enter") props.onTake(event.currentTarget.value);
        else props.onLeave();
      }}
      onBlur={(event) => props.onTake(event.currentTarget.value)}
    />
  );
}

function ChatList() {
  const { state } = useScreen();
  const [, go] = usePlace();
  const [find, setFind] = useState("");
  const [starting, setStarting] = useState(false);
  const pages = usePages();
  const sessions = Object.values(state.sessions).sort((a, b) => b.updated_at.localeCompare(a.updated_at));
  const wanted = find.trim().toLowerCase();
  const shown = sessions.filter((session) =>
    `${session.title} ${sessionPlace(session)}`.toLowerCase().includes(wanted),
  );
  return (
    <section class="oa-chats" aria-label={w("chats.label")}>
      <div class="oa-row">
        <button
          type="button"
          class="oa-small-button oa-primary"
          aria-expanded={starting}
          onClick={() => setStarting(!starting)}
        >
          {w("chats.new")}
        </button>
        <input
          type="search"
          class="oa-grow"
          value={find}
          aria-label={w("chats.find")}
          placeholder={w("chats.find")}
          onInput={(event) => setFind(event.currentTarget.value)}
          onKeyDown={keepKeys}
        />
      </div>
      {starting && <NewChat onDone={() => setStarting(false)} />}
      <Refused refusal={pages.refusal} />
      {sessions.length === 0 && !pages.running && <p class="oa-muted">{w("chats.none")}</p>}
      <ul>
        {shown.map((session) => (
          <li key={session.id}>
            <button type="button" class="oa-session" onClick={() => go({ session: session.id })}>
              <span class="oa-ellipsis">
                {session.title ? <Exact text={session.title} /> : <em class="oa-muted">{w("chats.untitled")}</em>}
              </span>
              <span class="oa-muted oa-small oa-ellipsis">
                <Exact text={facts(session)} />
              </span>
            </button>
          </li>
        ))}
      </ul>
      {pages.next && (
        <button type="button" class="oa-quiet" aria-busy={pages.running} onClick={pages.more}>
          {w("more")}
        </button>
      )}
    </section>
  );
}

function facts(session: Session): string {
  const closed = session.closed ? w("chats.closed") : "";
  return [sessionPlace(session), modelName(session.model), clock(session.updated_at), closed]
    .filter(Boolean)
    .join(" · ");
}

/** Reads the list page by page into the store, where what happens live arrives too. */
function usePages(): { next: string; running: boolean; refusal: ReturnType<typeof useDeed>["refusal"]; more(): void } {
  const { api, store } = useDesk();
  const [next, setNext] = useState("");
  const deed = useDeed();
  const more = () =>
    deed.start(async () => {
      const page = await api.sessions(next);
      store.learn(...page.items.map((session) => ({ type: "chat:session", seq: 0, session }) as const));
      setNext(page.next);
    });
  useEffect(more, []);
  return { next, running: deed.running, refusal: deed.refusal, more };
}

function NewChat({ onDone }: { onDone(): void }) {
  const { state } = useScreen();
  const { api, store } = useDesk();
  const [, go] = usePlace();
  const [on, setOn] = useState(Object.values(state.instances)[0]?.name ?? "");
  const [model, setModel] = useState(state.welcome?.model ?? "");
  const first = useRef<HTMLSelectElement>(null);
  const deed = useDeed();
  useEffect(() => first.current?.focus(), []);
  const begin = async () => {
    const session = await api.begin(on, model);
    store.learn({ type: "chat:session", seq: 0, session });
    onDone();
    go({ session: session.id });
  };
  const id = useId();
  return (
    <form
      class="oa-form"
      aria-label={w("chats.new")}
      onSubmit={(event) => {
        event.preventDefault();
        deed.start(begin);
      }}
      onKeyDown={(event) => {
        keepKeys(event);
        if (event.key === "Escape") onDone();
      }}
    >
      <label for={id}>{w("chats.on")}</label>
      <select id={id} ref={first} value={on} onChange={(event) => setOn(event.currentTarget.value)}>
        {Object.values(state.instances).map((instance) => (
          <option key={instance.id} value={instance.name}>
            {visible(instance.name)}
          </option>
        ))}
        {Object.keys(state.instances).length === 0 && <option value="">{w("chats.any")}</option>}
      </select>
      <span>{w("chats.model")}</span>
      <ModelField value={model} onChange={setModel} />
      <div class="oa-row oa-wide">
        <button type="submit" class="oa-small-button oa-primary" aria-busy={deed.running}>
          {w("chats.start")}
        </button>
        <button type="button" class="oa-small-button" onClick={onDone}>
          {w("cancel")}
        </button>
      </div>
      <div class="oa-wide">
        <Refused refusal={deed.refusal} />
      </div>
    </form>
  );
}
