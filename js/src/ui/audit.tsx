// The audit in the main area: filters, a plot over time, a table, and one event in full.
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { AuditEntry, AuditFilter, FileKind } from "../client/rest";
import type { Risk } from "../protocol";
import { type Asked, useAsked, useDeed, useDesk } from "./desk";
import { visible } from "./exact";
import { Pairs } from "./facts";
import { clock } from "./format";
import { COLUMNS, type Column, cells, heading, textOf, USUAL } from "./records";
import { Refused } from "./refused";
import { keepKeys, useScreen } from "./screen";
import { t } from "./strings";
import { Exact, Fact, RiskBadge } from "./text";
import { BARS, Timeline } from "./timeline";
import { ChainMark } from "./verification";
import { useWindow, type Window } from "./window";
import { w } from "./wording";

/** Rows of one request. */
const PAGE = 200;
/** Milliseconds between two looks at the newest events while things happen, and between two counts of all that match. */
const CALM = 1000;
const CALMER = 5000;
/** Milliseconds after the last key before a search is asked for. */
const TYPING = 400;

const PERIODS = { hour: 3_600_000, day: 86_400_000, week: 7 * 86_400_000, month: 30 * 86_400_000, all: 0 } as const;
type Period = keyof typeof PERIODS;

export interface AuditState {
  filter: AuditFilter;
  period: Period;
  columns: Column[];
}

export const START: AuditState = { filter: {}, period: "week", columns: USUAL };

/** The filter as it is sent: a period ends now, a chosen span says its own ends. */
function sent({ filter, period }: AuditState): AuditFilter {
  if (filter.since || filter.until || period === "all") return filter;
  return { ...filter, since: new Date(Date.now() - PERIODS[period]).toISOString() };
}

interface Props {
  start?: Partial<AuditState>;
  /** Told after each change, so that the page can bring it back after a reload. */
  onChange?(state: AuditState): void;
}

export function AuditPanel({ start, onChange }: Props) {
  const [shown, setShown] = useState<AuditState>({ ...START, ...start });
  const [selected, setSelected] = useState(0);
  const list = useEntries(shown);
  const change = (more: Partial<AuditState>) => {
    const next = { ...shown, ...more };
    setShown(next);
    onChange?.(next);
  };
  const entry = list.entries.find(({ seq }) => seq === selected);
  return (
    <section class="oa-audit" aria-label={w("audit.label")}>
      <Filters shown={shown} change={change} />
      <Plot shown={shown} change={change} />
      <Toolbar shown={shown} change={change} list={list} />
      <Refused refusal={list.refusal} />
      <div class="oa-audit-body">
        <Records
          entries={list.entries}
          columns={shown.columns}
          selected={selected}
          onSelect={setSelected}
          list={list}
        />
        {entry && <Details entry={entry} onClose={() => setSelected(0)} />}
      </div>
    </section>
  );
}

// -- what is read

interface List {
  entries: AuditEntry[];
  next: string;
  reading: boolean;
  refusal: Asked<unknown>["refusal"];
  more(): void;
}

/** The newest events, read again while things happen, and earlier pages on demand. */
function useEntries(shown: AuditState): List {
  const { api } = useDesk();
  const beat = useHappenings(CALM);
  const [earlier, setEarlier] = useState<{ entries: AuditEntry[]; next: string } | null>(null);
  const key = JSON.stringify([shown.filter, shown.period]);
  const newest = useAsked(() => api.audit(sent(shown), "", PAGE), [key, beat]);
  const deed = useDeed();
  useEffect(() => setEarlier(null), [key]);
  const next = earlier ? earlier.next : (newest.value?.next ?? "");
  const more = () =>
    deed.start(async () => {
      const page = await api.audit(sent(shown), next, PAGE);
      setEarlier({ entries: [...(earlier?.entries ?? newest.value?.items ?? []), ...page.items], next: page.next });
    });
  const entries = useMemo(() => merged(newest.value?.items ?? [], earlier?.entries ?? []), [newest.value, earlier]);
  return { entries, next, reading: newest.reading || deed.running, refusal: newest.refusal ?? deed.refusal, more };
}

