// What a tool found: points, tables, a plan, its limits and what could follow.
import { useState } from "preact/hooks";
import type { JsonValue, Result, Suggestion, Table } from "../protocol";
import { visible } from "./exact";
import { FindingList, isFindings } from "./findings";
import { asCommand, plain } from "./format";
import { Insert } from "./insert";
import { isPlan, PlanPlot } from "./plan";
import { t } from "./strings";
import { Exact } from "./text";

/** Rows that are drawn before somebody asks for the others. */
const PAGE = 25;

export function ResultView({ result, onUse }: { result: Result; onUse?: (text: string) => void }) {
  const found = result.tables.some(isFindings);
  return (
    <div class="oa-result">
      {result.highlights.length > 0 && !found && (
        <ul>
          {result.highlights.map((line) => (
            <li key={line}>
              <Exact text={line} />
            </li>
          ))}
        </ul>
      )}
      {result.tables.map((table) => (
        <Drawn key={table.name} table={table} suggestions={result.suggestions} onUse={onUse} />
      ))}
      {result.tree && <Tree text={result.tree} open={!result.tables.some(isPlan)} />}
      <Notes notes={result.notes} />
      {!found && <Suggestions suggestions={result.suggestions} onUse={onUse} />}
    </div>
  );
}

/** A table as what it is: findings as a list, the nodes of a plan as a plot, anything else as rows. */
function Drawn(drawn: { table: Table; suggestions: Suggestion[]; onUse?: (text: string) => void }) {
  const { table, suggestions, onUse } = drawn;
  if (isPlan(table)) return <PlanPlot table={table} />;
  if (!isFindings(table)) return <ResultTable table={table} />;
  const offer = (fix: Suggestion) => <Suggestions suggestions={[fix]} onUse={onUse} />;
  return <FindingList table={table} suggestions={suggestions} offer={offer} />;
}

/** Preformatted text; below a plot of the same plan it is folded away. */
function Tree({ text, open }: { text: string; open: boolean }) {
  return (
    <details class="oa-tree-fold" open={open}>
      <summary>{t("result.tree")}</summary>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
      <pre class="oa-sql oa-tree" dir="ltr" tabIndex={0}>
        <Exact text={text} />
      </pre>
    </details>
  );
}

function Notes({ notes }: { notes: string[] }) {
  if (!notes.length) return null;
  return (
    <div class="oa-notes" role="note" aria-label={t("result.notes")}>
      {notes.map((note) => (
        <p key={note}>
          <Exact text={note} />
        </p>
      ))}
    </div>
  );
}

export function Suggestions({ suggestions, onUse }: { suggestions: Suggestion[]; onUse?: (text: string) => void }) {
  if (!suggestions.length) return null;
  return (
    <div class="oa-suggestions">
      <p class="oa-muted">{t("result.next")}</p>
      <ul>
        {suggestions.map((suggestion) => {
          const command = asCommand(suggestion.tool, suggestion.arguments);
          return (
            <li key={command}>
              <code>
                <Exact text={command} />
              </code>{" "}
              <span class="oa-muted">
                <Exact text={suggestion.why} />
              </span>{" "}
              {onUse && (
                <button type="button" class="oa-quiet" onClick={() => onUse(command)}>
                  {t("result.use")}
                </button>
              )}
              <Insert command={command} />
            </li>
          );
        })}
      </ul>
    </div>
  );
}

function caption(table: Table): string {
  const shown = table.rows.length;
  if (table.total > shown) return t("result.cut", { name: table.name, shown, total: table.total });
  if (shown === 0) return t("result.none", { name: table.name });
  return t(shown === 1 ? "result.row" : "result.rows", { name: table.name, shown });
}

/** Whether each value of a column is a number, or missing: such a column is aligned by its digits. */
function isNumeric(table: Table, column: number): boolean {
  const values = table.rows.map((row) => row[column]).filter((value) => value !== null && value !== undefined);
  return values.length > 0 && values.every((value) => typeof value === "number");
}

export function ResultTable({ table }: { table: Table }) {
  const [all, setAll] = useState(false);
  const numeric = table.columns.map((_, index) => isNumeric(table, index));
  const rows = all ? table.rows : table.rows.slice(0, PAGE);
  const rest = table.rows.length - PAGE;
  return (
    <figure class="oa-table">
      <figcaption class={table.total > table.rows.length ? "oa-cut" : ""}>
        <Exact text={caption(table)} />
      </figcaption>
      {table.rows.length > 0 && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
        <section class="oa-scroll" tabIndex={0} aria-label={visible(table.name)}>
          <table>
            <thead>
              <tr>
                {table.columns.map((column, index) => (
                  <th key={column} scope="col" class={numeric[index] ? "oa-right" : ""}>
                    <Exact text={column} />
                    {table.units[column] && (
                      <span class="oa-unit">
                        {" "}
                        <Exact text={table.units[column]} />
                      </span>
                    )}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((row, index) => (
                <tr key={index}>
                  {table.columns.map((column, at) => (
                    <Cell key={column} value={row[at]} numeric={numeric[at] ?? false} />
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
      {rest > 0 && (
        <button type="button" class="oa-quiet" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? t("show.less") : t("show.more", { n: rest })}
        </button>
      )}
    </figure>
  );
}

function Cell({ value, numeric }: { value: JsonValue; numeric: boolean }) {
  const missing = value === null || value === undefined;
  return (
    <td class={`${numeric ? "oa-right oa-num" : ""}${missing ? " oa-null" : ""}`}>
      <Exact text={plain(value)} />
    </td>
  );
}
