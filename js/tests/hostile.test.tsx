// Twenty hostile texts, each in every place of every screen that shows a word of somebody else: a database, a model, an error.
import { cleanup } from "@testing-library/preact";
import { afterEach, describe, test } from "vitest";
import { expectText, HOSTILE } from "./hostile";
import { SCENES, unfold } from "./scenes";

afterEach(cleanup);

/** All in one text: side by side, and each on a line of its own, where Markdown begins anew. */
const TOGETHER = [
  ["side by side", HOSTILE.join(" ")],
  ["line by line", HOSTILE.join("\n\n")],
] as const;

/** Looks at the page, which has to show the text somewhere. */
async function expectShown(): Promise<void> {
  await unfold();
  expectText(document.body);
}

describe.each(TOGETHER)("twenty hostile texts %s are text", (_, text) => {
  test.each(Object.entries(SCENES))("%s", (_, scene) => scene(text, expectShown));
});
