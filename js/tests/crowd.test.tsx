// A store may hold a hundred thousand requests and a million records: what a screen draws of them stays bounded.
import { act, cleanup, screen, waitFor } from "@testing-library/preact";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Approval, Event } from "../src/protocol";
import { LISTED } from "../src/state";
import { PAGE } from "../src/ui/approvals";
import { entry, office } from "./desk";
import { approval } from "./golden";
import { stage } from "./stage";

afterEach(cleanup);

/** Requests of one minute each, the newest first, from the one of minute ``newest`` down. */
function requests(count: number, newest: number): Approval[] {
  const pending = approval("pending");
  return Array.from({ length: count }, (_, index) => {
    const minute = newest - index;
    const created_at = new Date(Date.UTC(2026, 10, 1) + minute * 60_000).toISOString();
    return { ...pending, id: `id-${minute}`, call: `call-${minute}`, created_at };
  });
}

const listed = (approvals: Approval[]): Event => ({ type: "approval:list", seq: 0, approvals });
const lines = () => document.querySelectorAll(".oa-line").length;
/** Looked for by its words: a search by role would compute the name of everything in these long lists. */
const button = (text: string) => [...document.querySelectorAll("button")].find((one) => one.textContent === text);
const more = () => button("Show more");

async function press(text: string): Promise<void> {
  await waitFor(() => expect(button(text)).toBeTruthy());
  await act(async () => {
    button(text)?.click();
    await new Promise((drawn) => setTimeout(drawn, 20));
  });
}

describe("a queue without end", () => {
  test("draws a page of it, says that there is more, and fetches older requests on demand", async () => {
    const older = requests(PAGE, 800);
    const shown = await office(
      "sidebar",
      {
        "GET approvals": (path: unknown) =>
          String(path).includes("cursor=") ? { items: older, next: "" } : { items: [], next: "older" },
      },
      { tab: "waiting" },
    );
    await shown.say(listed(requests(LISTED, 1000)));
    expect(lines()).toBe(PAGE);
    expect(document.querySelector("#oa-tab-waiting")?.textContent).toBe(`Waiting ${LISTED}+ to decide`);
    for (let drawn = 2 * PAGE; drawn <= LISTED; drawn += PAGE) {
      await press("Show more");
      expect(lines()).toBe(drawn);
    }
    expect(shown.requests.filter(([, path]) => path.startsWith("approvals"))).toEqual([]);
    await press("Show more");
    await waitFor(() => expect(lines()).toBe(LISTED + PAGE));
    await waitFor(() => expect(more()).toBeUndefined());
  });

  test("asks of a full list only what it should have held: older requests may well be open", async () => {
    const shown = await office("sidebar", {}, { tab: "waiting" });
    await shown.say(listed(requests(LISTED, 1000)), ...requests(5, 700).map(asked));
    await shown.say(
      listed(
        requests(LISTED, 1001)
          .filter(({ id }) => id !== "id-990")
          .concat(requests(1, 801)),
      ),
    );
    const wanted = shown.sent.filter((command) => command.type === "approval:get");
    expect(wanted).toEqual([{ type: "approval:get", id: "id-990" }]);
  });

  test("says in a cell where the others are", async () => {
    await stage({ kind: "approvals" }, listed(requests(LISTED, 1000)));
    for (let page = 1; page < LISTED / PAGE; page++) await press("Show more");
    expect(lines()).toBe(LISTED);
    expect(screen.getByText(/These are the newest 200/)).toBeTruthy();
  });
});

function asked(request: Approval): Event {
  return { type: "approval:response", seq: 0, approval: request };
}

describe("an audit without end", () => {
  /** The height of a row and of the box, which a test page does not lay out. */
  function laidOut(): void {
    vi.spyOn(HTMLElement.prototype, "offsetHeight", "get").mockReturnValue(25);
    vi.spyOn(Element.prototype, "clientHeight", "get").mockReturnValue(500);
  }

  const rows = () => [...document.querySelectorAll<HTMLElement>("tbody [data-row]")];
  const heights = () => [...document.querySelectorAll<HTMLElement>("tbody .oa-gap")].map((gap) => gap.style.height);

  test("draws what is in view, and what comes into view", async () => {
    laidOut();
    const pages = Array.from({ length: 10 }, (_, page) =>
      Array.from({ length: 200 }, (_, index) => ({
        ...entry(1),
        seq: 2000 - page * 200 - index,
        hash: `${page}-${index}`,
      })),
    );
    let next = 0;
    const read = () => {
      const at = next++ % pages.length;
      return { items: pages[at], next: at < 9 ? "more" : "" };
    };
    await office("audit", { "GET audit": read });
    for (let page = 1; page < 10; page++) {
      await press("Show earlier events");
      await screen.findByText(new RegExp(`${200 * (page + 1)} events`));
    }
    expect(rows().length).toBeLessThan(100);
    expect(rows()[0]?.getAttribute("aria-rowindex")).toBe("2");
    const box = document.querySelector(".oa-records") as HTMLElement;
    await act(async () => {
      box.scrollTop = 1000 * 25;
      box.dispatchEvent(new Event("scroll"));
      await new Promise((drawn) => setTimeout(drawn, 20));
    });
    expect(rows().length).toBeLessThan(100);
    const [above, below] = heights().map((height) => Number.parseInt(height, 10) / 25);
    expect((above ?? 0) + rows().length + (below ?? 0)).toBe(2000);
    const places = rows().map((row) => Number(row.getAttribute("aria-rowindex")) - 2);
    expect(places[0]).toBeLessThan(1000);
    expect(places.at(-1)).toBeGreaterThan(1020);
  });
});
