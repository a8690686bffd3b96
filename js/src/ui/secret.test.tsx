// A new role's password is shown on a click, to the screen that asked, until it is hidden.
import { cleanup, screen } from "@testing-library/preact";
import { afterEach, describe, expect, test } from "vitest";
import { approval, eventOf } from "../../tests/golden";
import { card } from "../../tests/stage";
import type { Approval, Event } from "../protocol";

afterEach(cleanup);

const SHOW = "Show password once";
const shown = eventOf("secret:shown", "secret.shown.event");
const response = (changed: Approval): Event => ({ type: "approval:response", seq: 2, approval: changed });
const alice = eventOf("hello", "hello.event").actor;

function made(changes: Partial<Approval> = {}): Approval {
  return approval("succeeded", { id: shown.id, evidence: { pid: 7, secret: "kept" }, requester: alice, ...changes });
}

const button = () => screen.queryByRole("button", { name: SHOW });

describe("a secret", () => {
  test("is asked for by a click and shown, with a button to copy it", async () => {
    const stage = await card(made());
    expect(document.body.textContent).not.toContain(shown.text);
    await stage.user.click(screen.getByRole("button", { name: SHOW }));
    await stage.user.click(screen.getByRole("button", { name: "Asking…" }));
    expect(stage.of("secret:reveal")).toEqual([{ type: "secret:reveal", id: shown.id }]);
    await stage.say(shown, response(made({ version: 5, evidence: { pid: 7, secret: "revealed" } })));
    expect(document.querySelector("code.oa-secret-text")?.textContent).toBe(shown.text);
    expect(button()).toBeNull();
    await stage.user.click(screen.getByRole("button", { name: "Copy" }));
    expect(await navigator.clipboard.readText()).toBe(shown.text);
  });

  test("is gone when it was hidden, and not offered again", async () => {
    const stage = await card(made());
    await stage.user.click(screen.getByRole("button", { name: SHOW }));
    await stage.say(shown, response(made({ version: 5, evidence: { secret: "revealed" } })));
    await stage.user.click(screen.getByRole("button", { name: "Hide" }));
    expect(document.body.innerHTML).not.toContain(shown.text);
    expect(button()).toBeNull();
  });

  test("is not shown by a screen that did not ask for it", async () => {
    const stage = await card(made());
    await stage.say(shown);
    expect(document.body.innerHTML).not.toContain(shown.text);
    expect(button()).not.toBeNull();
  });

  test("is not read out", async () => {
    const stage = await card(made());
    await stage.user.click(screen.getByRole("button", { name: SHOW }));
    await stage.say(shown);
    const voice = document.querySelector("[aria-live=polite]")?.textContent ?? "";
    expect(voice).toContain("It is not read out.");
    expect(voice).not.toContain(shown.text);
  });

  test("that cannot be shown says why, and the button is there again", async () => {
    const stage = await card(made());
    await stage.user.click(screen.getByRole("button", { name: SHOW }));
    const message = "Bob was shown this secret at 2026-11-23 14:00:00 UTC; it is shown only once.";
    const about = { code: "approval.secret_revealed", command: "secret:reveal", about: shown.id, hint: "" };
    await stage.say({ type: "error", seq: 0, message, ...about });
    expect(screen.getAllByRole("alert").some((alert) => alert.textContent?.includes(message))).toBe(true);
    expect(button()).not.toBeNull();
  });

  test.each<[string, Partial<Approval>]>([
    ["a call that made none", { evidence: {} }],
    ["one that was shown", { evidence: { secret: "revealed" } }],
    ["a call whose outcome is unknown", { state: "unknown" }],
    ["somebody else's", { requester: { ...alice, id: "os:eve" } }],
  ])("is not offered for %s", async (_, changes) => {
    await card(made(changes));
    expect(button()).toBeNull();
  });

  test("is offered to who approved it", async () => {
    await card(made({ requester: { ...alice, id: "os:eve" }, decided_by: alice }));
    expect(button()).not.toBeNull();
  });
});
