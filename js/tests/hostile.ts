// Texts that a table, an index, a database, a user, an error or a model may hold, and what a screen must make of them: text.
import { expect } from "vitest";

const ESC = "\u001b";

export const HOSTILE: readonly string[] = [
  '<img src=x onerror="globalThis.owned=1">',
  "<script>globalThis.owned=1</script>",
  '"><svg onload=globalThis.owned=1>',
  '</textarea></pre><iframe srcdoc="<script>parent.owned=1</script>">',
  "<style>*{display:none}</style>",
  '<a href="javascript:globalThis.owned=1">approved</a>',
  '<button data-commandlinker-command="opsagent:audit" data-commandlinker-args="{}">Approve</button>',
  "javascript:globalThis.owned=1",
  "[approve](javascript:globalThis.owned=1)",
  "[approve](command:opsagent:audit)",
  "![pixel](data:image/svg+xml,<svg onload=globalThis.owned=1>)",
  "{{constructor.constructor('globalThis.owned=1')()}} <%= owned %>",
  `${ESC}[2K${ESC}[31mapproved${ESC}[0m`,
  `${ESC}]8;;https://evil.example\u0007orders${ESC}]8;;\u0007`,
  "\u202egpj.sredro",
  "\u2067orders\u2069 \u2066x\u200f",
  "مستخدم_admin שלום",
  "ad\u200bmin\ufeff\u00ad",
  "оrders", // a Cyrillic first letter
  "orders\r\b\b\b\b\b\bapproved\u0085by root",
];

/** Values that are structure, not words: a screen has a fixed place or a word of its own for each. */
const STRUCTURE = new Set(
  `about agent approval at call command confidence current decision digest environment id instance_id kind nonce policy
  risk role session setup severity state status turn type via wire use_by created_at updated_at expires_at decided_at
  claimed_at ended_at checked_at since until secret`.split(/\s+/),
);

/** A value with every word in it replaced, whatever it is called. */
export function poisoned<T>(value: T, text: string): T {
  if (typeof value === "string") return text as T;
  if (Array.isArray(value)) return value.map((one) => poisoned(one, text)) as T;
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).map(([name, one]) => [
    name,
    STRUCTURE.has(name) && typeof one === "string" ? one : poisoned(one, text),
  ]);
  return Object.fromEntries(entries) as T;
}

/** What reorders, hides, erases or draws nothing. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/;
const RIGHT_TO_LEFT = /[\p{Script=Arabic}\p{Script=Hebrew}]/u;

/** Elements and attributes that a hostile text would need, and that no screen of ours makes of data. */
const MADE =
  "img, script, iframe, style, object, embed, a, link, meta, form[action], [href], [src], [srcdoc], [data-commandlinker-command]";
/** Where text stands for itself: neighbours are not reordered by it. */
const ISOLATED = "bdi, option, pre, textarea, title, .oa-sr, .oa-markdown";

/** Fails unless everything in the page is text that shows what it is. */
export function expectText(page: HTMLElement): void {
  expect((globalThis as { owned?: unknown }).owned).toBeUndefined();
  expect([...page.querySelectorAll(MADE)].map((element) => element.outerHTML)).toEqual([]);
  const walker = document.createTreeWalker(page, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node instanceof Element) expectAttributes(node);
    else expectNode(node as Text);
  }
}

function expectAttributes(element: Element): void {
  for (const { name, value } of element.attributes) {
    expect(name, element.outerHTML).not.toMatch(/^on/);
    if (name !== "value") expect(value, `${name} of ${element.outerHTML}`).not.toMatch(INVISIBLE);
  }
}

function expectNode(node: Text): void {
  expect(node.data, node.parentElement?.outerHTML).not.toMatch(INVISIBLE);
  if (RIGHT_TO_LEFT.test(node.data)) expect(node.parentElement?.closest(ISOLATED), node.data).not.toBeNull();
}
