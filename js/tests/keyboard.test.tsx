// Every action by keyboard: whatever takes a click, on every screen, takes the keyboard too.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { cleanup } from "@testing-library/preact";
import userEvent from "@testing-library/user-event";
import ts from "typescript";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { SCENES, unfold } from "./scenes";

const CLICKS = new Set(["click", "dblclick", "mousedown", "mouseup", "pointerdown", "pointerup"]);
/** What a browser itself makes answer to the keyboard. */
const NATIVE = "button, input, select, textarea, summary, a[href]";
const ACTIVE = "[role=button], [role=tab], [role=link], [role=menuitem], [role=option], [role=checkbox], [role=switch]";

/** Which events each element listens to, as it told the page. */
const listening = new Map<EventTarget, Set<string>>();

beforeEach(() => {
  const add = EventTarget.prototype.addEventListener;
  vi.spyOn(EventTarget.prototype, "addEventListener").mockImplementation(function (this: EventTarget, type, ...rest) {
    if (this instanceof Element) listening.set(this, (listening.get(this) ?? new Set()).add(type));
    add.call(this, type, ...rest);
  });
});

afterEach(() => {
  cleanup();
  listening.clear();
});

const hears = (element: Element | null, type: string) => !!element && !!listening.get(element)?.has(type);
const outline = (element: Element) => (element.cloneNode() as Element).outerHTML;

/** Elements that take a click; one that is disabled takes none. */
function clickable(): Element[] {
  return [...listening]
    .filter(([, types]) => [...types].some((type) => CLICKS.has(type)))
    .map(([element]) => element as Element)
    .filter((element) => element.isConnected && !element.matches(":disabled"));
}

/** Whether arrows lead there from the one element of its group at which the Tab key stops. */
function isByArrows(element: Element): boolean {
  const group = element.closest("[role=tablist], [role=radiogroup], [role=menu], [role=listbox]");
  return hears(group, "keydown") && group?.querySelectorAll("[tabindex='0']").length === 1;
}

/** What the Tab key stops at, all the way round. */
async function stops(): Promise<Set<Element>> {
  const user = userEvent.setup({ delay: null });
  const found = new Set<Element>();
  (document.activeElement as HTMLElement | null)?.blur();
  for (;;) {
    await user.tab();
    const now = document.activeElement;
    if (!now || now === document.body || found.has(now)) return found;
    found.add(now);
  }
}

/** What takes a click and cannot be reached, or does not answer to a key there. */
async function unreachable(): Promise<string[]> {
  const reached = await stops();
  const arrives = (element: Element) => reached.has(element) || isByArrows(element);
  const answers = (element: Element) =>
    element.matches(NATIVE) || (element.matches(ACTIVE) && hears(element, "keydown"));
  // a row may take clicks for the button in it
  const stands = (element: Element) => element.matches("tr") && [...element.querySelectorAll("button")].some(arrives);
  return [...new Set([...clickable(), ...document.querySelectorAll(ACTIVE)])]
    .filter((element) => !(arrives(element) && answers(element)) && !stands(element))
    .map(outline);
}

async function expectReachable(): Promise<void> {
  await unfold();
  expect(await unreachable()).toEqual([]);
  const ahead = [...document.querySelectorAll<HTMLElement>("[tabindex]")].filter(({ tabIndex }) => tabIndex > 0);
  expect(ahead.map(outline)).toEqual([]);
}

describe("whatever takes a click can be reached and pressed by keyboard", () => {
  test.each(Object.entries(SCENES))("%s", async (_, scene) => {
    let looks = 0;
    await scene("orders", async () => {
      await expectReachable();
      looks += 1;
    });
    expect(looks).toBeGreaterThan(0);
  });
});

test("a click on what no key reaches is found, and so is one that no key presses", async () => {
  document.body.innerHTML =
    '<i></i><b tabindex="0" role="button"></b><u tabindex="0"></u><button tabindex="-1">x</button>';
  for (const element of document.body.children) element.addEventListener("click", () => {});
  const names = (await unreachable()).map((found) => /<(\w+)/.exec(found)?.[1]);
  expect(names).toEqual(["i", "b", "u", "button"]);
  document.querySelector("b")?.addEventListener("keydown", () => {});
  expect((await unreachable()).length).toBe(3);
  document.body.innerHTML = "";
});

const SOURCES = join(import.meta.dirname, "../src");
const NATIVE_TAGS = new Set(["button", "input", "select", "textarea", "summary"]);

/** The names of an element's attributes, with the text of each. */
function attributes(element: ts.JsxOpeningLikeElement): Map<string, string> {
  return new Map(
    element.attributes.properties.filter(ts.isJsxAttribute).map((one) => [one.name.getText(), one.getText()]),
  );
}

/** Elements of the page that the components make: file, tag, attributes. */
function* written(): Generator<[string, string, Map<string, string>]> {
  const files = readdirSync(SOURCES, { recursive: true, encoding: "utf8" });
  for (const file of files.filter((name) => name.endsWith(".tsx") && !name.includes(".test."))) {
    const text = readFileSync(join(SOURCES, file), "utf8");
    const walk = function* (node: ts.Node): Generator<ts.JsxOpeningLikeElement> {
      if (ts.isJsxOpeningElement(node) || ts.isJsxSelfClosingElement(node)) yield node;
      for (const child of node.getChildren()) yield* walk(child);
    };
    for (const element of walk(ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.TSX))) {
      const tag = element.tagName.getText();
      if (/^[a-z]/.test(tag)) yield [file, tag, attributes(element)];
    }
  }
}

test("no component has a click without a key, and none a place ahead of the others", () => {
  let clicks = 0;
  const wrong: string[] = [];
  for (const [file, tag, has] of written()) {
    const takesClick = [...has.keys()].some((name) => CLICKS.has(name.slice(2).toLowerCase()));
    const isPressed = has.has("role") && has.has("tabIndex") && has.has("onKeyDown");
    clicks += Number(takesClick);
    // a row of a table stands for the button in it, which the screens' tests above look for
    if (takesClick && !NATIVE_TAGS.has(tag) && tag !== "tr" && !isPressed) wrong.push(`${file}: ${tag} takes a click`);
    if (/tabIndex=\{[1-9]/.test(has.get("tabIndex") ?? "")) wrong.push(`${file}: ${tag} goes ahead`);
  }
  expect(wrong).toEqual([]);
  expect(clicks).toBeGreaterThan(40);
});
