// What was said and done: messages that are kept, then the turn that still streams.
import { useMemo } from "preact/hooks";
import type { CallRecord, Message } from "../protocol";
import { type Chat, isRunning, type Turn } from "../state";
import { CallLine } from "./calls";
import { ApprovalCard } from "./card";
import { clock } from "./format";
import { MarkdownText } from "./markdown-text";
import { useScreen } from "./screen";
import { t } from "./strings";
import { Exact } from "./text";

type Use = (text: string) => void;

interface Props {
  chat: Chat;
  /** Draw this turn only, with what followed on it. */
  turn?: string;
  onUse?: Use;
}

export function Transcript({ chat, turn, onUse }: Props) {
  const messages = turn === undefined ? chat.messages : answers(chat, turn);
  const shown = messages.filter((message) => message.role !== "tool");
  const live = chat.turns[turn === undefined ? chat.turn : latest(chat, turn)];
  return (
    <>
      {shown.map((message, index) =>
        message.role === "user" ? (
          <Asked key={message.seq} author={message.author} at={message.created_at} text={message.text} />
        ) : (
          <Said key={message.seq} message={message} first={shown[index - 1]?.role !== "assistant"} onUse={onUse} />
        ),
      )}
      {chat.unconfirmed && turn === undefined && <Asked author="" at={null} text={chat.unconfirmed} />}
      {live && <Live turn={live} chat={chat} first={shown.at(-1)?.role !== "assistant"} onUse={onUse} />}
      <Orphans chat={chat} turn={turn} />
    </>
  );
}

/** What was said from a turn on until somebody asked again: a parked turn goes on under another id. */
function answers(chat: Chat, turn: string): Message[] {
  const start = chat.messages.findIndex((message) => message.turn === turn);
  if (start < 0) return [];
  const later = chat.messages.slice(start).filter((message) => message.turn !== turn || message.role !== "user");
  const end = later.findIndex((message) => message.role === "user");
  return end < 0 ? later : later.slice(0, end);
}

/** The turn that a parked one goes on as; turns are held in the order in which they began. */
function latest(chat: Chat, turn: string): string {
  const asked = new Set(chat.messages.filter((message) => message.role === "user").map((message) => message.turn));
  const ids = Object.keys(chat.turns);
  let last = turn;
  for (const id of ids.slice(ids.indexOf(turn) + 1)) {
    if (asked.has(id) || (last in chat.turns && chat.turns[last]?.kind !== "parked")) break;
    last = id;
  }
  return last;
}

/** Whether the latest words of a turn's chain are still coming. */
export function isGoingOn(chat: Chat, turn: string): boolean {
  const live = chat.turns[latest(chat, turn)];
  return live !== undefined && isRunning(live);
}

interface AskedProps {
  author: string;
  at: string | null;
  text: string;
}

function Asked(asked: AskedProps) {
  return useMemo(() => question(asked), [asked.author, asked.at, asked.text]);
}

function question({ author, at, text }: AskedProps) {
  return (
    <div class="oa-turn">
      <p class="oa-who">
        {author ? <Exact text={author} /> : t("chat.you")} {at && <span class="oa-num">{clock(at)}</span>}
      </p>
      <div class="oa-you">
        <Exact text={text} />
      </div>
    </div>
  );
}

function Who({ model }: { model: string }) {
  return (
    <p class="oa-who">
      {t("chat.agent")}
      {model && <Exact text={` · ${modelName(model)}`} />}
    </p>
  );
}

/** "offline model", or the model's own name. */
export function modelName(model: string): string {
  return model === "offline" ? t("chat.model", { model }) : t("chat.model.name", { model });
}

interface SaidProps {
  message: Message;
  first: boolean;
  onUse?: Use;
}

/** A kept message never changes; its calls look after themselves. */
function Said(said: SaidProps) {
  return useMemo(() => answer(said), [said.message, said.first, said.onUse]);
}

function answer({ message, first, onUse }: SaidProps) {
  return (
    <div class="oa-turn">
      {first && <Who model={message.model} />}
      {message.text && <MarkdownText text={message.text} />}
      {message.partial && <p class="oa-muted oa-small">— {t("chat.partial")}</p>}
      <Calls ids={message.calls.map((call) => call.id)} fallback={message.calls} onUse={onUse} />
    </div>
  );
}

function Calls({ ids, fallback, onUse }: { ids: string[]; fallback: CallRecord[]; onUse?: Use }) {
  const { calls } = useScreen().state;
  return (
    <>
      {ids.map((id) => {
        const call = calls[id] ?? fallback.find((other) => other.id === id);
        return call && <CallLine key={id} call={call} onUse={onUse} />;
      })}
    </>
  );
}

/** Ids of the calls that a kept message shows already. */
function kept(chat: Chat): Set<string> {
  return new Set(chat.messages.flatMap((message) => message.calls.map((call) => call.id)));
}

function Live({ turn, chat, first, onUse }: { turn: Turn; chat: Chat; first: boolean; onUse?: Use }) {
  const shown = kept(chat);
  const calls = turn.calls.filter((id) => !shown.has(id));
  const running = isRunning(turn);
  if (turn.kind === "finished" && !turn.text && !calls.length) return null;
  return (
    <div class="oa-turn" aria-busy={running}>
      {first && <Who model={chat.session?.model ?? ""} />}
      <Calls ids={calls} fallback={[]} onUse={onUse} />
      {turn.text && <MarkdownText text={turn.text} />}
      {running && <Thinking />}
      <Ending turn={turn} />
    </div>
  );
}

function Thinking() {
  return (
    <span class="oa-thinking">
      <span class="oa-sr">{t("chat.thinking")}</span>
      <i aria-hidden="true" />
      <i aria-hidden="true" />
      <i aria-hidden="true" />
    </span>
  );
}

function Ending({ turn }: { turn: Turn }) {
  if (turn.kind === "failed") {
    const text = [turn.note, turn.hint].filter(Boolean).join(" ");
    return (
      <p class="oa-warn">
        <Exact text={t("turn.failed", { text })} />
      </p>
    );
  }
  if (turn.kind === "cancelled") return <p class="oa-muted">{t("turn.cancelled")}</p>;
  return turn.kind === "parked" ? <p class="oa-muted">{t("turn.parked")}</p> : null;
}

/** Requests of this session that no call on the screen names: their cards must not be lost. */
function Orphans({ chat, turn }: { chat: Chat; turn?: string }) {
  const { approvals, calls } = useScreen().state;
  if (turn !== undefined || !chat.session) return null;
  const id = chat.session.id;
  const lost = Object.values(approvals).filter(
    (approval) => approval.session === id && approval.state === "pending" && !(approval.call in calls),
  );
  return (
    <>
      {lost.map((approval) => (
        <ApprovalCard key={approval.id} approval={approval} />
      ))}
    </>
  );
}
