// Model text as a tree. The model is hostile until proven otherwise, so there is no HTML anywhere on the way from its
// text to the page: nothing to sanitise, no markup that a parser could read differently. What the tree has no word for
// (HTML, images, styles, attributes) stays text. One pass over the text, whatever is in it.
import { unmasked } from "./exact";

export type Inline =
  | { kind: "text" | "code"; text: string }
  | { kind: "strong" | "em" | "del"; children: Inline[] }
  | { kind: "link"; url: URL; children: Inline[] }
  | { kind: "break" };

export type Block =
  | { kind: "paragraph"; children: Inline[] }
  | { kind: "heading"; level: number; children: Inline[] }
  | { kind: "pre"; text: string }
  | { kind: "rule" }
  | { kind: "quote"; children: Block[] }
  | { kind: "list"; start: number | null; items: Block[][] }
  | { kind: "table"; head: Inline[][]; right: boolean[]; rows: Inline[][][] };

/** Quotes and lists within each other, at most; deeper ones are drawn as text. */
const DEPTH = 8;

const FENCE = /^ {0,3}(`{3,}|~{3,})[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3}(?:[-*+]|(\d{1,9})[.)]))(?:[ \t]+|$)/;
const TABLE_LINE = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?$/;

export function parse(text: string): Block[] {
  return blocks(unmasked(text).replaceAll("\t", "    ").split("\n"), DEPTH);
}

/** Reads blocks off the lines, each at its own place; a reader returns the number of lines that it took. */
function blocks(lines: string[], depth: number): Block[] {
  const found: Block[] = [];
  let at = 0;
  while (at < lines.length) {
    if (blank(lines[at])) at += 1;
    else at += special(lines, at, depth, found) || paragraph(lines, at, depth, found);
  }
  return found;
}

function blank(line: string | undefined): boolean {
  return line === undefined || line.trim() === "";
}

function special(lines: string[], at: number, depth: number, found: Block[]): number {
  const line = lines[at] ?? "";
  const heading = HEADING.exec(line);
  if (heading) {
    const title = (heading[2] ?? "").replace(/[ \t]#+[ \t]*$/, "");
    found.push({ kind: "heading", level: heading[1]?.length ?? 1, children: inlines(title) });
    return 1;
  }
  if (FENCE.test(line)) return fence(lines, at, found);
  if (RULE.test(line)) return found.push({ kind: "rule" }) && 1;
  if (depth > 0 && QUOTE.test(line)) return quote(lines, at, depth, found);
  if (depth > 0 && ITEM.test(line)) return list(lines, at, depth, found);
  return isTable(lines, at) ? table(lines, at, found) : 0;
}

function starts(lines: string[], at: number, depth: number): boolean {
  const line = lines[at] ?? "";
  if (HEADING.test(line) || FENCE.test(line) || RULE.test(line) || isTable(lines, at)) return true;
  return depth > 0 && (QUOTE.test(line) || ITEM.test(line));
}

function paragraph(lines: string[], at: number, depth: number, found: Block[]): number {
  let end = at + 1;
  while (!blank(lines[end]) && !starts(lines, end, depth)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trimStart());
  found.push({ kind: "paragraph", children: inlines(text.join("\n").trimEnd()) });
  return end - at;
}

/** Code up to its closing fence, or to the end: a model that still streams has not closed it yet. */
function fence(lines: string[], at: number, found: Block[]): number {
  const mark = FENCE.exec(lines[at] ?? "")?.[1] ?? "```";
  const closing = (line: string) => line.trim().startsWith(mark) && line.trim().replaceAll(mark.charAt(0), "") === "";
  let end = at + 1;
  while (end < lines.length && !closing(lines[end] ?? "")) end += 1;
  found.push({ kind: "pre", text: lines.slice(at + 1, end).join("\n") });
  return end + 1 - at;
}

function quote(lines: string[], at: number, depth: number, found: Block[]): number {
  let end = at;
  while (QUOTE.test(lines[end] ?? "")) end += 1;
  const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  found.push({ kind: "quote", children: blocks(inner, depth - 1) });
  return end - at;
}

