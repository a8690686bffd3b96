// The chat: what streams, what is kept, what can be typed, and what a screen reader hears.
import { act, cleanup, screen, within } from "@testing-library/preact";
import { afterEach, describe, expect, test, vi } from "vitest";
import { approval, event, eventOf } from "../../tests/golden";
import { type Stage, stage } from "../../tests/stage";
import type { CallRecord, Event, Message, TurnEvent } from "../protocol";

afterEach(cleanup);

const SESSION = "5e55";
const box = () => screen.getByRole("textbox", { name: "Message" }) as HTMLTextAreaElement;
const log = () => screen.getByRole("log");

/** Opens the first call's details. */
async function look(shown: Stage): Promise<void> {
  await shown.user.click(log().querySelector("summary") as HTMLElement);
  await shown.say();
}

function turn(kind: TurnEvent["kind"], changes: Partial<TurnEvent> = {}): Event {
  return { ...eventOf("chat:event", `chat.event.${kind}`), ...changes };
}

function message(changes: Partial<Message>): Event {
  return {
    type: "chat:message",
    seq: 0,
    message: { ...eventOf("chat:message", "chat.message.asked").message, ...changes },
  };
}

function called(changes: Partial<CallRecord>): Event {
  const told = eventOf("chat:tool_execution", "chat.tool_execution.succeeded");
  return { ...told, call: { ...told.call, ...changes } };
}

const asked = (seq: number, text: string, id: string) => message({ seq, role: "user", text, turn: id });
const answered = (seq: number, text: string, id: string) => message({ seq, role: "assistant", text, turn: id });

function chat(...events: Event[]): Promise<Stage> {
  return stage({ kind: "chat", session: SESSION }, event("chat.joined.empty"), ...events);
}

describe("the chat", () => {
  test("joins its session from the start, and leaves it when it goes", async () => {
    const shown = await chat();
    expect(shown.sent.slice(0, 3)).toEqual([
      { type: "hello", version: "0.1.0", since: 0 },
      { type: "chat:join", session: SESSION, since: 0 },
      { type: "approval:subscribe" },
    ]);
    shown.unmount();
    expect(shown.sent.slice(-2)).toEqual([{ type: "chat:leave", session: SESSION }, { type: "approval:unsubscribe" }]);
  });

  test("learns the id of a new session", async () => {
    const shown = await stage({ kind: "chat", session: "" }, event("chat.joined.empty"));
    await shown.user.type(box(), "hello{Enter}");
    expect(shown.of("chat:message")).toEqual([{ type: "chat:message", session: SESSION, text: "hello" }]);
  });

  test("says where it talks to, with which model, and what nobody has to fear", async () => {
    const shown = await chat();
    expect(shown.container.textContent).toContain("shop on demo");
    expect(shown.container.textContent).toContain("offline model");
    expect(shown.container.textContent).toContain("nothing that changes data runs without you");
  });

  test("shows words as they stream, and the kept message in their place, once", async () => {
    const shown = await chat(asked(1, "why?", "t1"), turn("started"), turn("delta", { text: "One **stat" }));
    expect(log().textContent).toContain("One **stat");
    await shown.say(turn("delta", { text: "ement**" }), turn("finished", { text: "One **statement**" }));
    expect(within(log()).getByText("statement").localName).toBe("strong");
    await shown.say(answered(2, "One **statement**", "t1"));
    expect(within(log()).getAllByText("statement")).toHaveLength(1);
  });

  test("says an answer to a screen reader when it is complete, not word by word", async () => {
    const shown = await chat(turn("started"), turn("delta", { text: "One" }));
    const voice = () => shown.container.querySelector("[aria-live=polite]")?.textContent;
    expect(voice()).toBe("");
    await shown.say(answered(2, "One statement", "t1"), turn("finished"));
    expect(voice()).toBe("OpsAgent: One statement");
    expect(log().getAttribute("aria-live")).toBe("off");
  });

  test("shows each call with its state, risk and time, and reads its rows when somebody looks", async () => {
    const shown = await chat(turn("started"), event("chat.tool_execution.succeeded"));
    const line = log().querySelector("summary") as HTMLElement;
    expect(line.textContent).toMatch(/succeeded.*get_slow_queries.*one takes 71%.*low.*8\.3 ms/);
    expect(shown.of("result:get")).toEqual([]);
    await look(shown);
    expect(shown.of("result:get")).toEqual([{ type: "result:get", call: "c0" }]);
    await shown.say(event("result.event"));
    expect(within(log()).getByText("slow queries: 3 of 57 rows; the others were not fetched")).toBeTruthy();
    expect(log().querySelector("pre.oa-tree")?.textContent).toContain("Seq Scan on orders");
  });

  test("does not ask for rows that came with the call", async () => {
    const shown = await chat(turn("started"), event("chat.tool_execution.rows"));
    await look(shown);
    expect(shown.of("result:get")).toEqual([]);
    expect(log().querySelectorAll("tbody tr")).toHaveLength(3);
  });

  test("shows the card of a call that waits, below its line", async () => {
    await chat(turn("started"), event("chat.tool_execution.waiting"), {
      type: "approval:request",
      seq: 5,
      approval: approval("pending"),
    });
    expect(within(log()).getByRole("article").textContent).toContain("CREATE INDEX CONCURRENTLY");
  });

  test("shows the card of a request before any call names it", async () => {
    await chat({ type: "approval:request", seq: 5, approval: approval("pending") });
    expect(within(log()).getAllByRole("article")).toHaveLength(1);
  });

  test("shows a request of another session nowhere", async () => {
    await chat({ type: "approval:request", seq: 5, approval: approval("pending", { session: "0ther" }) });
    expect(within(log()).queryByRole("article")).toBeNull();
  });

  test("draws one card for a call that a message and a running turn both name", async () => {
    await chat(
      turn("started"),
      event("chat.tool_execution.waiting"),
      event("chat.message.answered"),
      event("approval.list.open"),
    );
    const cards = within(log()).getAllByRole("article", { name: /Create an index/ });
    expect(cards).toHaveLength(1);
  });

  test("tells a call that waits by what became of its request", async () => {
    const ended = approval("succeeded");
    await chat(event("chat.message.answered"), { type: "approval:response", seq: 5, approval: ended });
    const line = within(log()).getByText("create_index").closest("summary") as HTMLElement;
    expect(line.textContent).toMatch(/succeeded.*is there and valid/);
  });

  test.each([
    ["failed", /The turn failed: The language model does not answer\. Check its key/],
    ["cancelled", /Cancelled/],
    ["parked", /Waiting for your decision; the turn goes on after it/],
  ] as const)("says that a turn has %s", async (kind, words) => {
    await chat(turn("started"), turn("delta", { text: "half" }), turn(kind));
    expect(log().textContent).toMatch(words);
  });

  test("marks an answer that was cut", async () => {
    await chat(event("chat.message.partial"));
    expect(log().textContent).toContain("stopped here");
  });

  test("reads older messages on demand", async () => {
    const shown = await chat(asked(41, "later", "t9"));
    await shown.user.click(screen.getByRole("button", { name: "Show earlier messages" }));
    expect(shown.of("chat:history")).toEqual([{ type: "chat:history", session: SESSION, before: 41 }]);
  });

  test("says when page and Python are of different releases", async () => {
    const shown = await chat();
    await shown.say({ ...eventOf("hello", "hello.event"), version: "0.2.0" });
    expect(screen.getByRole("alert").textContent).toContain("different releases");
  });
});

