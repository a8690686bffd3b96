// Runs of runbooks: live, by run, with who decided and how long it took; what a database wrote is text.
import { cleanup, screen, waitFor, within } from "@testing-library/preact";
import axe from "axe-core";
import { afterEach, expect, test } from "vitest";
import { office } from "../../tests/desk";
import { approval } from "../../tests/golden";
import { step as stepSaying } from "../../tests/scenes";
import type { RunbookStep } from "../client/rest";
import { grouped } from "./runs";

afterEach(cleanup);

const step = (name: string, changes: Partial<RunbookStep> = {}) =>
  stepSaying("done", {
    runbook: "a1b2c3d4e5f60718",
    run: "nightly",
    step: name,
    call: `${name}-1`,
    tool: "ledger.add_mark",
    server: "demo",
    instance: "books",
    decided_by: "Alice",
    ...changes,
  });

const row = (name: string) => screen.getByRole("rowheader", { name }).closest("tr") as HTMLElement;

test("a step tells who decided, how long that took, and how long it ran", async () => {
  const vetted = step("add-red", { vetting: "c".repeat(32), decided_by: "Bob" });
  await office("runs", { "GET runbooks/steps": { items: [step("add"), vetted], next: "" } });
  expect((await screen.findByRole("table", { name: /Run nightly.*2 of 2 steps done/ })).tagName).toBe("TABLE");
  const cells = within(row("add")).getAllByRole("cell");
  expect(cells.map((cell) => cell.textContent)).toEqual(
    expect.arrayContaining(["ledger.add_markbooks on demo", "Succeeded", "Alice", "5 s", "3 min 5 s", "done"]),
  );
  expect(row("add-red").textContent).toContain("Bob, in advance (signature cccccccc)");
});

test("what happens is shown without a reload, and a waiting step opens its request", async () => {
  let items = [step("add", { state: "pending", decided_by: "", decided_at: null, began_at: null, ended_at: null })];
  const shown = await office("runs", { "GET runbooks/steps": () => ({ items, next: "" }) });
  await shown.user.click(await screen.findByRole("button", { name: "Waits for a decision" }));
  expect(shown.way.place()).toMatchObject({ tab: "waiting", approval: "b".repeat(32) });
  items = [step("add")];
  await shown.say({ type: "approval:response", seq: 7, approval: approval("succeeded") });
  await waitFor(() => expect(row("add").textContent).toContain("Succeeded"), { timeout: 3000 });
});

test("runs stand newest first, each step once, as it was called last", () => {
  const steps = [
    step("a", { run: "1" }),
    step("a", { run: "2" }),
    step("a", { run: "1", call: "a-2", state: "failed" }),
  ];
  expect(grouped(steps).map(({ run, steps: list }) => [run, list.map(({ call }) => call)])).toEqual([
    ["1", ["a-2"]],
    ["2", ["a-1"]],
  ]);
});

test("hostile text is text, an unknown state is shown as it is, and a screen reader has no complaint", async () => {
  const hostile = step("x", { summary: "<img src=x onerror=alert(1)>\u202e", state: "<b>new</b>", risk: "" });
  const { container } = await office("runs", { "GET runbooks/steps": { items: [hostile], next: "" } });
  await screen.findByRole("table");
  expect(container.querySelector("img, b")).toBeNull();
  expect(row("x").textContent).toContain("⟨U+202E⟩");
  const rules = { "color-contrast": { enabled: false }, region: { enabled: false } };
  expect((await axe.run(document.body, { rules })).violations.map(({ id }) => id)).toEqual([]);
});

test("without any run it says how one is made", async () => {
  await office("runs");
  expect(await screen.findByText(/runbook export/)).toBeTruthy();
});