function list(lines: string[], at: number, depth: number, found: Block[]): number {
  const number = ITEM.exec(lines[at] ?? "")?.[2];
  const items: Block[][] = [];
  let end = at;
  for (let marker = ITEM.exec(lines[end] ?? ""); marker; marker = ITEM.exec(lines[end] ?? "")) {
    if ((marker[2] === undefined) !== (number === undefined) || RULE.test(lines[end] ?? "")) break;
    const taken = item(lines, end, marker, depth);
    items.push(blocks(taken, depth - 1));
    end += taken.length;
  }
  found.push({ kind: "list", start: number === undefined ? null : Number(number), items });
  return end - at;
}

/** The lines of one item, without their indent: what is indented, and what continues its last paragraph. */
function item(lines: string[], at: number, marker: RegExpExecArray, depth: number): string[] {
  const indent = Math.min(marker[0].length, (marker[1]?.length ?? 0) + 4);
  const taken = [(lines[at] ?? "").slice(marker[0].length)];
  for (let next = at + 1; next < lines.length; next += 1) {
    const line = lines[next] ?? "";
    const inside = /^ */.exec(line)?.[0].length ?? 0;
    if (blank(line)) {
      if (!continues(lines, next, indent)) break;
    } else if (inside < Math.min(indent, 2) && (starts(lines, next, depth) || blank(lines[next - 1]))) {
      break;
    }
    taken.push(line.slice(Math.min(inside, indent)));
  }
  return taken;
}

/** Whether the item, or its list, goes on after a blank line. */
function continues(lines: string[], at: number, indent: number): boolean {
  const next = lines[at + 1] ?? "";
  return !blank(next) && (next.startsWith(" ".repeat(Math.min(indent, 2))) || ITEM.test(next));
}

