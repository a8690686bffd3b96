// Every screen with somebody's words in every place that takes them: a database's, a model's, an error's. Tests look at each.
import { act, cleanup, render, screen } from "@testing-library/preact";
import { expect } from "vitest";
import { Refusal, type RunbookStep } from "../src/client/rest";
import type { Approval, Event, Result, Table } from "../src/protocol";
import { Detached } from "../src/widget/detached";
import { entry, office, SHOP } from "./desk";
import { approval, eventOf } from "./golden";
import { poisoned } from "./hostile";
import { card, stage } from "./stage";

const STATES = [
  "pending",
  "pending-high",
  "pending-critical",
  "approved",
  "executing",
  "succeeded",
  "failed",
  "unknown",
];
const ENDS = ["rejected", "expired", "expired-unused", "withdrawn", "superseded", "revoked", "stale"];
const FINDINGS = ["rank", "severity", "finding", "evidence", "why", "advice", "fix", "confidence"];
const PLAN = ["depth", "node", "relation", "index", "share", "estimated rows"];

const joined = eventOf("chat:joined", "chat.joined.transcript");
const { call, turn } = eventOf("chat:tool_execution", "chat.tool_execution.rows");
const welcome = eventOf("hello", "hello.event");
const failure = eventOf("error", "error.plain");

function table(columns: string[], ...row: Table["rows"][number]): Table {
  return { name: "t", columns, rows: [row], total: 1, units: {} };
}

/** What a tool answers: rows, findings, a plan, and what could follow. */
function results(text: string): Result[] {
  const rows = poisoned(call.result as Result, text);
  const findings = table(FINDINGS, 1, "critical", text, text, text, text, 1, "certain");
  const plan = table(PLAN, 0, text, text, text, 100, 5);
  return [rows, { ...rows, tables: [findings] }, { ...rows, tables: [plan] }];
}

/** A conversation in which everybody says it, with a call for each kind of answer, one refused and one parked. */
function conversation(text: string): Event[] {
  const done = results(text).map((result, index) => ({ ...poisoned(call, text), id: `c${index}`, result }));
  const said = { ...joined.messages[0], text, author: text };
  const answer = { ...joined.messages[1], seq: 2, text, model: text, partial: true, calls: done };
  const running = { ...poisoned(call, text), id: "r", status: "failed", error_code: text, result: null };
  const words = `${text}\n\n# ${text}\n\n- ${text}\n\n> ${text}\n\n| a |\n|---|\n| ${text} |\n\n\`\`\`\n${text}\n\`\`\``;
  const { session } = joined;
  return [
    { ...poisoned(welcome, text), version: "0.1.0" },
    { ...poisoned(joined, text), session: { ...poisoned(session, text), id: session.id }, messages: [said, answer] },
    { type: "chat:tool_execution", seq: 0, session: session.id, turn, call: running },
    { ...eventOf("chat:event", "chat.event.delta"), session: session.id, turn: "t9", text: words },
    { ...eventOf("chat:event", "chat.event.failed"), session: session.id, turn: "t8", text, hint: text, code: text },
    { ...poisoned(failure, text), command: "chat:message", about: session.id },
  ] as Event[];
}

function request(name: string, text: string): Approval {
  return poisoned(approval(name), text);
}

/** The states of a runbook's step that have words of their own. */
const RUNNING = ["pending", "approved", "executing", "succeeded", "failed", "unknown", "refused", "rejected"];

/** A step whose every word is this text. */
export function step(text: string, changes: Partial<RunbookStep>): RunbookStep {
  return {
    runbook: text,
    run: text,
    step: text,
    call: "c",
    tool: text,
    server: text,
    instance: text,
    risk: "medium",
    state: "succeeded",
    decided_by: text,
    asked_at: "2026-11-23T10:00:00Z",
    decided_at: "2026-11-23T10:00:05Z",
    began_at: "2026-11-23T10:00:05Z",
    ended_at: "2026-11-23T10:03:10Z",
    approval: "b".repeat(32),
    vetting: "",
    summary: text,
    ...changes,
  };
}

/** Opens whatever can be opened. */
export async function unfold(): Promise<void> {
  for (let depth = 0; depth < 4; depth++) {
    await act(async () => {
      for (const details of document.querySelectorAll<HTMLDetailsElement>("details:not([open])")) {
        details.open = true;
        details.dispatchEvent(new Event("toggle"));
      }
      for (const button of document.querySelectorAll<HTMLElement>("button[aria-expanded=false]")) button.click();
      await new Promise((drawn) => setTimeout(drawn, 20));
    });
  }
}

/** Puts a screen up with this text in every place, and has it looked at in each state that it comes to. */
export type Scene = (text: string, look: () => Promise<void>) => Promise<void>;

