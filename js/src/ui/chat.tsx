// The chat panel: transcript, streaming answer, calls, cards, and where to write.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Chat } from "../state";
import { Composer } from "./composer";
import { visible } from "./exact";
import { sessionPlace } from "./format";
import { useScreen } from "./screen";
import { t } from "./strings";
import { Exact, Failed } from "./text";
import { modelName, Transcript } from "./transcript";

interface Props {
  session: string;
  /** Words that somebody put into the message box; the person sends them, or does not. */
  draft?: string;
  onDraftTaken?(): void;
}

/** The panel of a session; "" stands for the one that was joined last, which is how a new one gets its id. */
export function ChatPanel({ session, draft = "", onDraftTaken }: Props) {
  const { state } = useScreen();
  const id = session || state.current;
  const chat = state.chats[id];
  if (chat?.session) return <Panel id={id} chat={chat} draft={draft} onDraftTaken={onDraftTaken} />;
  const failure = state.failures[id];
  if (failure) return <Failed failure={failure} role="status" />;
  return (
    <p class="oa-muted" role="status">
      {t("chat.connecting")}
    </p>
  );
}

function Panel(props: { id: string; chat: Chat; draft: string; onDraftTaken?(): void }) {
  const { id, chat, draft } = props;
  const { send } = useScreen();
  const [text, setText] = useState("");
  const [focus, setFocus] = useState(0);
  // what is typed already stays above it
  useEffect(() => {
    if (!draft) return;
    setText((typed) => [typed.trim(), draft].filter(Boolean).join("\n"));
    setFocus((count) => count + 1);
    props.onDraftTaken?.();
  }, [draft]);
  const stop = () => send({ type: "chat:cancel", session: id });
  useAnswers(chat);
  return (
    <section class="oa-chat" aria-label={t("chat.label")}>
      <Heading chat={chat} />
      <Scrolled chat={chat} id={id} onUse={setText} />
      <Composer chat={chat} id={id} text={text} setText={setText} onStop={stop} focus={focus} />
      <p class="oa-muted oa-small">
        <span class="oa-roomy">{t("chat.keys")} · </span>
        {t("chat.safe")}
      </p>
    </section>
  );
}

function Heading({ chat }: { chat: Chat }) {
  const { welcome } = useScreen().state;
  const { session } = chat;
  if (!session) return null;
  return (
    <header class="oa-row oa-chat-head">
      <strong>
        <Exact text={sessionPlace(session) || t("chat.no.target")} />
      </strong>
      <span class="oa-muted">
        <Exact text={modelName(session.model)} />
      </span>
      {session.title && (
        <span class="oa-muted oa-ellipsis">
          <Exact text={session.title} />
        </span>
      )}
      <span class="oa-grow" />
      {welcome && (
        <span class="oa-muted oa-small" title={visible(welcome.claim)}>
          <Exact text={t("chat.setup", { setup: welcome.setup, name: welcome.actor.name })} />
        </span>
      )}
    </header>
  );
}

/** Keeps the newest line in view as long as the person has not scrolled away from it. */
function Scrolled({ chat, id, onUse }: { chat: Chat; id: string; onUse(text: string): void }) {
  const { state, send } = useScreen();
  const box = useRef<HTMLDivElement>(null);
  const [away, setAway] = useState(false);
  const toEnd = () => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  };
  // whenever something was added
  useLayoutEffect(() => {
    if (!away) toEnd();
  }, [chat, state.calls, state.approvals]);
  const onScroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = box.current as HTMLDivElement;
    setAway(scrollHeight - scrollTop - clientHeight > 40);
  };
  const first = chat.messages[0]?.seq ?? 1;
  return (
    <div class="oa-transcript-frame">
      <div
        class="oa-transcript"
        ref={box}
        role="log"
        aria-label={t("chat.transcript")}
        aria-live="off"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
        tabIndex={0}
        onScroll={onScroll}
      >
        {first > 1 && (
          <button
            type="button"
            class="oa-quiet"
            onClick={() => send({ type: "chat:history", session: id, before: first })}
          >
            {t("chat.older")}
          </button>
        )}
        {chat.messages.length === 0 && !chat.unconfirmed && <Examples onUse={onUse} />}
        <Transcript chat={chat} onUse={onUse} />
      </div>
      {away && (
        <button type="button" class="oa-newest" onClick={toEnd}>
          {t("chat.newest")}
        </button>
      )}
    </div>
  );
}

function Examples({ onUse }: { onUse(text: string): void }) {
  return (
    <div class="oa-examples">
      <p class="oa-muted">{t("chat.welcome")}</p>
      {t("chat.examples")
        .split("|")
        .map((example) => (
          <button key={example} type="button" onClick={() => onUse(example)}>
            {example}
          </button>
        ))}
    </div>
  );
}

/** Says an answer when it is complete: word by word would be noise. */
function useAnswers(chat: Chat): void {
  const { announce } = useScreen();
  const was = useRef(chat.busy);
  const last = chat.messages.filter((message) => message.role === "assistant" && message.text).at(-1);
  // when a turn ends, and only then
  useEffect(() => {
    if (was.current && !chat.busy && last) announce(t("chat.answered", { text: last.text.slice(0, 400) }));
    was.current = chat.busy;
  }, [chat.busy]);
}
