// A diagnosis as a list: the worst first, each finding unfolding to its figures, its reason and its ready fix.
import type { ComponentChildren } from "preact";
import type { JsonValue, Suggestion, Table } from "../protocol";
import { t } from "./strings";
import { Exact } from "./text";

type Row = Record<string, JsonValue | undefined>;

const NEEDED = ["rank", "severity", "finding", "evidence", "why", "advice", "fix", "confidence"];
const SEVERITIES = ["critical", "high", "medium", "info"] as const;
const CONFIDENCES = ["certain", "likely", "possible"] as const;

/** Whether a table holds findings, as the diagnosis of any plugin gives them. */
export function isFindings(table: Table): boolean {
  return table.rows.length > 0 && NEEDED.every((name) => table.columns.includes(name));
}

/** `fix` of a row is the number of its ready call among the suggestions, from 1; `offer` draws that call. */
export function FindingList({
  table,
  suggestions,
  offer,
}: {
  table: Table;
  suggestions: Suggestion[];
  offer: (suggestion: Suggestion) => ComponentChildren;
}) {
  const rows = table.rows.map((row) => Object.fromEntries(table.columns.map((name, at) => [name, row[at]])) as Row);
  const cut = table.total > rows.length;
  return (
    <section class="oa-findings" aria-label={t("findings.label")}>
      <ol>
        {rows.map((row) => (
          <Finding key={String(row.rank)} row={row} fix={fixOf(row, suggestions)} offer={offer} />
        ))}
      </ol>
      {cut && <p class="oa-muted">{t("findings.cut", { shown: rows.length, total: table.total })}</p>}
    </section>
  );
}

function fixOf(row: Row, suggestions: Suggestion[]): Suggestion | undefined {
  return typeof row.fix === "number" ? suggestions[row.fix - 1] : undefined;
}

function Finding({
  row,
  fix,
  offer,
}: {
  row: Row;
  fix: Suggestion | undefined;
  offer: (suggestion: Suggestion) => ComponentChildren;
}) {
  const severity = SEVERITIES.find((each) => each === row.severity) ?? "info";
  const confidence = CONFIDENCES.find((each) => each === row.confidence) ?? "possible";
  return (
    <li>
      <details open={severity === "critical"}>
        <summary class="oa-finding">
          <span class={`oa-risk oa-is-${severity === "info" ? "low" : severity}`}>{t(`severity.${severity}`)}</span>{" "}
          <Exact text={text(row.finding)} />
        </summary>
        <p>
          <Exact text={text(row.why)} />
        </p>
        {text(row.evidence) && (
          <ul class="oa-muted" aria-label={t("findings.evidence")}>
            {text(row.evidence)
              .split("; ")
              .map((figure) => (
                <li key={figure}>
                  <Exact text={figure} />
                </li>
              ))}
          </ul>
        )}
        <p>
          <b>{t("findings.advice")}</b> <Exact text={text(row.advice)} />{" "}
          <span class="oa-muted">{t(`confidence.${confidence}`)}</span>
        </p>
        {fix && offer(fix)}
      </details>
    </li>
  );
}

function text(value: JsonValue | undefined): string {
  return typeof value === "string" ? value : "";
}
