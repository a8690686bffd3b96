// The sidebar: what is attached, conversations, and what waits; no secret is shown, and what is hostile is text.
import { cleanup, screen, waitFor, within } from "@testing-library/preact";
import axe from "axe-core";
import { afterEach, describe, expect, test } from "vitest";
import { attached, office, SHOP, session } from "../../tests/desk";
import { approval, event, eventOf } from "../../tests/golden";
import { Refusal } from "../client/rest";
import type { Event } from "../protocol";
import { connectionString, EMPTY_FORM } from "./attach";

afterEach(cleanup);

const button = (name: string | RegExp) => screen.getByRole("button", { name });
const tab = (name: RegExp) => screen.getByRole("tab", { name });
const up: Event = {
  type: "plugin:health",
  seq: 0,
  health: { ...eventOf("plugin:health", "plugin.health.up").health, instance: "shop" },
};
const down: Event = {
  type: "plugin:health",
  seq: 0,
  health: { ...eventOf("plugin:health", "plugin.health.down").health, instance: "shop", summary: "refused\u202e" },
};
const HEALTH = "GET servers/demo/plugins/11111111111111111111111111111111/health";

async function faults(): Promise<string[]> {
  // colours are looked at in a browser, where they are computed
  const { violations } = await axe.run(document.body, {
    rules: { "color-contrast": { enabled: false }, region: { enabled: false } },
  });
  return violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(" ")}`);
}

describe("the tabs", () => {
  test("are one stop of the Tab key, with arrows between them", async () => {
    const shown = await office("sidebar");
    tab(/Servers/).focus();
    await shown.user.keyboard("{ArrowRight}");
    expect(document.activeElement).toBe(tab(/Chats/));
    await shown.user.keyboard("{ArrowLeft}{ArrowLeft}");
    expect(document.activeElement).toBe(tab(/Waiting/));
    await shown.user.keyboard("{Home}");
    expect(document.activeElement).toBe(tab(/Servers/));
    await shown.user.keyboard("{End}");
    expect(tab(/Waiting/).getAttribute("aria-selected")).toBe("true");
  });

  test("count what waits, and open the request that was asked for", async () => {
    const pending = approval("pending");
    const shown = await office("sidebar");
    await shown.say({ type: "approval:list", seq: 0, approvals: [pending, approval("succeeded", { id: "2" })] });
    expect(tab(/^Waiting 1 to decide$/).querySelector(".oa-count")?.textContent).toBe("1");
    shown.way.go({ tab: "waiting", approval: pending.id });
    expect((await screen.findByRole("article")).textContent).toContain(pending.plan.statements[0]);
  });
});

describe("servers", () => {
  test("are shown with health, live", async () => {
    const shown = await office("sidebar");
    await shown.say(attached);
    expect(screen.getByText("not asked yet")).toBeTruthy();
    await shown.say(up);
    expect(screen.getByText("up")).toBeTruthy();
    await shown.say(down);
    expect(screen.getByText("down")).toBeTruthy();
    expect(screen.getByText(/refused/).closest("p")?.textContent).toContain("⟨U+202E⟩");
    await shown.say({ type: "plugin:status", seq: 3, server: "", name: "shop", status: "detached", instance: null });
    expect(screen.queryByText("shop")).toBeNull();
  });

  test("test on demand, and say the answer", async () => {
    const shown = await office("sidebar", { [HEALTH]: up.health });
    await shown.say(attached);
    await shown.user.click(button(/shop/));
    await shown.user.click(button("Test"));
    expect(await screen.findByText(/shop answers:/)).toBeTruthy();
    expect(screen.getByText("encrypted in the store, never shown")).toBeTruthy();
    expect(await faults()).toEqual([]);
  });

  test("are removed after a second thought only, and the harmless button has the focus", async () => {
    const shown = await office("sidebar");
    await shown.say(attached);
    await shown.user.click(button(/shop/));
    await shown.user.click(button("Remove…"));
    await waitFor(() => expect(document.activeElement?.textContent).toBe("Cancel"));
    expect(shown.requests.filter(([method]) => method === "DELETE")).toEqual([]);
    await shown.user.click(button("Remove shop"));
    expect(shown.requests.map(([method]) => method)).toContain("DELETE");
    expect(screen.queryByRole("button", { name: /shop/ })).toBeNull();
  });

  test("say why something was not done", async () => {
    const refusal = new Refusal(403, "not_authorized", "You may not <b>do</b> that\u202e.", "Ask the operator.");
    const shown = await office("sidebar", { "POST sessions": refusal });
    await shown.say(attached);
    await shown.user.click(button(/shop/));
    await shown.user.click(button("New chat"));
    const alerts = await screen.findAllByText(/You may not/);
    expect(alerts[0]?.closest("[role=alert]")?.textContent).toContain("<b>do</b> that⟨U+202E⟩.");
  });
});

describe("attaching", () => {
  const ATTACH = "POST servers/demo/plugins";

  async function filled(answers: Record<string, unknown>) {
    const shown = await office("sidebar", answers);
    await shown.user.click(button(/Attach a database/));
    const fields = { Name: "shop", Server: "demo", Host: "db1", Database: "shop", User: "al", Password: "p@ss:w/rd" };
    for (const [name, value] of Object.entries(fields)) {
      const field = screen.getByLabelText(name);
      await shown.user.clear(field);
      await shown.user.type(field, value);
    }
    return shown;
  }

  test("sends the password once, and keeps it nowhere on the screen", async () => {
    const shown = await filled({ [ATTACH]: { instance: SHOP, health: up.health } });
    await shown.user.click(button("Test and attach"));
    await screen.findByRole("button", { name: /shop/ });
    const [, , body] = shown.requests.find(([method]) => method === "POST") ?? [];
    expect(body).toMatchObject({
      name: "shop",
      environment: "production",
      dsn: "postgresql://al:p%40ss%3Aw%2Frd@db1:5432/shop",
    });
    expect(document.body.innerHTML).not.toContain("p@ss");
    await shown.user.click(button(/Attach a database/));
    expect((screen.getByLabelText("Password") as HTMLInputElement).value).toBe("");
  });

  test("has password fields that no browser fills or shows", async () => {
    const shown = await office("sidebar");
    await shown.user.click(button(/Attach a database/));
    expect(screen.getByLabelText("Password")).toMatchObject({ type: "password", autocomplete: "new-password" });
    await shown.user.selectOptions(screen.getByLabelText("Connection"), "dsn");
    expect(screen.getByLabelText("Connection string")).toMatchObject({ type: "password" });
    expect(await faults()).toEqual([]);
  });

  test("names what is missing and sends nothing", async () => {
    const shown = await office("sidebar");
    await shown.user.click(button(/Attach a database/));
    await shown.user.click(button("Test and attach"));
    expect(screen.getByText("Fill in: Name, Server, Database.")).toBeTruthy();
    expect(shown.requests.filter(([method]) => method === "POST")).toEqual([]);
  });

  test("keeps what was typed when it fails", async () => {
    const shown = await filled({ [ATTACH]: new Refusal(422, "target_unreachable", "No answer.", "Look at the host.") });
    await shown.user.click(button("Test and attach"));
    expect(await screen.findByText(/No answer. Look at the host./)).toBeTruthy();
    expect((screen.getByLabelText("Host") as HTMLInputElement).value).toBe("db1");
  });

  test.each([
    [{ user: "", password: "" }, "postgresql://db1:5432/shop"],
    [{ user: "a@b", password: "" }, "postgresql://a%40b@db1:5432/shop"],
    [{ user: "a", password: "/?#@:" }, "postgresql://a:%2F%3F%23%40%3A@db1:5432/shop"],
    [{ user: "a", password: "x", host: "::1" }, "postgresql://a:x@[::1]:5432/shop"],
    [{ user: "a", password: "x", host: "h/?sslmode=disable" }, "postgresql://a:x@h%2F%3Fsslmode%3Ddisable:5432/shop"],
    [{ user: "a", password: "x", database: "d?host=evil" }, "postgresql://a:x@db1:5432/d%3Fhost%3Devil"],
  ])("escapes every part of the connection string: %o", (changes, expected) => {
    expect(connectionString({ ...EMPTY_FORM, host: "db1", database: "shop", ...changes })).toBe(expected);
  });
});

describe("chats", () => {
  test("are listed, the last used first, and found by their title", async () => {
    const older = session({ id: "a", title: "slow orders", updated_at: "2026-11-22T10:00:00Z" });
    const newer = session({ id: "b", title: "locks <b>now</b>", updated_at: "2026-11-23T10:00:00Z" });
    const shown = await office("sidebar", { "GET sessions": { items: [older, newer], next: "" } }, { tab: "chats" });
    await screen.findByText("slow orders");
    const titles = () => screen.getAllByRole("listitem").map((item) => item.textContent);
    expect(titles()[0]).toContain("locks <b>now</b>");
    await shown.user.type(screen.getByRole("searchbox"), "orders");
    expect(titles()).toHaveLength(1);
    expect(await faults()).toEqual([]);
  });

  test("appear when they are begun elsewhere", async () => {
    const shown = await office("sidebar", {}, { tab: "chats" });
    await shown.say({ type: "chat:session", seq: 9, session: session({ id: "c", title: "from a notebook" }) });
    expect(screen.getByText("from a notebook")).toBeTruthy();
  });

  test("open, take a draft that is not sent, and are left when closed", async () => {
    const joined = eventOf("chat:joined", "chat.joined.empty");
    const { id } = joined.session;
    const shown = await office("sidebar", {}, { tab: "chats", session: id });
    expect(shown.sent).toContainEqual({ type: "chat:join", session: id, since: 0 });
    await shown.say(joined);
    shown.way.go({ draft: "About this cell:\nselect 1" });
    await shown.say();
    const box = screen.getByRole("textbox", { name: "Message" }) as HTMLTextAreaElement;
    expect(box.value).toBe("About this cell:\nselect 1");
    expect(document.activeElement).toBe(box);
    expect(shown.sent.filter((command) => command.type === "chat:message")).toEqual([]);
    expect(shown.way.place().draft).toBe("");
    expect(await faults()).toEqual([]);
    await shown.user.click(button(/All chats/));
    await waitFor(() => expect(shown.sent).toContainEqual({ type: "chat:leave", session: id }));
  });

  test("begin with a database and a model", async () => {
    const shown = await office("sidebar", { "POST sessions": session({ id: "n" }) }, { tab: "chats" });
    await shown.say(attached);
    await shown.user.click(button("New chat"));
    await shown.user.selectOptions(screen.getByRole("combobox", { name: "Model" }), "Another…");
    await shown.user.type(screen.getByRole("textbox", { name: /Name of the model/ }), "openai:x{Enter}");
    await shown.user.click(button("Start"));
    const begun = shown.requests.find(([method]) => method === "POST");
    expect(begun?.slice(1)).toEqual(["sessions", { instance: "shop", model: "openai:x" }]);
    expect(shown.way.place().session).toBe("n");
  });

  test("put a command into a notebook, which runs nothing", async () => {
    const joined = eventOf("chat:joined", "chat.joined.transcript");
    const shown = await office("sidebar", {}, { tab: "chats", session: joined.session.id });
    await shown.say(joined);
    for (const call of document.querySelectorAll<HTMLElement>(".oa-call summary")) await shown.user.click(call);
    await shown.user.click((await screen.findAllByRole("button", { name: /Insert as cell/ }))[0] as HTMLElement);
    expect(shown.inserted[0]).toMatch(/^%opsagent run postgresql\./);
  });
});

describe("the line", () => {
  test("says when it is lost, when it is tried again, and when it is back", async () => {
    const shown = await office("sidebar");
    await shown.become({ state: "lost", next: Date.now() + 8000, tries: 1 });
    expect(screen.getByText(/Connection lost. Next try in [78] s./)).toBeTruthy();
    await shown.become({ state: "open" });
    expect(screen.queryByText(/Connection lost/)).toBeNull();
    expect(screen.getByText("Connected again.")).toBeTruthy();
  });

  test("names the fix when the server extension is not there", async () => {
    const shown = await office("sidebar", { "GET servers": new Refusal(404, "http", "Not Found", "") });
    await shown.become({ state: "lost", next: Date.now() + 8000, tries: 2 });
    expect((await screen.findByText(/server extension enable opsagent_jupyter/)).closest("[role=alert]")).toBeTruthy();
  });
});

test("a card that was answered in a notebook changes here", async () => {
  const pending = approval("pending");
  const shown = await office("sidebar", {}, { tab: "waiting" });
  await shown.say({ type: "approval:request", seq: 4, approval: pending });
  await shown.user.click(button("Open"));
  const card = screen.getByRole("article");
  expect(within(card).getByRole("button", { name: "Approve and run" })).toBeTruthy();
  await shown.say({
    ...eventOf("approval:response", "approval.response.rejected"),
    seq: 5,
    approval: { ...approval("rejected"), id: pending.id, version: 9 },
  });
  expect(screen.getByRole("article").textContent).toContain("Rejected by");
  expect(event("approval.list.empty").type).toBe("approval:list");
});