describe("the message box", () => {
  test("sends on Enter, breaks the line on Shift and Enter, and shows the words at once", async () => {
    const shown = await chat();
    await shown.user.type(box(), "who is{Shift>}{Enter}{/Shift}blocking?{Enter}");
    expect(shown.of("chat:message")).toEqual([{ type: "chat:message", session: SESSION, text: "who is\nblocking?" }]);
    expect(box().value).toBe("");
    expect(log().textContent).toContain("who is\nblocking?");
  });

  test("sends nothing that is empty, and nothing while a turn runs", async () => {
    const shown = await chat();
    await shown.user.type(box(), "   {Enter}");
    await shown.say(turn("started"));
    await shown.user.type(box(), "more{Enter}");
    expect(shown.of("chat:message")).toEqual([]);
  });

  test.each(["{Escape}", "Stop"])("stops the turn with %s", async (how) => {
    const shown = await chat(turn("started"));
    if (how === "Stop") await shown.user.click(screen.getByRole("button", { name: "Stop" }));
    else await shown.user.type(box(), how);
    expect(shown.of("chat:cancel")).toEqual([{ type: "chat:cancel", session: SESSION }]);
  });

  test("brings back what was said, and the draft after it", async () => {
    const shown = await chat(asked(1, "first", "a"), answered(2, "ok", "a"), asked(3, "second", "b"));
    await shown.user.type(box(), "draft{ArrowUp}");
    expect(box().value).toBe("second");
    await shown.user.keyboard("{ArrowUp}");
    expect(box().value).toBe("first");
    await shown.user.keyboard("{ArrowDown}{ArrowDown}");
    expect(box().value).toBe("draft");
  });

  test("gives the words back when they could not be sent, with the reason", async () => {
    const shown = await chat();
    await shown.user.type(box(), "hello{Enter}");
    await shown.say(event("error.plain"));
    expect(box().value).toBe("hello");
    expect(screen.getByRole("alert").textContent).toContain("Another process holds the store locked.");
  });

  test("keeps its keys from the notebook, and lets it save", async () => {
    const outside = vi.fn();
    document.addEventListener("keydown", outside);
    const shown = await chat();
    await shown.user.type(box(), "dd{Shift>}{Enter}{/Shift}{Control>}a{/Control}");
    expect(outside.mock.calls.filter(([key]) => key.key !== "Control" && key.key !== "Shift")).toEqual([]);
    await shown.user.type(box(), "{Control>}s{/Control}");
    document.removeEventListener("keydown", outside);
    expect(outside.mock.calls.some(([key]) => key.key === "s")).toBe(true);
  });

  test("offers a few things to ask, and a suggested call to send", async () => {
    const shown = await chat();
    await shown.user.click(screen.getByRole("button", { name: "show me slow queries" }));
    expect(box().value).toBe("show me slow queries");
    await shown.say(turn("started"), event("chat.tool_execution.rows"));
    await look(shown);
    await shown.user.click(screen.getByRole("button", { name: "Write it into the message box" }));
    expect(box().value).toBe("run postgresql.create_index --table orders --columns customer_id");
    expect(shown.of("chat:message")).toEqual([]);
  });

  test("is closed with its session", async () => {
    const joined = eventOf("chat:joined", "chat.joined.empty");
    const shown = await chat();
    await shown.say({ ...joined, session: { ...joined.session, closed: true } });
    expect(box().disabled).toBe(true);
  });
});