function merged(newest: AuditEntry[], earlier: AuditEntry[]): AuditEntry[] {
  const held = new Set(newest.map((entry) => entry.seq));
  return [...newest, ...earlier.filter((entry) => !held.has(entry.seq))];
}

/** All that match over time, whatever of it is shown. */
function Plot({ shown, change }: FilterProps) {
  const { api } = useDesk();
  const beat = useHappenings(CALMER);
  const counts = useAsked(() => api.timeline(sent(shown), BARS), [JSON.stringify([shown.filter, shown.period]), beat]);
  if (!counts.value) return null;
  return (
    <Timeline counts={counts.value} onSpan={(since, until) => change({ filter: { ...shown.filter, since, until } })} />
  );
}

/** Counts up, at most once in ``calm`` milliseconds, when something happened that the audit records. */
export function useHappenings(calm: number): number {
  const { seq } = useScreen().state;
  const [beat, setBeat] = useState(0);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      setBeat((count) => count + 1);
    }, calm);
  }, [seq]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return beat;
}

// -- what is asked for

interface FilterProps {
  shown: AuditState;
  change(more: Partial<AuditState>): void;
}

const RISKS: Risk[] = ["low", "medium", "high", "critical"];

function Filters({ shown, change }: FilterProps) {
  const { filter } = shown;
  const isFiltered = Object.values(filter).some(Boolean);
  return (
    // biome-ignore lint/a11y/useSemanticElements: browsers that we name do not know <search>
    <div class="oa-row oa-filters" role="search">
      <Search value={filter.search ?? ""} onSearch={(search) => change({ filter: { ...filter, search } })} />
      <Facets filter={filter} onChange={(more) => change({ filter: { ...filter, ...more } })} />
      <Time shown={shown} change={change} />
      {isFiltered && (
        <button type="button" class="oa-quiet" onClick={() => change({ filter: {} })}>
          {w("audit.clear")}
        </button>
      )}
    </div>
  );
}

/** Searches all that the server has, when the typing pauses. */
function Search({ value, onSearch }: { value: string; onSearch(words: string): void }) {
  const [typed, setTyped] = useState(value);
  const latest = useRef(onSearch);
  latest.current = onSearch;
  useEffect(() => setTyped(value), [value]);
  useEffect(() => {
    if (typed.trim() === value) return;
    const timer = setTimeout(() => latest.current(typed.trim()), TYPING);
    return () => clearTimeout(timer);
  }, [typed, value]);
  return (
    <input
      type="search"
      value={typed}
      maxLength={200}
      aria-label={w("audit.find")}
      placeholder={w("audit.find")}
      onInput={(event) => setTyped(event.currentTarget.value)}
      onKeyDown={keepKeys}
    />
  );
}

/** What there is to choose from is what the last month had. */
function Facets({ filter, onChange }: { filter: AuditFilter; onChange(more: AuditFilter): void }) {
  const { api } = useDesk();
  const stats = useAsked(() => api.stats(new Date(Date.now() - PERIODS.month).toISOString()), []).value;
  const names = (counts: Record<string, number> | undefined, current = ""): [string, string][] =>
    [...new Set([...Object.keys(counts ?? {}), current])]
      .filter(Boolean)
      .sort()
      .map((name) => [name, name]);
  const risks = RISKS.map((risk): [string, string] => [
    risk,
    risk === "critical" ? t("risk.critical") : w("audit.risk.up", { risk: t(`risk.${risk}`) }),
  ]);
  const { status, server, tool } = filter;
  return (
    <>
      <Pick
        label={w("audit.risk")}
        any={w("audit.risk.any")}
        value={filter.risk}
        options={risks}
        onPick={(risk) => onChange({ risk })}
      />
      <Pick
        label={w("audit.status")}
        any={w("audit.status.any")}
        value={status}
        options={names(stats?.by_status, status)}
        onPick={(name) => onChange({ status: name })}
      />
      <Pick
        label={w("audit.server")}
        any={w("audit.server.any")}
        value={server}
        options={names(stats?.by_server, server)}
        onPick={(name) => onChange({ server: name })}
      />
      <Pick
        label={w("audit.tool")}
        any={w("audit.tool.any")}
        value={tool}
        options={names(stats?.by_tool, tool)}
        onPick={(name) => onChange({ tool: name })}
      />
      <Actor value={filter.actor ?? ""} onPick={(actor) => onChange({ actor })} />
    </>
  );
}

