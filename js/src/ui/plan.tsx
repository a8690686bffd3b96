// A query plan as a plot: one line a node, indented as it is nested, with a bar for its share of the whole.
import type { JsonValue, Table } from "../protocol";
import { t } from "./strings";
import { Exact } from "./text";

type Row = Record<string, JsonValue | undefined>;

const NEEDED = ["depth", "node", "share", "estimated rows"];

/** Whether a table holds the nodes of a plan, as explain_query gives them. */
export function isPlan(table: Table): boolean {
  return table.rows.length > 0 && NEEDED.every((name) => table.columns.includes(name));
}

export function PlanPlot({ table }: { table: Table }) {
  const nodes = table.rows.map((row) => Object.fromEntries(table.columns.map((name, at) => [name, row[at]])) as Row);
  const most = Math.max(...nodes.map((node) => number(node.share)));
  return (
    <figure class="oa-plan">
      <figcaption>{t(measured(nodes) ? "plan.measured" : "plan.estimated")}</figcaption>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must be reachable by keyboard */}
      <ol tabIndex={0}>
        {nodes.map((node, index) => (
          <Node key={index} node={node} costliest={number(node.share) === most} />
        ))}
      </ol>
    </figure>
  );
}

function Node({ node, costliest }: { node: Row; costliest: boolean }) {
  const share = Math.min(100, Math.max(0, number(node.share)));
  return (
    <li class={costliest ? "oa-costliest" : ""}>
      <span class="oa-plan-name" style={{ paddingInlineStart: `${Math.min(number(node.depth), 20)}em` }}>
        <b>
          <Exact text={String(node.node)} />
        </b>{" "}
        <Exact text={subject(node)} />
      </span>
      <span class="oa-plan-bar" aria-hidden="true">
        <span style={{ width: `${share}%` }} />
      </span>
      <span class="oa-num">{t("plan.share", { share: Math.round(share) })}</span>
      <span class="oa-num oa-muted">{rows(node)}</span>
      {costliest && <span class="oa-plan-mark">{t("plan.costliest")}</span>}
    </li>
  );
}

function subject(node: Row): string {
  return [node.relation, node.index].filter(Boolean).join(" · ");
}

/** Estimated rows, and what came of them where the statement ran. */
function rows(node: Row): string {
  const estimated = number(node["estimated rows"]).toLocaleString();
  const actual = node["actual rows"];
  if (typeof actual !== "number") return t("plan.rows", { estimated });
  return t("plan.rows.both", { estimated, actual: actual.toLocaleString() });
}

function measured(nodes: Row[]): boolean {
  return nodes.some((node) => typeof node["actual rows"] === "number");
}

function number(value: JsonValue | undefined): number {
  return typeof value === "number" ? value : 0;
}