function cells(line: string): string[] {
  const row = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return row.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function isTable(lines: string[], at: number): boolean {
  const rule = lines[at + 1]?.trim() ?? "";
  if (!lines[at]?.includes("|") || !rule.includes("-") || !TABLE_LINE.test(rule)) return false;
  return cells(lines[at] ?? "").length === cells(rule).length;
}

function table(lines: string[], at: number, found: Block[]): number {
  const head = cells(lines[at] ?? "");
  const right = cells(lines[at + 1] ?? "").map((cell) => /^-+:$/.test(cell));
  let end = at + 2;
  while (lines[end]?.includes("|") && !blank(lines[end])) end += 1;
  const rows = lines.slice(at + 2, end).map((line) => {
    const row = cells(line);
    return head.map((_, index) => inlines(row[index] ?? ""));
  });
  found.push({ kind: "table", head: head.map(inlines), right, rows });
  return end - at;
}

// -- inside a block

const MARKS: Record<string, "strong" | "em" | "del"> = {
  "**": "strong",
  __: "strong",
  "~~": "del",
  "*": "em",
  _: "em",
};
const NAMED: Record<string, string> = { "&lt;": "<", "&gt;": ">", "&amp;": "&", "&quot;": '"', "&nbsp;": " " };
const TOKEN =
  /(?<escape>\\[!-/:-@[-`{-~])|(?<ticks>`+)|(?<mark>\*{1,3}|__?|~~)|(?<open>!?\[)|(?<close>\](?:\(\s{0,3}<?(?<url>[^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s{1,3}(?:"[^"\n]*"|'[^'\n]*'))?\s{0,3}\))?)|(?<bare>https?:\/\/[^\s<>"'`|[\]]+)|(?<break>\n)|(?<name>&(?:lt|gt|amp|quot|nbsp);)/g;

/** Where a mark was opened: its place among the nodes. Each mark is open at most once, so this stays short. */
interface Opened {
  mark: string;
  at: number;
}

export function inlines(text: string): Inline[] {
  const reader = new InlineReader(text);
  return reader.read();
}

class InlineReader {
  private nodes: Inline[] = [];
  private open: Opened[] = [];
  private at = 0;
  /** Lengths of backtick runs that have no partner further on. */
  private lonely = new Set<number>();

  constructor(private readonly text: string) {}

  read(): Inline[] {
    const tokens = new RegExp(TOKEN);
    for (let match = tokens.exec(this.text); match; match = tokens.exec(this.text)) {
      this.say(this.text.slice(this.at, match.index));
      this.at = tokens.lastIndex;
      this.token(match);
      tokens.lastIndex = this.at;
    }
    this.say(this.text.slice(this.at));
    return this.nodes;
  }

  private say(text: string): void {
    const last = this.nodes.at(-1);
    const fixed = this.open.at(-1)?.at === this.nodes.length - 1;
    if (last?.kind === "text" && !fixed) last.text += text;
    else if (text) this.nodes.push({ kind: "text", text });
  }

  private token(match: RegExpExecArray): void {
    const { escape: escaped, ticks, mark, open, close, url, bare, name } = match.groups ?? {};
    if (escaped) this.say(escaped.slice(1));
    else if (ticks) this.code(ticks);
    else if (mark === "***") for (const half of this.halves()) this.mark(half, match.index);
    else if (mark) this.mark(mark, match.index);
    else if (open) this.opening(open);
    else if (close) this.closing(close, url);
    else if (bare) this.bare(bare);
    else if (name) this.say(NAMED[name] ?? name);
    else this.nodes.push({ kind: "break" });
  }

  private code(ticks: string): void {
    const end = this.lonely.has(ticks.length) ? -1 : this.partner(ticks);
    if (end < 0) {
      this.lonely.add(ticks.length);
      this.say(ticks);
      return;
    }
    const text = this.text.slice(this.at, end).replaceAll("\n", " ");
    this.nodes.push({ kind: "code", text: /^ .*\S.* $/.test(text) ? text.slice(1, -1) : text });
    this.at = end + ticks.length;
  }

  /** The next run of exactly as many backticks. */
  private partner(ticks: string): number {
    const runs = /`+/g;
    runs.lastIndex = this.at;
    for (let run = runs.exec(this.text); run; run = runs.exec(this.text)) {
      if (run[0] === ticks) return run.index;
    }
    return -1;
  }

  /** Three stars are two marks: the one that was opened last is closed first. */
  private halves(): string[] {
    return this.open.at(-1)?.mark === "*" ? ["*", "**"] : ["**", "*"];
  }

  private mark(mark: string, index: number): void {
    const before = this.text[index - 1] ?? " ";
    const after = this.text[this.at] ?? " ";
    const word = /[\p{L}\p{N}]/u;
    const inWord = mark.startsWith("_"); // names have underscores in them
    const held = this.open.findIndex((opened) => opened.mark === mark);
    if (held >= 0 && before.trim() && !(inWord && word.test(after))) {
      this.wrap(held, (children) => ({ kind: MARKS[mark] ?? "em", children }));
    } else if (held < 0 && after.trim() && !(inWord && word.test(before))) {
      this.begin(mark, mark);
    } else {
      this.say(mark);
    }
  }

  private begin(mark: string, shown: string): void {
    this.nodes.push({ kind: "text", text: shown });
    this.open.push({ mark, at: this.nodes.length - 1 });
  }

  /** Puts what stands after an opening into one node; openings inside it that were never closed stay text. */
  private wrap(held: number, make: (children: Inline[]) => Inline): void {
    const start = this.open[held]?.at ?? 0;
    this.open.length = held;
    const children = this.nodes.splice(start).slice(1);
    this.nodes.push(make(children));
  }

  private opening(shown: string): void {
    const held = this.open.findIndex((opened) => opened.mark.endsWith("["));
    if (held >= 0) this.open.splice(held, 1); // the innermost bracket is the one that counts
    this.begin(shown, shown);
  }

  private closing(shown: string, address: string | undefined): void {
    const held = this.open.findIndex((opened) => opened.mark.endsWith("["));
    const opened = this.open[held];
    if (!opened || address === undefined) {
      if (held >= 0) this.open.splice(held, 1);
      this.say(shown);
      return;
    }
    const url = opened.mark === "[" ? linkable(address) : null;
    this.wrap(held, (children) => (url ? { kind: "link", url, children } : { kind: "em", children }));
  }

  private bare(text: string): void {
    const trimmed = text.replace(/[.,;:!?)*_~]{1,20}$/, "");
    const url = linkable(trimmed);
    if (url) this.nodes.push({ kind: "link", url, children: [{ kind: "text", text: trimmed }] });
    else this.say(trimmed);
    this.at -= text.length - trimmed.length;
  }
}

/** A plain http(s) address; with a user name in it, it could pass for another host, so it stays text. */
function linkable(address: string): URL | null {
  const url = /^https?:\/\//i.test(address) && URL.canParse(address) ? new URL(address) : null;
  return url && !url.username && !url.password ? url : null;
}
