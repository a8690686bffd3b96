// A diagnosis on the screen: worst first, unfolding, each fix beside its finding, and everything from the database as text.
import { cleanup, fireEvent, render, screen, within } from "@testing-library/preact";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Result, Suggestion, Table } from "../protocol";
import { ResultView } from "./result";

afterEach(cleanup);

const COLUMNS = ["rank", "severity", "finding", "evidence", "why", "advice", "fix", "confidence", "kind", "subject"];
const KILL: Suggestion = {
  tool: "postgresql.kill_connection",
  arguments: { pid: 4711 },
  why: "it is the root blocker",
};
const DROP: Suggestion = { tool: "postgresql.drop_index", arguments: { index: "orders_dup" }, why: "duplicate" };

const OFF = [
  1,
  "critical",
  "fsync is off",
  "set by file; default on",
  "A crash destroys it.",
  "Set it.",
  null,
  "certain",
  "s",
  "f",
];
const BLOCKED = [2, "high", "pid 4712 waits", "holds up 1", "It stands still.", "End it.", 1, "certain", "b", "4712"];
const TWIN = [3, "info", "<b>orders_dup</b> twice", "", "Writes cost.", "Drop it.", 2, "possible", "d", "orders_dup"];

function show(rows: Table["rows"], onUse?: (text: string) => void, total = rows.length): void {
  const result: Result = {
    summary: "3 problems",
    highlights: ["CRITICAL: fsync is off. A crash destroys it."],
    tables: [{ name: "findings", columns: COLUMNS, rows, total, units: {} }],
    tree: "",
    figures: {},
    notes: ["No bloat estimate for t."],
    suggestions: [KILL, DROP],
  };
  render(<ResultView result={result} onUse={onUse} />);
}

function entry(title: string): HTMLElement {
  return screen.getByText(title).closest("details") as HTMLElement;
}

describe("the findings of a diagnosis", () => {
  test("are a list in their order, each with its severity, and not a table or points besides", () => {
    show([OFF, BLOCKED, TWIN]);
    const list = screen.getByRole("region", { name: "Findings, the worst first" });
    expect([...list.querySelectorAll("summary")].map((line) => line.textContent)).toEqual([
      "critical fsync is off",
      "high pid 4712 waits",
      "info <b>orders_dup</b> twice",
    ]);
    expect(screen.queryByRole("table")).toBeNull();
    expect(screen.queryByText(/^CRITICAL:/)).toBeNull();
    expect(screen.getByText("No bloat estimate for t.")).toBeTruthy();
  });

  test("unfold to figures, reason, advice and how sure they are; what is critical is open", () => {
    show([OFF, BLOCKED]);
    expect((entry("fsync is off") as HTMLDetailsElement).open).toBe(true);
    expect((entry("pid 4712 waits") as HTMLDetailsElement).open).toBe(false);
    const figures = within(entry("fsync is off")).getByRole("list", { name: "Evidence" });
    expect(
      within(figures)
        .getAllByRole("listitem")
        .map((item) => item.textContent),
    ).toEqual(["set by file", "default on"]);
    expect(entry("fsync is off").textContent).toContain("What to do: Set it. (read from the server's state)");
  });

  test("carry their own ready fix, which is only written out and never run", () => {
    const used = vi.fn();
    show([OFF, BLOCKED, TWIN], used);
    expect(within(entry("fsync is off")).queryByRole("button")).toBeNull();
    fireEvent.click(within(entry("pid 4712 waits")).getByText("Write it into the message box"));
    expect(used).toHaveBeenCalledWith("run postgresql.kill_connection --pid 4711");
    expect(entry("<b>orders_dup</b> twice").textContent).toContain("run postgresql.drop_index --index orders_dup");
  });

  test("say when there are more, and show what names no severity as info", () => {
    show([[1, "dreadful", "odd", "", "Why.", "Do.", 9, "sure", "k", "s"]], undefined, 12);
    expect(entry("odd").querySelector("summary")?.textContent).toBe("info odd");
    expect(screen.getByText("1 of 12 findings are shown.")).toBeTruthy();
  });
});
