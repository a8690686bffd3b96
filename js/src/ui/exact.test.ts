// What is shown is what is there: nothing hides, reorders or passes for something else.
import { describe, expect, test } from "vitest";
import { pieces, unmasked } from "./exact";

const marked = (text: string, sql = true) =>
  pieces(text, sql)
    .filter((piece) => piece.code)
    .map((piece) => `${piece.mark} ${piece.code}`);
const shown = (text: string) =>
  pieces(text, true)
    .map((piece) => piece.shown)
    .join("");

const HIDDEN = [
  ...[0x00, 0x07, 0x08, 0x0b, 0x0d, 0x1b, 0x7f, 0x85, 0x9b, 0xa0, 0xad, 0x34f, 0x61c, 0x115f, 0x1680, 0x17b4, 0x180e],
  ...[0x2000, 0x2003, 0x200a, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d],
  ...[0x202e, 0x202f, 0x205f, 0x2060, 0x2061, 0x2064, 0x2066, 0x2067, 0x2068, 0x2069, 0x206a, 0x2800, 0x3000, 0x3164],
  ...[0xfe00, 0xfe0f, 0xfeff, 0xffa0, 0xfff9, 0xe000, 0xd800, 0xe0001, 0xe0041, 0xe007f, 0xe0100, 0xf0000, 0xffff],
];

describe("exact text", () => {
  test.each(HIDDEN.map((code) => [code.toString(16)]))("shows the code of U+%s", (hex) => {
    const code = Number.parseInt(hex, 16);
    const name = `U+${hex.toUpperCase().padStart(4, "0")}`;
    expect(shown(`a${String.fromCodePoint(code)}b`)).toBe(`a⟨${name}⟩b`);
  });

  test("shows printable ASCII, line feeds and tabs as they are", () => {
    const ascii = Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index)).join("");
    expect(shown(`${ascii}\n\t${ascii}`)).toBe(`${ascii}\n\t${ascii}`);
    expect(marked(ascii)).toEqual([]);
  });

  test("loses nothing: the pieces are the text", () => {
    for (const text of ["", "a\u202eb", "größe", "𝐚𝐛", "👩‍👩‍👧", "x\ud800y", "e\u0301", "SELECT 'A' -- B\n"]) {
      expect(
        pieces(text, true)
          .map((piece) => piece.source)
          .join(""),
      ).toBe(text);
    }
  });

  test.each([
    ["a Cyrillic letter in a Latin word", "shop.\u043erders", ["lookalike U+043E"]],
    ["a Greek letter in a Latin word", "cust\u03bfmer", ["lookalike U+03BF"]],
    ["a word that is Cyrillic from end to end and reads as Latin", "\u0430\u0441\u0435", 3],
    ["full-width letters", "\uff41\uff42", 2],
    ["mathematical letters", "\u{1d41a}", ["lookalike U+1D41A"]],
    ["a dotless i", "\u0131d", ["lookalike U+0131"]],
    ["a combining mark", "o\u0301rders", ["lookalike U+0301"]],
    ["typographic quotes", "\u2019; DROP", ["lookalike U+2019"]],
    ["a Greek question mark for a semicolon", "x\u037e", ["lookalike U+037E"]],
    ["a dash that is no minus", "a \u2212 b", ["lookalike U+2212"]],
    ["a ligature", "\ufb01le", ["lookalike U+FB01"]],
  ])("marks %s", (_, text, expected) => {
    const found = marked(text);
    expect(found.every((mark) => mark.startsWith("lookalike"))).toBe(true);
    if (typeof expected === "number") expect(found).toHaveLength(expected);
    else expect(found).toEqual(expected);
  });

  test.each([["größe"], ["заказы"], ["注文"], ["παραγγελίες"]])("takes %s for a word of its own language", (word) => {
    expect(marked(word).every((mark) => mark.startsWith("foreign"))).toBe(true);
  });

  test("leaves the dashes and dots of a sentence alone, outside statements", () => {
    expect(marked("SELECT … — “x” · y’s", false)).toEqual([]);
  });

  test("marks keywords, and none within quotes or comments", () => {
    const bold = pieces(`CREATE INDEX ON "DROP TABLE" ('DELETE') -- ALTER`, true)
      .filter((piece) => piece.mark === "keyword")
      .map((piece) => piece.shown);
    expect(bold).toEqual(["CREATE", "INDEX", "ON"]);
  });

  test("takes time in proportion to the text", () => {
    const started = performance.now();
    pieces("'\u043e\u202e".repeat(30_000), true);
    expect(performance.now() - started).toBeLessThan(2000);
  });

  test("unmasks model text and leaves emoji whole", () => {
    expect(unmasked("a\u202eb\u200bc\u{e0041}")).toBe("a⟨U+202E⟩b⟨U+200B⟩c⟨U+E0041⟩");
    expect(unmasked("👩‍👩‍👧 ✔️\n\tx")).toBe("👩‍👩‍👧 ✔️\n\tx");
  });
});
