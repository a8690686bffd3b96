// Draws model text. No address in it is loaded, looked up or opened without a click on a link that shows its host.
import type { ComponentChildren, VNode } from "preact";
import { useMemo } from "preact/hooks";
import { type Block, type Inline, parse } from "./markdown";

export function MarkdownText({ text }: { text: string }) {
  const tree = useMemo(() => parse(text), [text]);
  return <div class="oa-markdown">{tree.map(block)}</div>;
}

function block(node: Block): VNode {
  switch (node.kind) {
    case "paragraph":
      return <p>{node.children.map(inline)}</p>;
    case "heading":
      return <p class={`oa-heading oa-heading-${Math.min(node.level, 3)}`}>{node.children.map(inline)}</p>;
    case "pre":
      return (
        <pre class="oa-sql">
          <code>{node.text}</code>
        </pre>
      );
    case "rule":
      return <hr />;
    case "quote":
      return <blockquote>{node.children.map(block)}</blockquote>;
    case "list":
      return <List node={node} />;
    default:
      return <Grid node={node} />;
  }
}

function List({ node }: { node: Extract<Block, { kind: "list" }> }) {
  const items = node.items.map((item) => <li>{item.map(block)}</li>);
  return node.start === null ? <ul>{items}</ul> : <ol start={node.start}>{items}</ol>;
}

function Grid({ node }: { node: Extract<Block, { kind: "table" }> }) {
  const side = (index: number) => (node.right[index] ? "oa-right" : "");
  return (
    <div class="oa-scroll">
      <table>
        <thead>
          <tr>
            {node.head.map((cell, index) => (
              <th class={side(index)}>{cell.map(inline)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {node.rows.map((row) => (
            <tr>
              {row.map((cell, index) => (
                <td class={side(index)}>{cell.map(inline)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inline(node: Inline): ComponentChildren {
  switch (node.kind) {
    case "text":
      return node.text;
    case "code":
      return <code>{node.text}</code>;
    case "break":
      return <br />;
    case "link":
      return <Link url={node.url}>{node.children.map(inline)}</Link>;
    default: {
      const Tag = node.kind;
      return <Tag>{node.children.map(inline)}</Tag>;
    }
  }
}

/**
 * A link without an address in the page: browsers look hosts up ahead of a click, and a host name can carry rows out.
 * The host stands beside it, as the link's own text can say anything.
 */
function Link({ url, children }: { url: URL; children: ComponentChildren }) {
  return (
    <>
      <button
        type="button"
        class="oa-link"
        title={url.href}
        onClick={() => window.open(url.href, "_blank", "noopener,noreferrer")}
      >
        {children}
      </button>
      <span class="oa-host"> ({url.host})</span>
    </>
  );
}
