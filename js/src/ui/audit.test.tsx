// The audit: what matches is shown, as text; files and notebooks hold the same.
import { cleanup, fireEvent, screen, waitFor, within } from "@testing-library/preact";
import axe from "axe-core";
import { afterEach, describe, expect, test } from "vitest";
import { entry, office } from "../../tests/desk";
import { event } from "../../tests/golden";
import { type AuditTimeline, Refusal } from "../client/rest";
import { cells } from "./records";
import { spans } from "./timeline";

afterEach(cleanup);

/** The first and the last of 48 spans have one event each. */
const COUNTS: AuditTimeline = {
  total: 2,
  since: "2026-11-23T10:00:01+00:00",
  milliseconds: 1043,
  spans: [
    {
      since: "2026-11-23T10:00:01+00:00",
      until: "2026-11-23T10:00:02.043Z",
      total: 1,
      by_status: {},
      by_risk: { low: 1 },
    },
    {
      since: "2026-11-23T10:00:50.021Z",
      until: "2026-11-23T10:00:51.064Z",
      total: 1,
      by_status: {},
      by_risk: { "": 1 },
    },
  ],
};

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

  test("searches all that the server has, once the typing pauses", async () => {
    const answers = (path: string) => (path.includes("search=") ? page(entry(1)) : page(entry(3), entry(2)));
    const shown = await office("audit", { "GET audit": answers });
    fireEvent.input(screen.getByRole("searchbox", { name: "Search all events" }), { target: { value: " checkout " } });
    await waitFor(() => expect(rows()).toHaveLength(1), { timeout: 10_000 });
    const searched = asked(shown.requests).map((query) => query.get("search"));
    expect(searched.filter(Boolean)).toEqual(["checkout"]);
    expect(
      shown.requests.some(([, path]) => path.startsWith("audit/timeline?") && path.includes("search=checkout")),
    ).toBe(true);
  });

  test("says of a risk that it means that level and up", async () => {
    await office("audit", { "GET audit": page(entry(1)) });
    const options = within(screen.getByRole("combobox", { name: "Risk" })).getAllByRole("option");
    expect(options.map((option) => option.textContent)).toEqual([
      "any risk",
      "low and up",
      "medium and up",
      "high and up",
      "critical",
    ]);
  });

  test("says that the chain is verified, with the time, or which record is not as it was written", async () => {
    const last = { checked_at: "2026-11-23T10:00:00Z", ok: true, rows: 41, first_bad: null, problems: [] };
    const checking = { running: false, current: true, failure: "" };
    await office("audit", { "GET audit/verification": { ...checking, last } });
    expect(await screen.findByText(/Chain verified: 41 records, .*10:00/)).toBeTruthy();
    cleanup();
    const broken = { ...last, ok: false, first_bad: 7, problems: ["Row 7 <b>differs</b>."] };
    await office("audit", { "GET audit/verification": { ...checking, last: broken } });
    const alert = (await screen.findByText(/record 7 is not as it was written/)).closest("[role=alert]");
    expect(alert?.textContent).toContain("Row 7 <b>differs</b>.");
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
    const content = new Blob(["seq"]);
    const shown = await office("audit", {
      "GET audit": page(entry(2)),
      "GET audit/export": () => ({ content, rows: 12, cut: false }),
    });
    await shown.user.selectOptions(await screen.findByRole("combobox", { name: "Risk" }), "low");
    await shown.user.click(screen.getByRole("button", { name: "Export CSV" }));
    await waitFor(() => expect(shown.saved).toHaveLength(1));
    await shown.user.click(screen.getByRole("button", { name: "Export Parquet" }));
    await waitFor(() => expect(shown.saved.map(([name]) => name)).toEqual(["audit.csv", "audit.parquet"]));
    const files = shown.requests.map(([, path]) => path).filter((path) => path.startsWith("audit/export"));
    expect(files[1]).toMatch(
      /^audit\/export\?since=\S+&risk=low&format=parquet$|^audit\/export\?risk=low&since=\S+&format=parquet$/,
    );
    expect(screen.getAllByText("12 events exported.").length).toBeGreaterThan(0);
    await shown.user.click(screen.getByRole("button", { name: "Open as notebook" }));
    expect(shown.notebooks[0]?.[0]).toBe("%load_ext opsagent_jupyter");
    expect(shown.notebooks[0]?.[1]).toMatch(/^events = %opsagent audit --since \S+ --risk low\nevents$/);
  });

  test("narrows to a bar of the plot by keyboard", async () => {
    const shown = await office("audit", { "GET audit": page(entry(50), entry(1)), "GET audit/timeline": COUNTS });
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
  test("are asked for in a notebook by quoted words only", () => {
    const [, query] = cells({ actor: "O'Neil; rm -rf", status: "failed" });
    expect(query).toContain(`--status failed --actor 'O'"'"'Neil; rm -rf'`);
    expect(cells({ search: 'a"\n%x' })[1]).toContain('words = "a\\"\\n%x"');
  });
});

describe("the plot", () => {
  test("counts each event in one span", () => {
    const found = spans(COUNTS);
    expect(found.reduce((sum, span) => sum + span.total, 0)).toBe(2);
    expect(found[0]?.counts).toMatchObject({ low: 1, high: 0 });
    expect(found.at(-1)?.counts.none ?? 0).toBe(1);
    expect(spans({ total: 0, since: null, milliseconds: 0, spans: [] })).toEqual([]);
  });
});