function Time({ shown, change }: { shown: AuditState; change(more: Partial<AuditState>): void }) {
  const { filter, period } = shown;
  const isChosen = Boolean(filter.since || filter.until);
  const periods = (Object.keys(PERIODS) as Period[]).map((name): [string, string] => [name, w(`audit.time.${name}`)]);
  const chosen: [string, string] = ["chosen", `${clock(filter.since ?? "")} – ${clock(filter.until ?? "")}`];
  const pick = (name: string) => {
    if (name !== "chosen") change({ period: name as Period, filter: { ...filter, since: "", until: "" } });
  };
  return (
    <Pick
      label={w("audit.time")}
      any=""
      value={isChosen ? "chosen" : period}
      options={isChosen ? [chosen, ...periods] : periods}
      onPick={pick}
    />
  );
}

interface Picked {
  label: string;
  any: string;
  value: string | undefined;
  options: [string, string][];
  onPick(value: string): void;
}

function Pick({ label, any, value = "", options, onPick }: Picked) {
  return (
    <select aria-label={label} title={label} value={value} onChange={(event) => onPick(event.currentTarget.value)}>
      {any && <option value="">{any}</option>}
      {options.map(([name, text]) => (
        <option key={name} value={name}>
          {visible(text)}
        </option>
      ))}
    </select>
  );
}

function Actor({ value, onPick }: { value: string; onPick(value: string): void }) {
  return (
    <input
      type="text"
      class="oa-actor"
      value={value}
      aria-label={w("audit.actor")}
      placeholder={w("audit.actor.hint")}
      onChange={(event) => onPick(event.currentTarget.value.trim())}
      onKeyDown={keepKeys}
    />
  );
}

interface ToolbarProps {
  shown: AuditState;
  change(more: Partial<AuditState>): void;
  list: List;
}

function Toolbar({ shown, change, list }: ToolbarProps) {
  const { api, page } = useDesk();
  const { announce } = useScreen();
  const deed = useDeed();
  const save = (format: FileKind) => async () => {
    const { content, rows, cut } = await api.export(sent(shown), format);
    page.save(`audit.${format}`, content);
    announce(w(cut ? "audit.exported.cut" : "audit.exported", { n: rows }));
  };
  return (
    <>
      <div class="oa-row oa-toolbar">
        <span class="oa-muted oa-small" role="status">
          {count(list)}
        </span>
        <ChainMark />
        <span class="oa-grow" />
        <ColumnChoice columns={shown.columns} onChange={(columns) => change({ columns })} />
        {FILES.map((format) => (
          <button
            key={format}
            type="button"
            class="oa-small-button"
            title={w("audit.export.title")}
            aria-busy={deed.running}
            onClick={() => deed.start(save(format))}
          >
            {w(`audit.export.${format}`)}
          </button>
        ))}
        <button
          type="button"
          class="oa-small-button"
          title={w("audit.notebook.title")}
          onClick={() => page.openNotebook(cells(sent(shown)))}
        >
          {w("audit.notebook")}
        </button>
      </div>
      <Refused refusal={deed.refusal} />
    </>
  );
}

const FILES: FileKind[] = ["csv", "parquet"];

function count(list: List): string {
  const all = list.entries.length;
  if (list.next) return w("audit.shown.more", { n: all });
  return w(all === 1 ? "audit.shown.one" : "audit.shown", { n: all });
}

