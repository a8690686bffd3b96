// What a screen knows, as a pure function of what it was told and what it asked.
import type {
  Approval,
  ApprovalState,
  CallRecord,
  Command,
  Event,
  Failure,
  Health,
  Instance,
  Message,
  PluginStatus,
  Resolve,
  Respond,
  Result,
  Session,
  TurnEvent,
  Welcome,
} from "../protocol";

/** A turn as it streams: the text that no message holds yet, and its calls in the order they began. */
export interface Turn {
  id: string;
  text: string;
  calls: string[];
  kind: TurnEvent["kind"];
  /** Why it failed. */
  note: string;
  code: string;
  hint: string;
}

export interface Chat {
  session: Session | null;
  /** By seq, without gaps between the first and the last that are held. */
  messages: Message[];
  turns: Record<string, Turn>;
  /** Id of the turn that began last. */
  turn: string;
  busy: boolean;
  typing: boolean;
  /** What the person said and Python has not confirmed yet. */
  unconfirmed: string;
}

/** A decision on its way, with the version that was on the screen. */
export interface Deciding {
  decision: Respond["decision"] | Resolve["state"];
  version: number;
}

export interface State {
  welcome: Welcome | null;
  chats: Record<string, Chat>;
  /** The session that was joined last: how a new session's id is learned. */
  current: string;
  calls: Record<string, CallRecord>;
  approvals: Record<string, Approval>;
  /** The newest request of a call, by the call's id: a transcript may not name it yet. */
  requests: Record<string, string>;
  results: Record<string, Result>;
  /** One-time secrets that this screen asked for, by request: "" until they come, gone when they are hidden. */
  secrets: Record<string, string>;
  health: Record<string, Health>;
  /** What is attached, by the instance's id; whoever watches the plugins is told. */
  instances: Record<string, Instance>;
  /** Names of servers, also of those that nothing is attached to. */
  servers: string[];
  /** Conversations, by id, as far as this screen was told of them. */
  sessions: Record<string, Session>;
  deciding: Record<string, Deciding>;
  /** The last failure of a command, by the id it named; "" for those that named none. */
  failures: Record<string, Failure>;
  /** How often the list of open requests arrived; 0 before the first. */
  lists: number;
  /** Whether that list was as long as a list may be, so that there may be older open requests. */
  crowded: boolean;
  /** The feed's sequence number up to which everything is known. */
  seq: number;
}

/** A command that this screen sent. */
export interface Sent {
  type: "sent";
  command: Command;
}

/** A one-time secret was hidden. */
export interface Hidden {
  type: "hidden";
  id: string;
}

export const EMPTY: State = {
  welcome: null,
  chats: {},
  current: "",
  calls: {},
  approvals: {},
  requests: {},
  results: {},
  secrets: {},
  health: {},
  instances: {},
  servers: [],
  sessions: {},
  deciding: {},
  failures: {},
  lists: 0,
  crowded: false,
  seq: 0,
};

/** Open requests that a host lists at once, the newest ones. */
export const LISTED = 200;

const NO_CHAT: Chat = {
  session: null,
  messages: [],
  turns: {},
  turn: "",
  busy: false,
  typing: false,
  unconfirmed: "",
};

const OPEN: ReadonlySet<ApprovalState> = new Set(["pending", "approved", "executing", "unknown"]);

/** Whether something can still happen to a request. */
export function isOpen(approval: Approval): boolean {
  return OPEN.has(approval.state);
}

/** The next state. An event of an unknown kind changes nothing. */
export function reduce(state: State, event: Event | Sent | Hidden): State {
  if (event.type === "sent") return sent(state, event.command);
  if (event.type === "hidden") return concealed(state, event.id);
  const next = told(state, event);
  return event.seq > next.seq ? { ...next, seq: event.seq } : next;
}

