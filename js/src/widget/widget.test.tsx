// The widget of a cell: messages over the comm, attaching again, and what stands there when nobody answers.
import { act, cleanup } from "@testing-library/preact";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { approval, event } from "../../tests/golden";
import type { Command, Event } from "../protocol";
import widget from ".";
import { connect } from "./comm";

/** A widget's model whose kernel is this test. */
function model(traits: Record<string, unknown>) {
  const listeners = new Set<(content: unknown) => void>();
  const sent: { v: number; command: Command }[] = [];
  return {
    sent,
    listeners,
    get: (name: string) => traits[name],
    send: (content: { v: number; command: Command }) => void sent.push(content),
    on: (_: string, callback: (content: unknown) => void) => void listeners.add(callback),
    off: (_: string, callback: (content: unknown) => void) => void listeners.delete(callback),
    say(...events: Event[]) {
      for (const told of events) for (const listener of [...listeners]) listener({ v: 1, event: told });
    },
  };
}

const pending = approval("pending");
const summary = {
  title: pending.plan.title,
  risk: "medium",
  state: "pending",
  outcome: "waiting for a decision",
  decided_by: "",
  attach: "%opsagent show 12345678",
};
const traits = { kind: "approval", id: pending.id, summary, version: "0.1.0" };

let cell: HTMLElement;
let end: (() => void) | undefined;

beforeEach(() => {
  vi.useFakeTimers();
  document.body.innerHTML =
    '<div class="jp-OutputArea"><div class="jp-OutputArea-child"><div class="oa-record">the record</div></div><div id="cell"></div></div>';
  cell = document.getElementById("cell") as HTMLElement;
});

afterEach(() => {
  end?.();
  end = undefined;
  cleanup();
  vi.useRealTimers();
});

async function draw(found: ReturnType<typeof model>): Promise<void> {
  await act(async () => {
    end = widget.render({ model: found, el: cell } as unknown as Parameters<typeof widget.render>[0]) as () => void;
    await vi.advanceTimersByTimeAsync(50);
  });
}

function pass(milliseconds: number) {
  return act(async () => {
    await vi.advanceTimersByTimeAsync(milliseconds);
  });
}

const isLive = () => document.querySelector(".oa-live") !== null;

describe("the widget", () => {
  test("asks by id, which is all that it has, and shows what it is told", async () => {
    const kernel = model(traits);
    await draw(kernel);
    expect(kernel.sent).toContainEqual({ v: 1, command: { type: "approval:get", id: pending.id } });
    kernel.say({ type: "approval:response", seq: 1, approval: pending });
    await pass(50);
    expect(cell.querySelector("article")?.textContent).toContain("CREATE INDEX CONCURRENTLY");
    expect(isLive()).toBe(true);
  });

  test("shows no state of the saved summary while a kernel answers", async () => {
    const kernel = model({ ...traits, summary: { ...summary, state: "approved", title: "forged" } });
    await draw(kernel);
    kernel.say({ type: "approval:response", seq: 1, approval: pending });
    await pass(6000);
    expect(cell.textContent).not.toContain("forged");
  });

  test("shows the saved summary and how to attach again when no kernel answers in five seconds", async () => {
    const kernel = model(traits);
    await draw(kernel);
    await pass(4900);
    expect(cell.textContent).not.toContain("No kernel answers");
    await pass(200);
    expect(cell.textContent).toContain("No kernel answers for this card.");
    expect(cell.textContent).toContain("%opsagent show 12345678");
    expect(cell.textContent).toContain(pending.plan.title);
    expect(cell.querySelector("button")).toBeNull();
    expect(isLive()).toBe(false);
  });

  test("comes back to life when the kernel answers late", async () => {
    const kernel = model(traits);
    await draw(kernel);
    await pass(5100);
    kernel.say(event("hello.event"));
    await pass(50);
    kernel.say({ type: "approval:response", seq: 1, approval: pending });
    await pass(50);
    expect(cell.querySelector("article")).not.toBeNull();
    expect(isLive()).toBe(true);
  });

  test("hides the record once it is in the page, when it was drawn before", async () => {
    const kernel = model(traits);
    const area = document.querySelector(".jp-OutputArea") as HTMLElement;
    cell.remove();
    await draw(kernel);
    kernel.say(event("hello.event"));
    await pass(200);
    expect(isLive()).toBe(false);
    area.append(cell);
    await pass(100);
    expect(isLive()).toBe(true);
  });

  test("draws a saved summary as text", async () => {
    const kernel = model({ ...traits, summary: { ...summary, title: "<img src=x onerror=alert(1)>\u202e" } });
    await draw(kernel);
    await pass(5100);
    expect(cell.querySelector("img")).toBeNull();
    expect(cell.textContent).toContain("<img src=x onerror=alert(1)>⟨U+202E⟩");
  });

  test("joins the session of a chat and of a turn", async () => {
    for (const [kind, id] of [
      ["chat", "5e55"],
      ["turn", "5e55/t1"],
    ]) {
      const kernel = model({ ...traits, kind, id });
      await draw(kernel);
      expect(kernel.sent).toContainEqual({ v: 1, command: { type: "chat:join", session: "5e55", since: 0 } });
      end?.();
    }
  });

  test("leaves nothing behind when its cell goes", async () => {
    const kernel = model(traits);
    await draw(kernel);
    kernel.say({ type: "approval:response", seq: 1, approval: pending });
    await pass(50);
    end?.();
    end = undefined;
    expect(kernel.listeners.size).toBe(0);
    expect(cell.innerHTML).toBe("");
    expect(isLive()).toBe(false);
    await pass(100);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("the client over a comm", () => {
  test("takes events of its own version only", () => {
    const kernel = model(traits);
    const heard: Event[] = [];
    connect(kernel).subscribe((told) => heard.push(told));
    for (const content of [null, "x", {}, { v: 2, event: event("hello.event") }, { v: 1 }, { v: 1, event: {} }]) {
      for (const listener of kernel.listeners) listener(content);
    }
    expect(heard).toEqual([]);
    kernel.say(event("hello.event"));
    expect(heard).toEqual([event("hello.event")]);
  });

  test("survives a comm that is dead", () => {
    const kernel = model(traits);
    const dead = {
      ...kernel,
      send: () => {
        throw new Error("comm closed");
      },
    };
    expect(() => connect(dead).send({ type: "approval:subscribe" })).not.toThrow();
  });

  test("hears nothing after it unsubscribed", () => {
    const kernel = model(traits);
    const heard: Event[] = [];
    connect(kernel).subscribe((told) => heard.push(told))();
    kernel.say(event("hello.event"));
    expect(heard).toEqual([]);
  });
});
