// What a screen knows follows from what it was told, in whatever order that arrives.
import { describe, expect, test } from "vitest";
import { approval, command, event, eventOf, files } from "../../tests/golden";
import type { Approval, Event, Message } from "../protocol";
import { EMPTY, isOpen, reduce, type State } from "./state";

const known = files("good").flatMap(([name, content]) => {
  const told = (content as { event?: Event }).event;
  return told ? [[name, told] as const] : [];
});

function told(...events: (Event | Parameters<typeof reduce>[1])[]): State {
  return events.reduce(reduce, EMPTY);
}

const chat = (state: State) => state.chats["5e55"];
const changed = (value: Approval): Event => ({ type: "approval:response", seq: 1, approval: value });
const delta = (text: string): Event => ({ ...eventOf("chat:event", "chat.event.delta"), text });
const started = event("chat.event.started");

function said(text: string, seq = 2): Event {
  const { message } = eventOf("chat:message", "chat.message.answered");
  return { type: "chat:message", seq: 0, message: { ...message, seq, text } };
}

describe("the reducer", () => {
  test.each(known)("takes %s without changing what it was given", (_, told) => {
    const before = structuredClone(told);
    const state = Object.freeze({ ...EMPTY });
    const next = reduce(state, told);
    expect(told).toEqual(before);
    expect(next.seq).toBe(Math.max(0, told.seq));
    expect(reduce(next, told)).toEqual(
      told.type === "chat:event" || told.type === "approval:list" ? expect.anything() : next,
    );
  });

  test("ignores an event of a kind that it does not know", () => {
    expect(reduce(EMPTY, { type: "chat:shout", seq: 0 } as unknown as Event)).toEqual(EMPTY);
  });

  test("streams text and hands it over to the message that keeps it", () => {
    const streaming = told(started, delta("One "), delta("statement"));
    expect(chat(streaming)?.turns.t1?.text).toBe("One statement");
    expect(chat(streaming)?.busy).toBe(true);
    const kept = reduce(streaming, said("One statement"));
    expect(chat(kept)?.turns.t1?.text).toBe("");
    expect(chat(kept)?.messages.map((message) => message.text)).toEqual(["One statement"]);
  });

  test("keeps the words that streamed past a message which arrives late", () => {
    const state = told(started, delta("First."), delta(" Second"), said("First."));
    expect(chat(state)?.turns.t1?.text).toBe("Second");
  });

  test("orders messages by their number and holds each once", () => {
    const late = [said("b", 3), said("a", 2), said("b", 3)];
    expect(chat(told(...late))?.messages.map((message) => message.seq)).toEqual([2, 3]);
  });

  test("never takes back how a call ended", () => {
    const done = eventOf("chat:tool_execution", "chat.tool_execution.succeeded");
    const { message } = eventOf("chat:message", "chat.message.answered");
    const old: Message = { ...message, calls: [{ ...done.call, status: "running" }] };
    expect(told(done, { type: "chat:message", seq: 0, message: old }).calls.c0?.status).toBe("succeeded");
  });

  test("lets a call that waited run and end", () => {
    const waiting = eventOf("chat:tool_execution", "chat.tool_execution.waiting");
    const ends = (["running", "succeeded"] as const).map((status) => ({
      ...waiting,
      call: { ...waiting.call, status },
    }));
    expect(told(waiting, ...ends).calls.ca11?.status).toBe("succeeded");
  });

  test("keeps the newest version of a request when answers overtake each other", () => {
    const [pending, succeeded] = [approval("pending"), approval("succeeded")];
    const state = told(changed(succeeded), changed(pending));
    expect(state.approvals[pending.id]?.state).toBe("succeeded");
  });

  test("finds the request of a call that no message names yet", () => {
    const pending = approval("pending");
    expect(told(changed(pending)).requests[pending.call]).toBe(pending.id);
  });

  test("knows a decision that is on its way until it is answered", () => {
    const pending = approval("pending");
    const asking = told(changed(pending), { type: "sent", command: command("approval.respond.approve") });
    expect(asking.deciding[pending.id]?.decision).toBe("approve");
    expect(reduce(asking, changed(pending)).deciding[pending.id]).toBeDefined();
    expect(reduce(asking, changed(approval("approved"))).deciding).toEqual({});
  });

  test("ends a decision that failed and remembers why, until the next try", () => {
    const pending = approval("pending");
    const sent = { type: "sent", command: command("approval.respond.approve") } as const;
    const failed = told(changed(pending), sent, event("error.decided"));
    expect(failed.deciding).toEqual({});
    expect(failed.failures[pending.id]?.code).toBe("approval.already_decided");
    expect(reduce(failed, sent).failures).toEqual({});
  });

  test("shows what was said at once, and takes it back when it was refused", () => {
    const asked = told(event("chat.joined.empty"), { type: "sent", command: command("chat.message.command") });
    expect(chat(asked)?.unconfirmed).toBe("show me slow queries");
    expect(chat(reduce(asked, event("chat.message.asked")))?.unconfirmed).toBe("");
    expect(chat(reduce(asked, event("error.plain")))?.unconfirmed).toBe("");
  });

  test("settles a turn that ended while nobody listened", () => {
    const state = told(started, delta("half a sent"), event("chat.joined.empty"));
    expect(chat(state)).toMatchObject({ busy: false, turns: { t1: { text: "", kind: "finished" } } });
  });

  test("counts the states in which something can still happen as the lifecycle does", () => {
    const names = known.map(([name]) => name).filter((name) => name.startsWith("approval.response."));
    const open = names.map((name) => approval(name.slice("approval.response.".length))).filter(isOpen);
    expect(new Set(open.map((found) => found.state))).toEqual(new Set(["pending", "approved", "executing", "unknown"]));
  });
});

describe("what is attached", () => {
  const shop = eventOf("plugin:status", "plugin.status.attached");

  test("comes, changes and goes by its name", () => {
    const first = told(shop);
    expect(Object.values(first.instances)).toEqual([shop.instance]);
    expect(first.servers).toEqual([shop.server]);
    const again = { ...shop, instance: shop.instance && { ...shop.instance, id: "new" } };
    expect(Object.keys(told(shop, again).instances)).toEqual(["new"]);
    const gone = told(shop, { ...shop, server: "", status: "detached", instance: null });
    expect(gone.instances).toEqual({});
    expect(gone.servers).toEqual([shop.server]);
  });

  test("leaves a conversation's messages where they are when its title changes", () => {
    const { session } = eventOf("chat:joined", "chat.joined.transcript");
    const joined = told(event("chat.joined.transcript"));
    const renamed = reduce(joined, { type: "chat:session", seq: 3, session: { ...session, title: "other" } });
    expect(renamed.chats[session.id]?.session?.title).toBe("other");
    expect(renamed.chats[session.id]?.messages).toEqual(joined.chats[session.id]?.messages);
    expect(renamed.sessions[session.id]?.title).toBe("other");
  });
});
