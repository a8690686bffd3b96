// Toasts on the page's real notice board: the first of many name their request, one counts the others.
import { Notification } from "@jupyterlab/apputils/lib/notification";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { approval } from "../../tests/golden";
import { recorder } from "../../tests/stage";
import type { Approval, Event } from "../protocol";
import { createStore } from "../state";
import { createWay } from "../ui/home";
import { announceArrivals, SHOWN, TOASTS } from "./arrivals";

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
afterEach(() => {
  vi.useRealTimers();
  Notification.dismiss();
});

const request = (id: string, state: Approval["state"] = "pending"): Approval => ({
  ...approval("pending"),
  id,
  state,
  plan: { ...approval("pending").plan, title: `Index ${id}` },
  version: state === "pending" ? 1 : 2,
});

const response = (asked: Approval): Event => ({ type: "approval:response", seq: 0, approval: asked });

/** The page of somebody to whom one request was known before; ``seen`` are those that stand before the person's eyes. */
function page({ wanted = true, seen = [] as string[] } = {}) {
  const store = createStore(recorder().client);
  const way = createWay();
  const opened: unknown[] = [];
  announceArrivals(
    { store, way },
    {
      board: Notification,
      isWanted: () => wanted,
      isShown: ({ id }) => seen.includes(id),
      open: (args) => void opened.push(args),
    },
  );
  store.learn({ type: "approval:list", seq: 0, approvals: [request("before")] });
  const arrive = (...ids: string[]) => {
    store.learn(...ids.map((id) => response(request(id))));
  };
  const decide = (...ids: string[]) => {
    store.learn(...ids.map((id) => response(request(id, "rejected"))));
  };
  return { arrive, decide, opened, seen, way };
}

/** What the board shows, the oldest first. */
const shown = () => Notification.manager.notifications.map(({ message }) => message).reverse();
const named = () => shown().filter((message) => message.startsWith("Approval needed"));
const counting = () => shown().filter((message) => /more approval/.test(message));
function press(message: string): void {
  const found = Notification.manager.notifications.find((one) => one.message === message);
  found?.options.actions?.[0]?.callback(new MouseEvent("click"));
}

test("what was there before the page is not announced, and one arrival names its request", () => {
  const { arrive, opened } = page();
  expect(shown()).toEqual([]);
  arrive("a");
  expect(shown()).toEqual([expect.stringContaining("Approval needed: Index a.")]);
  press(shown()[0] ?? "");
  expect(opened).toEqual([{ id: "a" }]);
});

test("more than three that arrive together share one toast, which counts and opens all that wait", () => {
  const { arrive, opened } = page();
  arrive("a", "b", "c");
  expect(named().length).toBe(TOASTS);
  expect(counting()).toEqual([]);
  arrive("d");
  expect(counting()).toEqual(["1 more approval request arrived."]);
  arrive(...Array.from({ length: 96 }, (_, number) => `n${number}`));
  expect(named().length).toBe(TOASTS);
  expect(counting()).toEqual(["97 more approval requests arrived."]);
  press(counting()[0] ?? "");
  expect(opened).toEqual([{}]);
});

test("whoever decides takes the request's toast away, and from the count", () => {
  const { arrive, decide } = page();
  arrive("a", "b", "c", "d", "e");
  decide("b");
  expect(named().length).toBe(2);
  decide("d");
  expect(counting()).toEqual(["1 more approval request arrived."]);
  decide("e");
  expect(counting()).toEqual([]);
  expect(named().length).toBe(2);
});

test("a counting toast that was closed by hand comes again with the next arrival", () => {
  const { arrive } = page();
  arrive("a", "b", "c", "d");
  Notification.dismiss(Notification.manager.notifications.find(({ message }) => /more/.test(message))?.id);
  arrive("e");
  expect(counting()).toEqual(["2 more approval requests arrived."]);
});

test("after the time that a toast stays arrivals are named again", () => {
  const { arrive } = page();
  arrive("a", "b", "c", "d");
  vi.setSystemTime(Date.now() + SHOWN + 1);
  arrive("e");
  expect(named().at(-1)).toContain("Index e");
  expect(named().length).toBe(TOASTS + 1);
});

test("nobody is told what they see or do not want, and opening a request takes its toast away", () => {
  page({ wanted: false }).arrive("a");
  expect(shown()).toEqual([]);
  const { arrive, seen, way } = page({ seen: ["b"] });
  arrive("b", "c");
  expect(named()).toEqual([expect.stringContaining("Index c")]);
  seen.push("c");
  way.go({ approval: "c" });
  expect(shown()).toEqual([]);
});
