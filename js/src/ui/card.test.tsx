// The card tells everything that a person decides on, and takes no decision that was not meant.
import { act, cleanup, fireEvent, screen, waitFor } from "@testing-library/preact";
import { afterEach, describe, expect, test, vi } from "vitest";
import { approval, event, eventOf } from "../../tests/golden";
import { card, type Stage, stage } from "../../tests/stage";
import type { Approval, Event, Origin } from "../protocol";
import { fromDatabases, kinds } from "./origins";

afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

const article = () => screen.getByRole("article");
const button = (name: string) => screen.getByRole("button", { name });
const response = (changes: Approval): Event => ({ type: "approval:response", seq: 2, approval: changes });
const REASON = "blocks checkout, owner informed";

function pass(milliseconds: number) {
  return act(async () => {
    await vi.advanceTimersByTimeAsync(milliseconds);
  });
}

function decisions(shown: Stage) {
  return shown.of("approval:respond").map(({ decision, reason, version }) => ({ decision, reason, version }));
}

/** What has the focus, in the order of the Tab key, from the card on. */
async function tabOrder(shown: Stage): Promise<string[]> {
  article().focus();
  const order: string[] = [];
  for (let step = 0; step < 8; step++) {
    await shown.user.tab();
    const { activeElement } = document;
    if (!activeElement || activeElement === document.body) break;
    order.push(activeElement.getAttribute("aria-label") ?? activeElement.textContent ?? "");
  }
  return order;
}