export const SCENES: Record<string, Scene> = {
  "in the cards of all states, with a refusal and with a secret": async (text, look) => {
    for (const name of [...STATES, ...ENDS]) {
      const asked = { ...request(name, text), evidence: { [text]: text, secret: "kept" }, requester: welcome.actor };
      const stage = await card(asked, { ...poisoned(failure, text), command: "approval:respond", about: asked.id });
      await look();
      stage.unmount();
    }
  },
  "in a card that cannot be found, and in one without a kernel": async (text, look) => {
    await stage({ kind: "approval", id: "x" }, { ...poisoned(failure, text), command: "approval:get", about: "x" });
    await look();
    cleanup();
    for (const kind of ["approval", "chat"]) render(<Detached kind={kind} summary={{ attach: text, [text]: text }} />);
    await look();
  },
  "in a chat, in one turn of it, and in the answers of its calls": async (text, look) => {
    const { id } = joined.session;
    for (const view of [
      { kind: "chat", session: id },
      { kind: "turn", session: id, turn: "t1" },
    ] as const) {
      const shown = await stage(view, ...conversation(text));
      expect(document.querySelectorAll(".oa-call").length).toBeGreaterThan(2);
      await look();
      shown.unmount();
    }
  },
  "in the queue of a cell, and in a page of another release": async (text, look) => {
    const approvals = STATES.map((name, index) => ({ ...request(name, text), id: `${index}` }));
    const mixed = { ...poisoned(welcome, text), version: text };
    await stage({ kind: "approvals" }, mixed, { type: "approval:list", seq: 0, approvals });
    await look();
  },
  "in the servers with their tools, and in the form": async (text, look) => {
    const instance = { ...poisoned(SHOP, text), settings: { [text]: text } };
    const status: Event = { type: "plugin:status", seq: 0, server: text, name: text, status: "attached", instance };
    const tools = { items: [{ name: text, summary: text, risk: "low" }], next: "" };
    const path = `servers/${encodeURIComponent(text)}/plugins/${instance.id}`;
    const shown = await office("sidebar", {
      [`GET ${path}/tools`]: tools,
      [`GET ${path}/health`]: new Refusal(500, text, text, text),
      "GET plugins": { items: [{ name: "postgresql", missing: text }], next: "" },
    });
    for (const name of ["up", "down"]) {
      const { health } = poisoned(eventOf("plugin:health", `plugin.health.${name}`), text);
      await shown.say(status, { type: "plugin:health", seq: 0, health: { ...health, warnings: [text] } });
      await look();
    }
    await shown.user.click(screen.getByRole("button", { name: "Test" }));
    await look();
    await shown.user.click(screen.getByRole("button", { name: /Attach a database/ }));
    await look();
  },
  "in the list of chats, in a new one, in an open one, and beside a refusal": async (text, look) => {
    const session = { ...poisoned(joined.session, text), id: joined.session.id };
    const instance = poisoned(SHOP, text);
    const shown = await office(
      "sidebar",
      {
        "GET sessions": { items: [session], next: "" },
        "POST sessions": new Refusal(403, text, text, text),
        "GET models": { items: [{ name: text, ready: false, missing: text }], providers: [] },
      },
      { tab: "chats" },
    );
    await shown.say(poisoned(welcome, text), {
      type: "plugin:status",
      seq: 0,
      server: text,
      name: text,
      status: "attached",
      instance,
    });
    await shown.user.click(screen.getByRole("button", { name: "New chat" }));
    await shown.user.click(screen.getByRole("button", { name: "Start" }));
    await look();
    await act(async () => shown.way.go({ session: session.id }));
    await shown.say(...conversation(text));
    await look();
  },
  "in the sidebar's queue, and when the line is refused": async (text, look) => {
    const approvals = STATES.map((name, index) => ({ ...request(name, text), id: `${index}` }));
    const refusal = new Refusal(403, text, text, text);
    const shown = await office("sidebar", { "GET servers": refusal }, { tab: "waiting" });
    await shown.say({ type: "approval:list", seq: 0, approvals });
    await shown.become({ state: "lost", next: Date.now() + 8000, tries: 2 });
    await look();
  },
  "in the audit with an event in full, its choices, and a chain that is broken": async (text, look) => {
    const { event } = poisoned(entry(1, { arguments: { a: "b" }, details: { c: "d" }, statements: ["x"] }), text);
    const told = { ...event, status: text, server: text, tool: text, session: text, approval: text, call: text };
    const last = { checked_at: "", ok: false, rows: 1, first_bad: 1, problems: [text] };
    const counts = { [text]: 1 };
    const shown = await office("audit", {
      "GET audit": { items: [{ ...entry(1), event: told }], next: "" },
      "GET audit/stats": { by_status: counts, by_server: counts, by_tool: counts },
      "GET audit/verification": { running: false, current: true, last, failure: text },
      "GET audit/export": new Refusal(500, text, text, text),
    });
    await screen.findByRole("table");
    await shown.user.click(screen.getByRole("button", { name: "Export CSV" }));
    await shown.user.click(screen.getByRole("button", { name: "Event 1" }));
    await look();
    cleanup();
    await office("audit", {
      "GET audit": new Refusal(500, text, text, text),
      "GET audit/verification": { running: false, current: true, last: null, failure: text },
    });
    await look();
  },
  "in the runs of runbooks, whatever their states, and in why they cannot be read": async (text, look) => {
    const steps = [...RUNNING, text].map((state, index) =>
      step(text, { state, call: `${index}`, step: `${index} ${text}` }),
    );
    const vetted = step(text, { call: "v", step: `v ${text}`, vetting: text });
    const unranked = step(text, { call: "r", step: `r ${text}`, risk: text });
    const { unmount } = await office("runs", {
      "GET runbooks/steps": { items: [...steps, vetted, unranked], next: "" },
    });
    await screen.findByRole("table");
    expect(document.querySelectorAll("tbody tr").length).toBe(RUNNING.length + 3);
    await look();
    unmount();
    await office("runs", { "GET runbooks/steps": new Refusal(500, text, text, text) });
    await screen.findByRole("alert");
    await look();
  },
};
