// The line to the server: it resumes where it was cut, says so while it is gone, and sends nothing late.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { approval, event, eventOf } from "../../tests/golden";
import type { Command, Event } from "../protocol";
import { connectServer, type ServerClient, type Socket, TIMES } from "./server";

/** The server's end of one WebSocket. */
class End implements Socket {
  readyState = 0;
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;
  readonly sent: Command[] = [];
  closed = false;

  send(text: unknown): void {
    this.sent.push((JSON.parse(String(text)) as { v: number; command: Command }).command);
  }

  close(): void {
    this.closed = true;
    this.readyState = 3;
  }

  accept(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  say(...events: Event[]): void {
    for (const event of events) this.onmessage?.({ data: JSON.stringify({ v: 1, event }) });
  }

  cut(): void {
    this.readyState = 3;
    this.onclose?.();
  }
}

let ends: End[];
let client: ServerClient;
let heard: Event[];

const last = () => ends.at(-1) as End;
const welcome = (changes: object = {}): Event => ({ ...eventOf("hello", "hello.event"), seq: 0, ...changes });
const changed = (seq: number): Event => ({ type: "approval:response", seq, approval: approval("pending") });
const sentOf = (type: Command["type"]) => last().sent.filter((command) => command.type === type);

function connect(): void {
  client = connectServer(() => {
    const end = new End();
    ends.push(end);
    return end;
  }, "0.1.0");
  client.subscribe((told) => heard.push(told));
}

function greet(changes: object = {}): void {
  last().accept();
  last().say(welcome(changes));
}

beforeEach(() => {
  vi.useFakeTimers();
  ends = [];
  heard = [];
  connect();
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

describe("a line to the server", () => {
  test("says hello first, with its release, and is open once it is greeted", () => {
    expect(client.line().state).toBe("connecting");
    last().accept();
    expect(last().sent).toEqual([{ type: "hello", version: "0.1.0", since: 0 }]);
    expect(client.line().state).toBe("connecting");
    last().say(welcome());
    expect(client.line().state).toBe("open");
    expect(heard.map((told) => told.type)).toEqual(["hello"]);
  });

  test("comes back after a cut with the last change that it saw, and watches again what it watched", async () => {
    client.send({ type: "approval:subscribe" });
    client.send({ type: "plugin:subscribe" });
    client.send({ type: "chat:join", session: "5e55", since: 0 });
    greet();
    const joined = eventOf("chat:joined", "chat.joined.transcript");
    last().say(changed(41), joined, changed(42));
    last().cut();
    expect(client.line().state).toBe("lost");
    await vi.advanceTimersByTimeAsync(TIMES.first * 2);
    greet({ resumed: true, seq: 42 });
    expect(sentOf("hello")).toEqual([{ type: "hello", version: "0.1.0", since: 42 }]);
    expect(sentOf("approval:subscribe")).toHaveLength(1);
    expect(sentOf("plugin:subscribe")).toHaveLength(1);
    const seen = joined.messages.reduce((most, message) => Math.max(most, message.seq), 0);
    expect(sentOf("chat:join")).toEqual([{ type: "chat:join", session: joined.session.id, since: seen }]);
  });

  test("begins anew when the server cannot resume", async () => {
    client.send({ type: "chat:join", session: "5e55", since: 0 });
    greet();
    last().say({ ...eventOf("chat:message", "chat.message.answered"), seq: 99 });
    last().cut();
    await vi.advanceTimersByTimeAsync(TIMES.first * 2);
    greet({ resumed: false, seq: 7 });
    expect(sentOf("chat:join")).toEqual([{ type: "chat:join", session: "5e55", since: 0 }]);
    last().cut();
    await vi.advanceTimersByTimeAsync(TIMES.first * 2);
    last().accept();
    expect(sentOf("hello")).toEqual([{ type: "hello", version: "0.1.0", since: 7 }]);
  });

  test("watches no more what it was told to leave", async () => {
    client.send({ type: "approval:subscribe" });
    client.send({ type: "chat:join", session: "5e55", since: 3 });
    greet();
    client.send({ type: "approval:unsubscribe" });
    client.send({ type: "chat:leave", session: "5e55" });
    last().cut();
    await vi.advanceTimersByTimeAsync(TIMES.first * 2);
    greet({ resumed: true });
    expect(last().sent.map((command) => command.type)).toEqual(["hello"]);
  });

  test("sends no decision late: without a line it fails at once, and is not kept", async () => {
    const { id, version, digest } = approval("pending");
    client.send({ type: "approval:respond", id, decision: "approve", reason: "", version, digest });
    expect(heard).toMatchObject([{ type: "error", code: "connection.lost", about: id, command: "approval:respond" }]);
    greet();
    await vi.advanceTimersByTimeAsync(1000);
    expect(last().sent.map((command) => command.type)).toEqual(["hello"]);
  });

  test("asks later, once, what was asked without a line", () => {
    client.send({ type: "approval:get", id: "a" });
    client.send({ type: "approval:get", id: "a" });
    client.send({ type: "result:get", call: "c" });
    expect(heard).toEqual([]);
    greet();
    expect(last().sent.slice(1)).toEqual([
      { type: "approval:get", id: "a" },
      { type: "result:get", call: "c" },
    ]);
  });

  test("waits longer after each failure, up to a limit, and at once when a person says so", async () => {
    const pauses: number[] = [];
    for (let failure = 0; failure < 12; failure++) {
      last().cut();
      const line = client.line();
      pauses.push(line.state === "lost" ? line.next - Date.now() : -1);
      await vi.advanceTimersByTimeAsync(pauses.at(-1) ?? 0);
    }
    expect(pauses[0]).toBeLessThanOrEqual(TIMES.first * 1.25);
    expect(Math.max(...pauses)).toBeLessThanOrEqual(TIMES.longest * 1.25);
    expect(pauses.at(-1)).toBeGreaterThan((pauses[0] ?? 0) * 10);
    last().cut();
    const before = ends.length;
    client.retry();
    expect(ends.length).toBe(before + 1);
    greet();
    last().cut();
    const line = client.line();
    expect(line.state === "lost" && line.tries).toBe(1);
  });

  test("notices a line that is dead although nobody closed it", async () => {
    greet();
    await vi.advanceTimersByTimeAsync(TIMES.beat);
    expect(sentOf("hello")).toHaveLength(2);
    last().say(welcome({ resumed: true }));
    await vi.advanceTimersByTimeAsync(TIMES.beat);
    expect(client.line().state).toBe("open");
    await vi.advanceTimersByTimeAsync(TIMES.silence);
    expect(client.line().state).toBe("lost");
  });

  test("does not begin anew because of a heartbeat", async () => {
    client.send({ type: "approval:subscribe" });
    greet();
    last().say(changed(5));
    await vi.advanceTimersByTimeAsync(TIMES.beat);
    last().say(welcome({ resumed: false }));
    expect(sentOf("approval:subscribe")).toHaveLength(1);
    expect(sentOf("hello").at(-1)).toMatchObject({ since: 5 });
  });

  test("takes no words of another version, and no words that are none", () => {
    greet();
    for (const data of ["", "{", "null", '{"v":2,"event":{"type":"hello"}}', '{"v":1}', new Blob()]) {
      last().onmessage?.({ data });
    }
    expect(heard).toEqual([welcome()]);
  });

  test("is gone for good when it is closed", async () => {
    greet();
    client.close();
    await vi.advanceTimersByTimeAsync(TIMES.longest * 4);
    expect(ends).toHaveLength(1);
    expect(last().closed).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("hands an event over once to each listener, in order", () => {
    greet();
    const told = [changed(1), event("plugin.health.up"), changed(2)];
    last().say(...told);
    expect(heard.slice(1)).toEqual(told);
  });
});