describe("a pending card", () => {
  test("tells everything that is decided on", async () => {
    const pending = approval("pending");
    await card(pending);
    const text = article().textContent ?? "";
    const { plan, target } = pending;
    for (const fact of [
      ...[plan.title, ...plan.statements, plan.lock, plan.size, ...plan.waits, plan.duration, plan.undo],
      ...[...plan.cautions, ...pending.reasons, "production", "medium", target.instance, target.server, "opsagent_dba"],
      ...[
        "cost 4,128",
        "cost 42.1",
        plan.comparison?.note,
        "requested by the agent, for Alice",
        pending.id.slice(0, 8),
      ],
      ...[
        pending.digest.slice(0, 12),
        "personal set-up",
        "A guard rail against the model",
        "relfilenode",
        "customer_id",
      ],
      ...["expires in 30:00"],
    ]) {
      expect(text).toContain(fact);
    }
  });

  test("shows a statement of four hundred lines whole", async () => {
    const lines = Array.from({ length: 400 }, (_, line) => `SELECT ${line};`).join("\n");
    const pending = approval("pending");
    await card({ ...pending, plan: { ...pending.plan, statements: [lines] } });
    expect(article().querySelector("pre.oa-sql")?.textContent).toBe(lines);
    expect(article().textContent).toContain("400 lines");
  });

  test("shows what hides in a statement, and says so", async () => {
    await card(approval("pending-deceptive"));
    const text = article().textContent ?? "";
    expect(text).toContain("⟨U+202E⟩customer_id⟨U+202C⟩");
    expect(text).toContain("Invisible or reordering characters: 3");
    expect(text).toContain("U+043E");
    expect(text).not.toMatch(/[\u202a-\u202e\u200b]/);
  });

  test("shows where an argument comes from that the person did not write, before the buttons", async () => {
    const shown = await card(approval("pending-tainted"));
    const origins = screen.getByRole("region", { name: "Not in your words" });
    expect(origins.textContent).toContain("One argument comes from what a database said. Check it before you approve.");
    const [pid, mode] = [...origins.querySelectorAll("li")];
    expect(pid?.textContent).toMatch(
      /^▲ from a database pid 4711 from the result of get_locks on shop on demo at .*\d\d:\d\d:\d\d, not from your words$/,
    );
    expect(pid?.className).toBe("oa-from-database");
    expect(mode?.textContent).toBe(
      "○ the model’s own mode terminate neither your words nor a database’s answer has it",
    );
    expect(mode?.className).toBe("oa-from-model");
    const approve = button("Approve and run");
    expect(origins.compareDocumentPosition(approve) & Node.DOCUMENT_POSITION_FOLLOWING).toBeTruthy();
    expect(shown.container.querySelector("[aria-live=polite]")?.textContent).toContain(
      "Arguments from a database, not from your words: 1.",
    );
  });

  test("marks the argument itself by sign and word, not by colour alone", async () => {
    await card(approval("pending-tainted"));
    const rows = [...article().querySelectorAll(".oa-facts .oa-pairs > span")].map((row) => row.textContent);
    expect(rows).toContain("pid 4711▲ from a database");
    expect(rows).toContain("mode terminate○ the model’s own");
  });

  test("says nothing of origins where the person wrote everything", async () => {
    await card(approval("pending-high"));
    expect(article().textContent).not.toContain("Not in your words");
    expect(article().querySelector(".oa-from, .oa-from-database")).toBeNull();
  });

  test("draws an origin that a database worded as text, with nothing hidden in it", async () => {
    const evil = "<img src=x onerror=alert(1)>\u202e\u200b";
    const origin = {
      ...approval("pending-tainted").origins[0],
      argument: evil,
      text: evil,
      tool: evil,
      instance: evil,
    };
    const shown = await card(approval("pending-tainted", { origins: [origin as Origin] }));
    expect(shown.container.querySelector("img")).toBeNull();
    const text = screen.getByRole("region", { name: "Not in your words" }).textContent ?? "";
    expect(text).toContain("<img src=x onerror=alert(1)>⟨U+202E⟩⟨U+200B⟩");
    expect(text).not.toMatch(/[\u202a-\u202e\u200b]/);
  });

  test("counts an argument once, however many of its parts a database said", async () => {
    const [origin] = approval("pending-tainted").origins as [Origin];
    const parts = ["columns[0]", "columns[1]", "columns[1]"].map((argument) => ({ ...origin, argument }));
    expect(fromDatabases(approval("pending-tainted", { origins: parts }))).toBe(2);
    expect(
      kinds([
        { ...origin, argument: "columns[0]" },
        { ...origin, argument: "columns[1]", kind: "model" },
      ]),
    ).toEqual({
      columns: "database",
    });
  });

  test("draws database text as text", async () => {
    const pending = approval("pending");
    const evil = "<img src=x onerror=alert(1)>";
    const plan = { ...pending.plan, title: evil, lock: evil, statements: [evil], cautions: [evil], undo: evil };
    const shown = await card({ ...pending, plan, reasons: [evil], arguments: { [evil]: evil } });
    expect(shown.container.querySelector("img")).toBeNull();
    expect(article().textContent).toContain(evil);
  });

  test("has a name and says itself once", async () => {
    const pending = approval("pending");
    const shown = await card(pending);
    expect(article().getAttribute("aria-label")).toBe(
      `Approval request ${pending.id.slice(0, 8)}, medium risk, production, Pending: Create an index on shop.orders`,
    );
    await shown.say(response(pending));
    expect(shown.container.querySelector("[aria-live=polite]")?.textContent).toBe(
      "Approval needed: Create an index on shop.orders. Risk medium, production, shop on demo.",
    );
  });

  test("approves on a click, with the version that was on the screen and the reason", async () => {
    const shown = await card(approval("pending", { version: 7 }));
    await shown.user.type(screen.getByRole("textbox"), "  tonight is quiet ");
    await shown.user.click(button("Approve and run"));
    expect(decisions(shown)).toEqual([{ decision: "approve", reason: "tonight is quiet", version: 7 }]);
    expect(button("Approving…").getAttribute("aria-busy")).toBe("true");
  });

  test("sends one decision, however often it is clicked", async () => {
    const shown = await card(approval("pending"));
    await shown.user.dblClick(button("Approve and run"));
    await shown.user.click(button("Reject"));
    expect(decisions(shown)).toHaveLength(1);
  });

  test.each(["pending", "pending-high", "pending-critical"])(
    "decides nothing on Enter in a field (%s)",
    async (name) => {
      const shown = await card(approval(name));
      for (const field of screen.getAllByRole("textbox")) {
        await shown.user.type(field, `${REASON}{Enter}{Control>}{Enter}{/Control}`);
      }
      expect(decisions(shown)).toEqual([]);
    },
  );

  test("asks for a medium call first to approve, for a graver one first to reject", async () => {
    const medium = await card(approval("pending"));
    expect((await tabOrder(medium)).slice(1, 4)).toEqual(["Reason (optional)", "Approve and run", "Reject"]);
    expect(button("Approve and run").className).toBe("oa-primary");
    cleanup();
    const high = await card(approval("pending-high"));
    expect((await tabOrder(high)).slice(1, 4)).toEqual(["Reason (optional)", "Reject", "Approve and run"]);
    expect(button("Approve and run").className).not.toContain("oa-primary");
  });

  test("treats a level that it does not know as critical", async () => {
    await card(approval("pending", { risk: "catastrophic" as Approval["risk"] }));
    expect(button("Approve and run").className).not.toContain("oa-primary");
    expect(button("Approve and run").getAttribute("aria-disabled")).toBe("true");
  });
});

