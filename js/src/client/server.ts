// The client of a page that a Jupyter server serves: one WebSocket that is opened again whenever it is lost, and goes on
// after the last change that was seen.
import { type Command, type Event, type Told, type Welcome, WIRE } from "../protocol";
import type { Client } from ".";

/** How the line to the server is: ``lost`` until the next try at ``next`` (milliseconds since 1970). */
export type Line = { state: "connecting" } | { state: "open" } | { state: "lost"; next: number; tries: number };

export interface ServerClient extends Client {
  line(): Line;
  /** What the server said of itself when it last greeted. */
  welcome(): Welcome | null;
  /** Calls back whenever the line changes, until the returned function is called. */
  watchLine(onChange: (line: Line) => void): () => void;
  /** Tries again now instead of at the next time. */
  retry(): void;
  close(): void;
}

/** What is used of a WebSocket. */
export type Socket = Pick<WebSocket, "send" | "close" | "readyState"> & {
  onopen: (() => void) | null;
  onmessage: ((message: { data: unknown }) => void) | null;
  onclose: (() => void) | null;
};

/** First and longest pause before another try, and the longest silence of a line that is alive, in milliseconds. */
export const TIMES = { first: 500, longest: 30_000, beat: 20_000, silence: 15_000 };

const OPEN = 1;

/** Commands that begin a watch, which has to begin again on a new line. */
type Watch = "approval:subscribe" | "plugin:subscribe";

export function connectServer(open: () => Socket, version: string): ServerClient {
  return new Connection(open, version);
}

class Connection implements ServerClient {
  private socket: Socket | null = null;
  private state: Line = { state: "connecting" };
  private tries = 0;
  private greeting: Welcome | null = null;
  private seq = 0;
  private closed = false;
  private beat: ReturnType<typeof setTimeout> | undefined;
  private again: ReturnType<typeof setTimeout> | undefined;
  private readonly listeners = new Set<(event: Event) => void>();
  private readonly watchers = new Set<(line: Line) => void>();
  private readonly watches = new Set<Watch>();
  /** What was asked without a line, by its text: it is asked once, on the next one. */
  private readonly questions = new Map<string, Command>();
  /** Session to the last message that was seen of it. */
  private readonly joined = new Map<string, number>();

  constructor(
    private readonly open: () => Socket,
    private readonly version: string,
  ) {
    this.connect();
  }

  line(): Line {
    return this.state;
  }

  watchLine(onChange: (line: Line) => void): () => void {
    this.watchers.add(onChange);
    return () => this.watchers.delete(onChange);
  }

  welcome(): Welcome | null {
    return this.greeting;
  }

  subscribe(onEvent: (event: Event) => void): () => void {
    this.listeners.add(onEvent);
    return () => this.listeners.delete(onEvent);
  }

  send(command: Command): void {
    this.remember(command);
    if (command.type === "hello") return; // each line says it once, by itself
    if (this.state.state === "open") this.put(command);
    else if (QUESTIONS.has(command.type)) this.questions.set(JSON.stringify(command), command);
    else if (!isRepeated(command)) this.tell(unsent(command));
  }

