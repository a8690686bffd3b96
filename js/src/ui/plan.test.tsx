// The plot of a query plan: which tables are one, what each node says, and that names stay text.
import { cleanup, render, screen, within } from "@testing-library/preact";
import { afterEach, describe, expect, test } from "vitest";
import type { Result, Table } from "../protocol";
import { ResultView } from "./result";

afterEach(cleanup);

const COLUMNS = [
  "depth",
  "node",
  "relation",
  "index",
  "share",
  "total cost",
  "own ms",
  "estimated rows",
  "actual rows",
];

function nodes(...rows: Table["rows"]): Table {
  return { name: "nodes", columns: COLUMNS, rows, total: rows.length, units: {} };
}

function show(table: Table): void {
  const result: Result = {
    summary: "",
    highlights: [],
    tables: [table],
    tree: "Limit\n  -> Seq Scan",
    figures: {},
    notes: [],
    suggestions: [],
  };
  render(<ResultView result={result} />);
}

const LIMIT = [0, "Limit", "", "", 2, 40, null, 10, null];
const SCAN = [1, "Seq Scan", "public.orders", "", 98, 4000, null, 1234, null];

describe("the plot of a plan", () => {
  test("has one line a node and marks the costliest", () => {
    show(nodes(LIMIT, SCAN));
    const lines = screen.getAllByRole("listitem");
    expect(lines.map((line) => line.className)).toEqual(["", "oa-costliest"]);
    expect(lines[1]?.textContent).toContain("Seq Scan public.orders");
    expect(lines[1]?.textContent).toContain("98%");
    expect(within(lines[1] as HTMLElement).getByText("costliest")).toBeTruthy();
    expect(screen.queryByRole("table")).toBeNull();
  });

  test("says estimated and actual rows where the statement ran", () => {
    show(nodes([0, "Seq Scan", "public.orders", "", 100, 40, 12.5, 10, 1000]));
    expect(screen.getByRole("listitem").textContent).toContain("10 → 1,000 rows");
    expect(screen.getByText(/share of the time/)).toBeTruthy();
  });

  test("keeps the text of the plan, folded away", () => {
    show(nodes(LIMIT, SCAN));
    expect(screen.getByText("As text").closest("details")?.open).toBe(false);
  });

  test("draws a hostile name as text", () => {
    show(nodes([0, "Seq Scan", "<img src=x onerror=alert(1)>", "", 100, 1, null, 1, null]));
    expect(document.querySelector("img")).toBeNull();
    expect(screen.getByRole("listitem").textContent).toContain("<img src=x");
  });

  test("leaves every other table a table", () => {
    show({ name: "nodes", columns: ["a"], rows: [[1]], total: 1, units: {} });
    expect(screen.getByRole("table")).toBeTruthy();
    expect(screen.getByText("As text").closest("details")?.open).toBe(true);
  });
});