describe("a critical card", () => {
  test("is approved only with a reason and the target's name, and says what is missing", async () => {
    const shown = await card(approval("pending-critical"));
    const [reason, confirm] = screen.getAllByRole("textbox") as [HTMLElement, HTMLElement];
    expect(reason.getAttribute("aria-required")).toBe("true");
    await shown.user.click(button("Approve and run"));
    expect(document.activeElement).toBe(reason);
    expect(article().textContent).toContain("ten characters or more");
    await shown.user.type(reason, "aaaaaaaaaaaaaaa");
    await shown.user.click(button("Approve and run"));
    await shown.user.clear(reason);
    await shown.user.type(reason, REASON);
    await shown.user.click(button("Approve and run"));
    expect(document.activeElement).toBe(confirm);
    await shown.user.type(confirm, "shop2");
    await shown.user.click(button("Approve and run"));
    expect(decisions(shown)).toEqual([]);
    await shown.user.type(confirm, "{Backspace}");
    await shown.user.click(button("Approve and run"));
    expect(decisions(shown)).toEqual([{ decision: "approve", reason: REASON, version: 1 }]);
  });

  test("is rejected without either", async () => {
    const shown = await card(approval("pending-critical"));
    await shown.user.click(button("Reject"));
    expect(decisions(shown)).toEqual([{ decision: "reject", reason: "", version: 1 }]);
  });
});

describe("the keyboard", () => {
  test("approves and rejects a medium call by one key while the card has the focus", async () => {
    for (const [key, decision] of [
      ["a", "approve"],
      ["R", "reject"],
    ] as const) {
      const shown = await card(approval("pending"));
      article().focus();
      await shown.user.keyboard(key);
      expect(decisions(shown)[0]?.decision).toBe(decision);
      cleanup();
    }
  });

  test("takes two steps for a high call: the key moves to the button, Enter there decides", async () => {
    const shown = await card(approval("pending-high"));
    article().focus();
    await shown.user.keyboard("a");
    expect(decisions(shown)).toEqual([]);
    expect(document.activeElement).toBe(button("Approve and run"));
    expect(shown.container.querySelector("[aria-live=polite]")?.textContent).toContain(
      "Press Enter to run this on shop on demo, staging.",
    );
    await shown.user.keyboard("{Enter}");
    expect(decisions(shown)[0]?.decision).toBe("approve");
  });

  test("moves to what is missing for a critical call", async () => {
    const shown = await card(approval("pending-critical"));
    article().focus();
    await shown.user.keyboard("a");
    expect(document.activeElement).toBe(screen.getAllByRole("textbox")[0]);
    expect(decisions(shown)).toEqual([]);
  });

  test.each(["{Control>}a{/Control}", "{Alt>}r{/Alt}", "{Meta>}a{/Meta}", "x", "{Enter}", " "])(
    "takes %s for no decision",
    async (keys) => {
      const shown = await card(approval("pending"));
      article().focus();
      await shown.user.keyboard(keys);
      expect(decisions(shown)).toEqual([]);
    },
  );

  test("ignores a key that is held down", async () => {
    const shown = await card(approval("pending"));
    fireEvent.keyDown(article(), { key: "a", repeat: true });
    expect(decisions(shown)).toEqual([]);
  });

  test("types letters into the reason, and keeps them from the notebook", async () => {
    const outside = vi.fn();
    document.addEventListener("keydown", outside);
    const shown = await card(approval("pending"));
    await shown.user.type(screen.getByRole("textbox"), "a bad dd");
    document.removeEventListener("keydown", outside);
    expect(decisions(shown)).toEqual([]);
    expect(outside).not.toHaveBeenCalled();
  });
});