function told(state: State, event: Event): State {
  switch (event.type) {
    case "hello":
      return { ...state, welcome: event };
    case "chat:joined":
      return joined(state, event.session, event.messages, event.busy);
    case "chat:message":
      return appended(state, event.message);
    case "chat:event":
      return changeChat(state, event.session, (chat) => turned(chat, event));
    case "chat:typing":
      return changeChat(state, event.session, (chat) => ({ ...chat, typing: event.on }));
    case "chat:tool_execution":
      return executed(state, event.session, event.turn, event.call);
    case "approval:request":
    case "approval:response":
      return decided(state, event.approval);
    case "approval:list":
      return {
        ...event.approvals.reduce(decided, state),
        lists: state.lists + 1,
        crowded: event.approvals.length >= LISTED,
      };
    case "result":
      return { ...state, results: { ...state.results, [event.call]: event.result } };
    case "secret:shown":
      return event.id in state.secrets ? { ...state, secrets: { ...state.secrets, [event.id]: event.text } } : state;
    case "plugin:health":
      return { ...state, health: { ...state.health, [event.health.instance]: event.health } };
    case "plugin:status":
      return attached(state, event);
    case "chat:session":
      return titled(state, event.session);
    case "error":
      return failed(state, event);
    default:
      return state;
  }
}

function sent(state: State, command: Command): State {
  switch (command.type) {
    case "chat:message":
      return changeChat(forgive(state, command.session), command.session, (chat) => ({
        ...chat,
        unconfirmed: command.text,
      }));
    case "approval:respond":
      return deciding(state, command.id, { decision: command.decision, version: command.version });
    case "approval:resolve":
      return deciding(state, command.id, {
        decision: command.state,
        version: state.approvals[command.id]?.version ?? 0,
      });
    case "result:get":
      return forgive(state, command.call);
    case "secret:reveal":
      return { ...forgive(state, command.id), secrets: { ...state.secrets, [command.id]: "" } };
    default:
      return state;
  }
}

/** Of what is gone only the name is told. */
function attached(state: State, { server, name, status, instance }: PluginStatus): State {
  const servers = server ? [...new Set([...state.servers, server])].sort() : state.servers;
  const others = Object.values(state.instances).filter((held) => held.name !== name && held.id !== name);
  const instances = status !== "detached" && instance ? [...others, instance] : others;
  return { ...state, servers, instances: Object.fromEntries(instances.map((one) => [one.id, one])) };
}

/** A session changed its title, its model, or was closed. */
function titled(state: State, session: Session): State {
  const next = { ...state, sessions: { ...state.sessions, [session.id]: session } };
  return session.id in state.chats ? changeChat(next, session.id, (chat) => ({ ...chat, session })) : next;
}

function changeChat(state: State, id: string, change: (chat: Chat) => Chat): State {
  return { ...state, chats: { ...state.chats, [id]: change(state.chats[id] ?? NO_CHAT) } };
}

function joined(state: State, session: Session, messages: Message[], busy: boolean): State {
  const sessions = { ...state.sessions, [session.id]: session };
  const known = messages.reduce(remember, { ...state, sessions, current: session.id });
  return changeChat(known, session.id, (chat) => ({
    ...chat,
    session,
    messages: merged(chat.messages, messages),
    busy,
    typing: busy && chat.typing,
    turns: busy ? chat.turns : settled(chat.turns),
  }));
}

/** A turn that went on while nobody listened has ended: what it said is in the messages. */
function settled(turns: Chat["turns"]): Chat["turns"] {
  return Object.fromEntries(
    Object.entries(turns).map(([id, turn]) => [id, isRunning(turn) ? { ...turn, kind: "finished", text: "" } : turn]),
  );
}

/** Whether a turn goes on. */
export function isRunning(turn: Turn): boolean {
  return turn.kind === "started" || turn.kind === "delta";
}

function merged(held: Message[], more: Message[]): Message[] {
  const bySeq = new Map([...held, ...more].map((message) => [message.seq, message]));
  return [...bySeq.values()].sort((a, b) => a.seq - b.seq);
}

function appended(state: State, message: Message): State {
  return changeChat(remember(state, message), message.session, (chat) => {
    const turn = chat.turns[message.turn];
    const said = message.role === "assistant" && turn ? { ...turn, text: rest(turn.text, message.text) } : undefined;
    return {
      ...chat,
      messages: merged(chat.messages, [message]),
      turns: said ? { ...chat.turns, [said.id]: said } : chat.turns,
      unconfirmed: message.role === "user" ? "" : chat.unconfirmed,
    };
  });
}