  retry(): void {
    if (this.closed || this.state.state !== "lost") return;
    this.connect();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.again);
    clearTimeout(this.beat);
    this.drop();
  }

  // -- one line after another -------------------------------------------------------------------------------------

  private connect(): void {
    clearTimeout(this.again);
    this.drop();
    this.become({ state: "connecting" });
    const socket = this.open();
    this.socket = socket;
    socket.onopen = () => this.hello();
    socket.onmessage = ({ data }) => this.received(data);
    socket.onclose = () => this.lost();
    this.expect(TIMES.longest);
  }

  private drop(): void {
    const { socket } = this;
    this.socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  private hello(): void {
    this.put({ type: "hello", version: this.version, since: this.seq });
  }

  private lost(): void {
    clearTimeout(this.beat);
    this.drop();
    if (this.closed) return;
    this.tries += 1;
    const pause = Math.min(TIMES.longest, TIMES.first * 2 ** (this.tries - 1)) * (0.75 + Math.random() / 2);
    this.again = setTimeout(() => this.connect(), pause);
    this.become({ state: "lost", next: Date.now() + pause, tries: this.tries });
  }

  private become(line: Line): void {
    this.state = line;
    for (const watcher of [...this.watchers]) watcher(line);
  }

  // -- heartbeat: a line that says nothing when asked is dead, whatever the browser believes -------------------------

  private expect(within: number): void {
    clearTimeout(this.beat);
    this.beat = setTimeout(() => this.lost(), within);
  }

  private alive(): void {
    clearTimeout(this.beat);
    this.beat = setTimeout(() => {
      this.hello();
      this.expect(TIMES.silence);
    }, TIMES.beat);
  }

  // -- words --------------------------------------------------------------------------------------------------------

  private received(text: unknown): void {
    const event = read(text);
    this.alive();
    if (!event) return;
    if (event.type === "hello") this.greeting = event;
    this.follow(event);
    this.tell(event);
    if (event.type === "hello" && this.state.state !== "open") this.greeted(event.resumed);
  }

  private tell(event: Event): void {
    for (const listener of [...this.listeners]) listener(event);
  }

  private greeted(resumed: boolean): void {
    this.tries = 0;
    this.become({ state: "open" });
    for (const type of this.watches) this.put({ type });
    for (const [session, since] of this.joined) this.put({ type: "chat:join", session, since: resumed ? since : 0 });
    for (const question of this.questions.values()) this.put(question);
    this.questions.clear();
  }

  private put(command: Command): void {
    if (this.socket?.readyState === OPEN) this.socket.send(JSON.stringify({ v: WIRE, command }));
  }

  private follow(event: Event): void {
    if (event.type === "hello" && !event.resumed && this.state.state !== "open") this.seq = 0;
    this.seq = Math.max(this.seq, event.seq);
    if (event.type === "chat:message") this.saw(event.message.session, event.message.seq);
    if (event.type === "chat:joined") {
      this.joined.set(event.session.id, this.joined.get(event.session.id) ?? 0);
      for (const message of event.messages) this.saw(message.session, message.seq);
    }
  }

  private saw(session: string, seq: number): void {
    const before = this.joined.get(session);
    if (before !== undefined) this.joined.set(session, Math.max(before, seq));
  }

  private remember(command: Command): void {
    if (command.type === "approval:subscribe" || command.type === "plugin:subscribe") this.watches.add(command.type);
    if (command.type === "approval:unsubscribe") this.watches.delete("approval:subscribe");
    if (command.type === "plugin:unsubscribe") this.watches.delete("plugin:subscribe");
    if (command.type === "chat:join" && command.session) this.joined.set(command.session, command.since);
    if (command.type === "chat:leave") this.joined.delete(command.session);
  }
}

/** Commands that change nothing, so that it does not matter when they are carried out. */
const QUESTIONS: ReadonlySet<Command["type"]> = new Set(["approval:get", "result:get", "chat:history"]);

const REPEATED: ReadonlySet<Command["type"]> = new Set([
  "approval:subscribe",
  "approval:unsubscribe",
  "plugin:subscribe",
  "plugin:unsubscribe",
  "chat:leave",
]);

/** Whether a new line says this by itself, or does not need it. */
function isRepeated(command: Command): boolean {
  return REPEATED.has(command.type) || (command.type === "chat:join" && command.session !== "");
}

/** A command that met no line is not kept for later: nobody should decide something minutes after the click. */
function unsent(command: Command): Event {
  const about =
    "id" in command ? command.id : "session" in command ? command.session : "call" in command ? command.call : "";
  return {
    type: "error",
    seq: 0,
    code: "connection.lost",
    message: "The Jupyter server cannot be reached right now.",
    hint: "Nothing was sent. Try again when the connection is back.",
    command: command.type,
    about,
  };
}

function read(text: unknown): Event | null {
  if (typeof text !== "string") return null;
  try {
    const told = JSON.parse(text) as Partial<Told> | null;
    return told?.v === WIRE && typeof told.event?.type === "string" ? told.event : null;
  } catch {
    return null;
  }
}