describe("an answer", () => {
  test("says that a click came too late, and what was decided", async () => {
    const pending = approval("pending");
    const shown = await card(pending);
    await shown.user.click(button("Approve and run"));
    await shown.say(event("error.decided"));
    expect(screen.getByRole("alert").textContent).toContain("Too late");
    expect(shown.of("approval:get").length).toBeGreaterThan(0);
    await shown.say(response(approval("rejected")));
    expect(article().textContent).toContain("Too late");
    expect(article().textContent).toMatch(/Rejected by Bob at .*: not during the sale; ask again tonight\. Nothing/);
    expect(screen.queryByRole("button", { name: "Approve and run" })).toBeNull();
  });

  test("says why a decision was refused, with what to do, and lets the person try again", async () => {
    const pending = approval("pending");
    const shown = await card(pending);
    await shown.user.click(button("Approve and run"));
    const refusal = { ...eventOf("error", "error.plain"), code: "store.locked", about: pending.id };
    await shown.say({ ...refusal, command: "approval:respond" });
    expect(screen.getByRole("alert").textContent).toContain(refusal.hint);
    await shown.user.click(button("Approve and run"));
    expect(decisions(shown)).toHaveLength(2);
  });

  test("that does not come is asked for, and the decision may be repeated", async () => {
    vi.useFakeTimers({ shouldAdvanceTime: true });
    const shown = await card(approval("pending"));
    const asked = shown.of("approval:get").length;
    fireEvent.click(button("Approve and run"));
    await pass(5100);
    expect(screen.getByRole("alert").textContent).toContain("No answer yet");
    expect(shown.of("approval:get").length).toBe(asked + 1);
    fireEvent.click(button("Approving…"));
    expect(decisions(shown)).toHaveLength(2);
  });
});

