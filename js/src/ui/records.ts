// Records of the audit as columns of text: for the table, for search, and for a file.
import type { AuditEntry, AuditFilter } from "../client/rest";
import { clock, duration, person, short } from "./format";
import { type Word, w } from "./wording";

export type Column =
  | "seq"
  | "at"
  | "what"
  | "target"
  | "risk"
  | "who"
  | "status"
  | "summary"
  | "reason"
  | "took"
  | "session"
  | "approval"
  | "statements"
  | "host";

export const COLUMNS: Column[] = [
  "seq",
  "at",
  "what",
  "target",
  "risk",
  "who",
  "status",
  "summary",
  "took",
  "reason",
  "statements",
  "approval",
  "session",
  "host",
];

/** The columns that are shown until somebody chooses others. */
export const USUAL: Column[] = ["seq", "at", "what", "target", "risk", "who", "status", "summary", "took"];

export function heading(column: Column): string {
  return w(`column.${column}` as Word);
}

/** What happened: the tool that was called, else the kind of the event. */
export function what({ event }: AuditEntry): string {
  return event.tool ? `${event.tool.split(".").at(-1)}${suffix(event.type)}` : event.type;
}

function suffix(type: string): string {
  return type === "call.outcome" ? "" : ` (${type.split(".").at(-1)})`;
}

export function textOf(entry: AuditEntry, column: Column): string {
  const { event, seq } = entry;
  switch (column) {
    case "seq":
      return String(seq);
    case "at":
      return clock(event.at);
    case "what":
      return what(entry);
    case "target":
      return [event.instance, event.server].filter(Boolean).join(" on ");
    case "risk":
      return event.risk ?? "";
    case "who":
      return person(event.actor);
    case "took":
      return event.milliseconds === null ? "" : duration(event.milliseconds);
    case "session":
    case "approval":
      return short(event[column]);
    case "statements":
      return event.statements.join("; ");
    default:
      return event[column];
  }
}

/** The code cells of a notebook that asks for the same records. */
export function cells(filter: AuditFilter): string[] {
  const options = (["since", "until", "risk", "status", "server", "tool", "actor"] as const)
    .filter((name) => filter[name])
    .map((name) => `--${name} ${quoted(filter[name] ?? "")}`);
  const lines = [`events = ${["%opsagent audit", ...options].join(" ")}`];
  if (filter.search)
    lines.push(
      `words = ${JSON.stringify(filter.search)}`,
      "texts = events.astype(str).apply(lambda column: column.str.contains(words, case=False, regex=False))",
      "events = events[texts.any(axis=1)]",
    );
  return [
    "%load_ext opsagent_jupyter",
    [...lines, "events"].join("\n"),
    'events.groupby(["tool", "status"], observed=True).size().unstack(fill_value=0)',
    'events.to_parquet("audit.parquet")',
  ];
}

function quoted(text: string): string {
  return /^[\w.:+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}