function ColumnChoice({ columns, onChange }: { columns: Column[]; onChange(columns: Column[]): void }) {
  const toggle = (column: Column) =>
    onChange(COLUMNS.filter((one) => (one === column ? !columns.includes(one) : columns.includes(one))));
  return (
    <details
      class="oa-menu"
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        event.currentTarget.open = false;
        event.currentTarget.querySelector("summary")?.focus();
      }}
    >
      <summary>{w("audit.columns")}</summary>
      <fieldset>
        <legend class="oa-sr">{w("audit.columns")}</legend>
        {COLUMNS.map((column) => (
          <label key={column}>
            <input type="checkbox" checked={columns.includes(column)} onChange={() => toggle(column)} />{" "}
            {heading(column)}
          </label>
        ))}
      </fieldset>
    </details>
  );
}

// -- what is shown

interface RecordsProps {
  entries: AuditEntry[];
  columns: Column[];
  selected: number;
  onSelect(seq: number): void;
  list: List;
}

function Records({ entries, columns, selected, onSelect, list }: RecordsProps) {
  const { box, shown, look } = useWindow(entries.length);
  useWidths(box, columns, shown);
  if (entries.length === 0) return <p class="oa-muted">{w(list.reading ? "loading" : "audit.none")}</p>;
  return (
    <section
      class="oa-records"
      ref={box}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
      tabIndex={0}
      aria-label={w("audit.records")}
      onScroll={look}
    >
      <table aria-rowcount={list.next ? -1 : entries.length + 1}>
        <thead>
          <tr aria-rowindex={1}>
            {columns.map((column) => (
              <th key={column} scope="col" class={isRight(column) ? "oa-right" : ""}>
                {heading(column)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          <Gap height={shown.above} />
          {entries.slice(shown.from, shown.to).map((entry, index) => (
            <Row
              key={entry.seq}
              entry={entry}
              index={shown.from + index}
              columns={columns}
              isSelected={entry.seq === selected}
              onSelect={onSelect}
            />
          ))}
          <Gap height={shown.below} />
        </tbody>
      </table>
      {list.next && (
        <button type="button" class="oa-quiet" aria-busy={list.reading} onClick={list.more}>
          {w("audit.more")}
        </button>
      )}
    </section>
  );
}

/** The rows that are not drawn, as room. */
function Gap({ height }: { height: number }) {
  if (height <= 0) return null;
  // biome-ignore lint/a11y/noAriaHiddenOnFocusable: a row without a cell takes no focus
  return <tr class="oa-gap" aria-hidden="true" style={{ height: `${height}px` }} />;
}

/** Keeps each column as wide as it was, so that rows that come into view do not move the others. */
function useWidths(box: RefObject<HTMLElement | null>, columns: Column[], shown: Window): void {
  const heads = () => [...(box.current?.querySelectorAll<HTMLElement>("th") ?? [])];
  useLayoutEffect(() => {
    for (const head of heads()) head.style.minWidth = "";
  }, [columns]);
  useLayoutEffect(() => {
    const widths = heads().map((head, index) => (columns[index] === "summary" ? 0 : head.offsetWidth));
    heads().forEach((head, index) => {
      if (widths[index]) head.style.minWidth = `${widths[index]}px`;
    });
  }, [columns, shown.from, shown.to]);
}

function isRight(column: Column): boolean {
  return column === "seq" || column === "took";
}

interface RowProps {
  entry: AuditEntry;
  index: number;
  columns: Column[];
  isSelected: boolean;
  onSelect(seq: number): void;
}

/** Drawn anew only when something of it is another: there are many, and events arrive each second. */
function Row(row: RowProps) {
  return useMemo(() => drawn(row), [row.entry.hash, row.index, row.columns, row.isSelected]);
}

function drawn({ entry, index: place, columns, isSelected, onSelect }: RowProps) {
  const choose = () => onSelect(isSelected ? 0 : entry.seq);
  return (
    // the button in the first column is the way by keyboard
    <tr data-row aria-rowindex={place + 2} class={isSelected ? "oa-selected" : ""} onClick={choose}>
      {columns.map((column, index) => (
        <td key={column} class={`oa-column-${column}${isRight(column) ? " oa-right oa-num" : ""}`}>
          {index === 0 ? (
            <button
              type="button"
              class="oa-row-button"
              aria-label={w("audit.details", { seq: entry.seq })}
              aria-expanded={isSelected}
              onClick={(event) => {
                event.stopPropagation();
                choose();
              }}
            >
              <Field entry={entry} column={column} />
            </button>
          ) : (
            <Field entry={entry} column={column} />
          )}
        </td>
      ))}
    </tr>
  );
}

function Field({ entry, column }: { entry: AuditEntry; column: Column }) {
  const text = textOf(entry, column);
  const { risk, status, at, tool } = entry.event;
  if (!text) return null;
  if (column === "risk" && risk) return <RiskBadge risk={risk} />;
  if (column === "at") return <time dateTime={at}>{text}</time>;
  const exact = <Exact text={text} />;
  if (column === "status")
    return <span class={`oa-ended ${/^[a-z]+$/.test(status) ? `oa-state-is-${status}` : ""}`}>{exact}</span>;
  return (column === "what" && tool) || column === "statements" ? <code>{exact}</code> : exact;
}

function Details({ entry, onClose }: { entry: AuditEntry; onClose(): void }) {
  const { event } = entry;
  const pane = useRef<HTMLElement>(null);
  useEffect(() => pane.current?.focus(), [entry.seq]);
  return (
    <aside
      class="oa-details"
      ref={pane}
      tabIndex={-1}
      aria-label={w("audit.details", { seq: entry.seq })}
      onKeyDown={(key) => key.key === "Escape" && onClose()}
    >
      <div class="oa-row">
        <h2 class="oa-grow">{w("audit.details", { seq: entry.seq })}</h2>
        <button type="button" class="oa-quiet" onClick={onClose}>
          {w("close")}
        </button>
      </div>
      <dl class="oa-facts">
        <Line name={w("column.what")} text={[event.type, event.tool].filter(Boolean).join(" · ")} />
        <Line name={w("column.at")} text={event.at} />
        <Line name={w("column.who")} text={`${textOf(entry, "who")} (${event.actor.id})`} />
        <Line
          name={w("column.target")}
          text={[textOf(entry, "target"), event.environment].filter(Boolean).join(" · ")}
        />
        <Fact name={w("column.risk")}>{event.risk && <RiskBadge risk={event.risk} />}</Fact>
        <Line name={w("column.status")} text={event.status} />
        <Line name={w("column.summary")} text={event.summary} />
        <Line name={w("column.reason")} text={event.reason} />
        <Line name={w("column.error")} text={event.error_code} />
        <Fact name={w("column.arguments")}>
          {Object.keys(event.arguments).length > 0 && <Pairs values={event.arguments} />}
        </Fact>
        <Fact name={w("column.details")}>
          {Object.keys(event.details).length > 0 && <Pairs values={event.details} />}
        </Fact>
        <Line name={w("column.approval")} text={event.approval} />
        <Line name={w("column.session")} text={event.session} />
        <Line name={w("column.call")} text={event.call} />
        <Line name={w("column.host")} text={event.host} />
        <Line name={w("column.setup")} text={event.setup} />
        <Line name={w("column.digest")} text={event.digest} />
        <Line name={w("column.hash")} text={entry.hash} />
      </dl>
      {event.statements.map((statement) => (
        <pre key={statement} class="oa-sql" dir="ltr">
          <Exact text={statement} sql />
        </pre>
      ))}
    </aside>
  );
}

function Line({ name, text }: { name: string; text: string }) {
  return <Fact name={name}>{text && <Exact text={text} />}</Fact>;
}