/** What streamed after the part that a message now holds: text and messages may overtake each other. */
function rest(streamed: string, held: string): string {
  return held && streamed.startsWith(held) ? streamed.slice(held.length).trimStart() : "";
}

const FINALITY: Record<CallRecord["status"], number> = {
  running: 0,
  waiting: 1,
  unknown: 2,
  succeeded: 3,
  failed: 3,
  refused: 3,
  cancelled: 3,
};

/** A transcript holds calls as they were when it was written, so it never takes back what is known since. */
function remember(state: State, message: Message): State {
  return message.calls.reduce((known, call) => {
    const held = known.calls[call.id];
    return held && FINALITY[held.status] > FINALITY[call.status] ? known : withCall(known, call);
  }, state);
}

function withCall(state: State, call: CallRecord): State {
  const result = call.result ?? call.effect?.result;
  return {
    ...state,
    calls: { ...state.calls, [call.id]: call },
    results: result ? { ...state.results, [call.id]: result } : state.results,
  };
}

function executed(state: State, session: string, id: string, call: CallRecord): State {
  return changeChat(withCall(state, call), session, (chat) => {
    const turn = chat.turns[id] ?? begun(id);
    if (turn.calls.includes(call.id)) return chat;
    return { ...chat, turns: { ...chat.turns, [id]: { ...turn, calls: [...turn.calls, call.id] } } };
  });
}

function begun(id: string): Turn {
  return { id, text: "", calls: [], kind: "started", note: "", code: "", hint: "" };
}

function turned(chat: Chat, event: TurnEvent): Chat {
  const before = chat.turns[event.turn] ?? begun(event.turn);
  const running = event.kind === "started" || event.kind === "delta";
  const text = event.kind === "started" ? "" : event.kind === "delta" ? before.text + event.text : before.text;
  const turn: Turn = {
    ...before,
    kind: event.kind,
    text,
    note: event.kind === "failed" ? event.text : "",
    code: event.code,
    hint: event.hint,
  };
  return {
    ...chat,
    turns: { ...chat.turns, [turn.id]: turn },
    turn: turn.id,
    busy: running,
    typing: running && chat.typing,
  };
}

/** Keeps the newest version of a request: answers may overtake each other. */
function decided(state: State, approval: Approval): State {
  const held = state.approvals[approval.id];
  if (held && held.version > approval.version) return state;
  const waiting = state.deciding[approval.id];
  const answered = waiting && approval.version > waiting.version;
  return {
    ...state,
    approvals: { ...state.approvals, [approval.id]: approval },
    requests: requested(state, approval),
    deciding: answered ? without(state.deciding, approval.id) : state.deciding,
  };
}

function requested(state: State, approval: Approval): State["requests"] {
  const held = state.approvals[state.requests[approval.call] ?? ""];
  if (!approval.call || (held && Date.parse(held.created_at) > Date.parse(approval.created_at))) return state.requests;
  return { ...state.requests, [approval.call]: approval.id };
}

function deciding(state: State, id: string, how: Deciding): State {
  return { ...forgive(state, id), deciding: { ...state.deciding, [id]: how } };
}

function concealed(state: State, id: string): State {
  return id in state.secrets ? { ...state, secrets: without(state.secrets, id) } : state;
}

function failed(state: State, failure: Failure): State {
  const next = {
    ...(failure.command === "secret:reveal" ? concealed(state, failure.about) : state),
    failures: { ...state.failures, [failure.about]: failure },
    deciding: without(state.deciding, failure.about),
  };
  if (failure.command !== "chat:message") return next;
  return changeChat(next, failure.about, (chat) => ({ ...chat, unconfirmed: "" }));
}

function forgive(state: State, id: string): State {
  return id in state.failures ? { ...state, failures: without(state.failures, id) } : state;
}

function without<T>(values: Record<string, T>, id: string): Record<string, T> {
  if (!(id in values)) return values;
  const { [id]: _, ...others } = values;
  return others;
}
