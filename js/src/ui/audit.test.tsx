// The audit: what matches is shown, as text; files and notebooks hold the same.
import { cleanup, fireEvent, screen, waitFor, within } from "@testing-library/preact";
import axe from "axe-core";
import { afterEach, describe, expect, test } from "vitest";
import { entry, office } from "../../tests/desk";
import { event } from "../../tests/golden";
import { Refusal } from "../client/rest";
import { cells, contains, csv } from "./records";
import { spans } from "./timeline";

afterEach(cleanup);

const page = (...items: unknown[]) => ({ items, next: "" });
const rows = () => within(screen.getByRole("table")).getAllByRole("row").slice(1);
const asked = (requests: [string, string, unknown][]) =>
  requests.filter(([, path]) => path.startsWith("audit?")).map(([, path]) => new URLSearchParams(path.split("?")[1]));

describe("the audit panel", () => {
  test("shows events newest first, what is hostile as text", async () => {
    const evil = entry(2, {
      tool: "<img src=x onerror=alert(1)>",
      summary: "\u202egpj.exe",
      actor: actor("<b>al</b>"),
    });
    await office("audit", { "GET audit": page(evil, entry(1)) });
    await waitFor(() => expect(rows()).toHaveLength(2));
    expect(rows()[0]?.textContent).toContain("<img src=x onerror=alert(1)>");
    expect(rows()[0]?.textContent).toContain("⟨U+202E⟩gpj.exe");
    expect(document.querySelector("img, table b")).toBeNull();
  });

  test("asks the server for what the filters say, and for all again when they are cleared", async () => {
    const shown = await office("audit", { "GET audit": page(entry(1)) });
    await shown.user.selectOptions(screen.getByRole("combobox", { name: "Risk" }), "high");
    await shown.user.selectOptions(await screen.findByRole("combobox", { name: "Server" }), "demo");
    await shown.user.type(screen.getByRole("textbox", { name: "Who" }), "Alice");
    await shown.user.tab();
    await shown.user.selectOptions(screen.getByRole("combobox", { name: "Time" }), "all");
    await waitFor(() => {
      const last = asked(shown.requests).at(-1);
      expect(Object.fromEntries(last ?? [])).toEqual({ risk: "high", server: "demo", actor: "Alice", limit: "200" });
    });
    await shown.user.click(screen.getByRole("button", { name: "Clear filters" }));
    await waitFor(() => expect(Object.fromEntries(asked(shown.requests).at(-1) ?? [])).toEqual({ limit: "200" }));
  });

  test("searches what is shown, and says how much that is", async () => {
    const shown = await office("audit", { "GET audit": page(entry(2, { reason: "blocks CHECKOUT" }), entry(1)) });
    await shown.user.type(screen.getByRole("searchbox"), "checkout");
    await waitFor(() => expect(rows()).toHaveLength(1));
    expect(screen.getByText("1 of 2 shown events contain “checkout”")).toBeTruthy();
  });

  test("reads earlier pages on demand, each event once", async () => {
    const answers = (path: string) =>
      path.includes("cursor=c1") ? page(entry(2), entry(1)) : { items: [entry(3), entry(2)], next: "c1" };
    const shown = await office("audit", { "GET audit": answers });
    await shown.user.click(await screen.findByRole("button", { name: "Show earlier events" }));
    await waitFor(() => expect(rows()).toHaveLength(3));
    expect(screen.queryByRole("button", { name: "Show earlier events" })).toBeNull();
  });

  test("looks again when something happened", async () => {
    let count = 1;
    const shown = await office("audit", {
      "GET audit": () => page(...Array.from({ length: count }, (_, i) => entry(i + 1))),
    });
    await waitFor(() => expect(rows()).toHaveLength(1));
    count = 3;
    await shown.say({ ...event("approval.request.event"), seq: 77 });
    await waitFor(() => expect(rows()).toHaveLength(3), { timeout: 5000 });
  });

  test("shows one event in full by keyboard, and goes back", async () => {
    const statement = "DROP INDEX CONCURRENTLY public.x";
    const shown = await office("audit", { "GET audit": page(entry(1, { statements: [statement], reason: "unused" })) });
    (await screen.findByRole("button", { name: "Event 1" })).focus();
    await shown.user.keyboard("{Enter}");
    const details = screen.getByRole("complementary", { name: "Event 1" });
    expect(details.textContent).toContain(statement);
    expect(details.textContent).toContain("f".repeat(64));
    await waitFor(() => expect(document.activeElement).toBe(details));
    await shown.user.keyboard("{Escape}");
    expect(screen.queryByRole("complementary")).toBeNull();
  });

  test("has the columns that were chosen", async () => {
    const shown = await office("audit", { "GET audit": page(entry(1, { reason: "unused since May" })) });
    await screen.findByRole("table");
    expect(screen.queryByText("unused since May")).toBeNull();
    await shown.user.click(screen.getByText("Columns", { selector: "summary" }));
    await shown.user.click(screen.getByRole("checkbox", { name: "Reason" }));
    expect(screen.getByText("unused since May")).toBeTruthy();
    await shown.user.click(screen.getByRole("checkbox", { name: "Took" }));
    expect(screen.queryByRole("columnheader", { name: "Took" })).toBeNull();
  });

  test("exports all that matches and opens the same as a notebook", async () => {
    const answers = (path: string) => (path.includes("cursor=c1") ? page(entry(1)) : { items: [entry(2)], next: "c1" });
    const shown = await office("audit", { "GET audit": answers });
    await shown.user.selectOptions(await screen.findByRole("combobox", { name: "Risk" }), "low");
    await shown.user.click(screen.getByRole("button", { name: "Export CSV" }));
    await waitFor(() => expect(shown.saved).toHaveLength(1));
    expect(shown.saved[0]?.[1].split("\r\n")).toHaveLength(4);
    await shown.user.click(screen.getByRole("button", { name: "Open as notebook" }));
    expect(shown.notebooks[0]?.[0]).toBe("%load_ext opsagent_jupyter");
    expect(shown.notebooks[0]?.[1]).toMatch(
      /^events = %opsagent audit --since \S+ --risk low\nevents = events\[events\["risk"\] == "low"\]\nevents$/,
    );
  });

  test("narrows to a bar of the plot by keyboard", async () => {
    const shown = await office("audit", { "GET audit": page(entry(50), entry(1)) });
    const bars = await screen.findAllByRole("button", { name: /1 event. Show only it/ });
    expect(bars).toHaveLength(2);
    fireEvent.keyDown(bars[0] as HTMLElement, { key: "Enter" });
    await waitFor(() => expect(asked(shown.requests).at(-1)?.get("since")).toBe("2026-11-23T10:00:01.000Z"));
    expect(asked(shown.requests).at(-1)?.get("until")).toBeTruthy();
  });

  test("says why it cannot be read", async () => {
    await office("audit", {
      "GET audit": new Refusal(503, "audit.tampered", "Record 3 cannot be read.", "Run verify."),
    });
    expect((await screen.findByText(/Record 3 cannot be read. Run verify./)).closest("[role=alert]")).toBeTruthy();
  });

  test("has no finding of axe", async () => {
    const shown = await office("audit", {
      "GET audit": page(entry(2), entry(1, { risk: "critical", status: "failed" })),
    });
    await shown.user.click(await screen.findByRole("button", { name: "Event 1" }));
    const off = { "color-contrast": { enabled: false }, region: { enabled: false } };
    const { violations } = await axe.run(document.body, { rules: off });
    expect(violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
  });
});

function actor(name: string) {
  return { id: "jupyter:al", name, via: "server", agent: false, stable: false } as const;
}

describe("records", () => {
  test("become CSV in which nothing is calculated and nothing breaks out", () => {
    const text = csv([entry(1, { summary: '=HYPERLINK("http://x")', reason: "a,b\nc", tool: "@x", milliseconds: -1 })]);
    expect(text).toContain(`"'=HYPERLINK(""http://x"")"`);
    expect(text).toContain('"a,b\nc"');
    expect(text).toContain(",'@x,");
    expect(text).toContain(",-1,");
    expect(csv([])).toMatch(/^seq,at,type,.*hash\r\n$/);
  });

  test("are found by any of their texts", () => {
    const found = entry(1, { statements: ["VACUUM FULL t"], arguments: { table: "orders" } });
    for (const words of ["vacuum full", "ORDERS", "alice", "", " summary 1 "])
      expect(contains(found, words)).toBe(true);
    expect(contains(found, "mongodb")).toBe(false);
  });

  test("are asked for in a notebook by quoted words only", () => {
    const [, query] = cells({ actor: "O'Neil; rm -rf", status: "failed" });
    expect(query).toContain(`--status failed --actor 'O'"'"'Neil; rm -rf'`);
  });
});

describe("the plot", () => {
  test("counts each event in one span", () => {
    const found = spans([entry(1), entry(1, { risk: "high" }), entry(59, { risk: null })]);
    expect(found.reduce((sum, span) => sum + span.total, 0)).toBe(3);
    expect(found[0]?.counts).toMatchObject({ low: 1, high: 1 });
    expect(found.at(-1)?.counts.none ?? 0).toBe(1);
    expect(spans([])).toEqual([]);
  });
});