describe("a card over time", () => {
  test("asks how it stands when its time is up, and leaves the verdict to Python", async () => {
    vi.useFakeTimers({ shouldAdvanceTime: true });
    const pending = approval("pending", { expires_at: new Date(Date.now() + 61_500).toISOString() });
    const shown = await card(pending);
    const asked = shown.of("approval:get").length;
    await pass(2000);
    expect(shown.container.querySelector("[aria-live=polite]")?.textContent).toContain("One minute left to decide");
    expect(screen.getByRole("timer").className).toContain("oa-urgent");
    await pass(60_500);
    expect(screen.getByRole("timer").textContent).toBe("time is up");
    expect(shown.of("approval:get").length).toBe(asked + 1);
    await shown.say(response(approval("expired")));
    expect(article().textContent).toContain("without a decision. Nothing was run.");
  });

  test("is asked for again when a new list of open requests may no longer hold it", async () => {
    const shown = await card(approval("pending"));
    const asked = shown.of("approval:get").length;
    await shown.say(event("approval.list.empty"));
    expect(shown.of("approval:get").length).toBe(asked + 1);
  });

  test.each([
    ["approved", /Approved by Bob at .*; no host has started it yet/],
    ["executing", /Approved by Bob at .*; running since/],
    ["succeeded", /Approved by Bob at .*, succeeded: shop\.orders_customer_id_idx is there and valid.*took 2\.3 s/],
    ["failed", /Approved by Bob at .*, failed: a unique index.*Left behind.*invalid index.*run postgresql\.drop_index/],
    ["unknown", /the outcome is unknown: the connection was lost after sending\. It is not retried/],
    ["rejected", /Rejected by Bob at .*: not during the sale; ask again tonight\. Nothing was run/],
    ["expired", /Expired at .* without a decision\. Nothing was run/],
    ["expired-unused", /Approved by Bob at .*, but no host started it in time/],
    ["withdrawn", /Withdrawn by Alice at .*\. Nothing was run/],
    ["superseded", /A newer request took its place\. Nothing was run/],
    ["revoked", /Approval taken back by Bob at .*: the sale starts early\. Nothing was run/],
    ["stale", /Approved by Bob at .*, but not run: shop\.orders was rewritten/],
  ])("says in words that it is %s, announces it, and offers no approval any more", async (name, words) => {
    const shown = await card(approval("pending"));
    await shown.say(response(approval(name, { id: approval("pending").id })));
    expect(article().textContent).toMatch(words);
    expect(shown.container.querySelector("[aria-live=polite]")?.textContent).toMatch(words.source.slice(0, 8));
    expect(screen.queryByRole("button", { name: "Approve and run" })).toBeNull();
  });

  test("keeps what was asked one click away", async () => {
    const shown = await card(approval("succeeded"));
    expect(article().querySelector("pre.oa-sql")).toBeNull();
    await shown.user.click(screen.getByText("What was asked"));
    await waitFor(() => expect(article().querySelector("pre.oa-sql")?.textContent).toContain("CREATE INDEX"));
  });

  test("can be taken back while no host has started it", async () => {
    const shown = await card(approval("approved"));
    await shown.user.click(button("Take the approval back"));
    expect(decisions(shown)).toEqual([{ decision: "revoke", reason: "", version: 2 }]);
  });

  test("can be withdrawn by who asked, and by nobody else", async () => {
    const shown = await card(approval("pending"));
    await shown.user.click(button("Withdraw"));
    expect(decisions(shown)[0]?.decision).toBe("withdraw");
    cleanup();
    const { requester } = approval("pending");
    await card(approval("pending", { requester: { ...requester, id: "os:carol" } }));
    expect(screen.queryByRole("button", { name: "Withdraw" })).toBeNull();
  });
});

describe("an unknown outcome", () => {
  test("is recorded with what happened and how the person knows", async () => {
    const unknown = approval("unknown");
    const shown = await card(unknown);
    expect(article().textContent).toContain("backend_start");
    await shown.user.click(button("Record what happened…"));
    await shown.user.click(button("Record"));
    expect(article().textContent).toContain("Choose what happened first.");
    await shown.user.click(screen.getByRole("radio", { name: "It took effect" }));
    await shown.user.click(button("Record"));
    expect(article().textContent).toContain("ten characters or more");
    await shown.user.type(screen.getByRole("textbox"), "the role is gone from pg_roles{Enter}");
    expect(shown.of("approval:resolve")).toEqual([]);
    await shown.user.click(button("Record"));
    expect(shown.of("approval:resolve")).toEqual([
      { type: "approval:resolve", id: unknown.id, state: "succeeded", reason: "the role is gone from pg_roles" },
    ]);
  });
});

describe("the queue", () => {
  test("lists open requests, the gravest first, and opens a card in place", async () => {
    const shown = await stage({ kind: "approvals" }, event("approval.list.open"));
    const titles = screen.getAllByRole("listitem").map((line) => line.textContent);
    expect(titles[0]).toContain("Drop role report_old");
    expect(titles[2]).toContain("Create an index");
    expect(screen.getByRole("heading", { level: 2 }).textContent).toBe("Waiting for you · 3");
    await shown.user.click(screen.getAllByRole("button", { name: "Open" })[2] as HTMLElement);
    expect(article().textContent).toContain("CREATE INDEX CONCURRENTLY");
  });

  test("says that nothing waits", async () => {
    await stage({ kind: "approvals" }, event("approval.list.empty"));
    expect(screen.getByText("Nothing waits for you.")).toBeTruthy();
  });
});