describe("one turn", () => {
  const view = { kind: "turn", session: SESSION, turn: "t1" } as const;

  test("shows its own words and calls, and nothing that was asked before or after", async () => {
    const shown = await stage(
      view,
      event("chat.joined.empty"),
      ...[asked(1, "before?", "t0"), answered(2, "old", "t0"), asked(3, "mine?", "t1"), answered(4, "mine", "t1")],
      ...[asked(5, "after?", "t2"), answered(6, "new", "t2")],
    );
    expect(shown.container.querySelector(".oa-one-turn")?.textContent).toMatch(/^OpsAgentmine$/);
  });

  test("goes on after a decision under the turn that follows", async () => {
    const shown = await stage(view, event("chat.joined.empty"), asked(1, "q", "t1"), turn("started"), turn("parked"));
    await shown.say(turn("started", { turn: "t2" }), turn("delta", { turn: "t2", text: "It is built." }));
    expect(shown.container.textContent).toContain("It is built.");
    await shown.say(answered(2, "It is built.", "t2"), turn("finished", { turn: "t2" }));
    expect(screen.getAllByText("It is built.")).toHaveLength(1);
  });

  test("does not take the next question's answer for its own", async () => {
    const shown = await stage(view, event("chat.joined.empty"), asked(1, "q", "t1"), turn("started"), turn("finished"));
    await shown.say(turn("started", { turn: "t2" }), turn("delta", { turn: "t2", text: "another answer" }));
    expect(shown.container.textContent).not.toContain("another answer");
  });

  test("can be stopped", async () => {
    const shown = await stage(view, event("chat.joined.empty"), turn("started"));
    await shown.user.click(screen.getByRole("button", { name: "Stop" }));
    expect(shown.of("chat:cancel")).toHaveLength(1);
  });
});

describe("a table of rows", () => {
  test("aligns numbers, names units and nulls, and draws markup as text", async () => {
    const shown = await chat(turn("started"), event("chat.tool_execution.rows"));
    await look(shown);
    const heads = screen.getAllByRole("columnheader").map((head) => [head.textContent, head.className]);
    expect(heads).toEqual([
      ["queryid", ""],
      ["query", ""],
      ["calls", "oa-right"],
      ["mean ms", "oa-right"],
      ["total ms", "oa-right"],
      ["rows", "oa-right"],
    ]);
    const row = screen.getAllByRole("row")[2] as HTMLElement;
    expect(within(row).getByText(/<img src=x onerror=alert\(1\)>/)).toBeTruthy();
    expect(within(row).getByText("null").closest("td")?.className).toContain("oa-null");
    expect(screen.getByText("-6171028316093571523")).toBeTruthy();
  });

  test("draws twenty-five rows, and the others on demand", async () => {
    const rows = Array.from({ length: 60 }, (_, index) => [index]);
    const { result } = eventOf("result", "result.event");
    const table = { name: "numbers", columns: ["n"], rows, total: 60, units: {} };
    const shown = await chat(turn("started"), called({ result: { ...result, tables: [table] } }));
    await look(shown);
    expect(log().querySelectorAll("tbody tr")).toHaveLength(25);
    await shown.user.click(screen.getByRole("button", { name: "Show 35 more" }));
    expect(log().querySelectorAll("tbody tr")).toHaveLength(60);
    expect(screen.getByText("numbers: 60 rows")).toBeTruthy();
  });
});

test("a screen of two thousand words that stream one by one stays quick", async () => {
  const shown = await chat(turn("started"));
  const started = performance.now();
  await shown.say(...Array.from({ length: 2000 }, (_, index) => turn("delta", { text: `word${index} ` })));
  await act(async () => {});
  expect(log().textContent).toContain("word1999");
  expect(performance.now() - started).toBeLessThan(2000);
});
