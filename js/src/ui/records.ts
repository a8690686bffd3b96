// Records of the audit as columns of text: for the table, for search, and for a file.
import type { AuditEntry, AuditFilter } from "../client/rest";
import { clock, duration, person, plain, short } from "./format";
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

/** Whether any text of a record contains the words, whatever their case. */
export function contains(entry: AuditEntry, words: string): boolean {
  const wanted = words.trim().toLowerCase();
  if (!wanted) return true;
  const { event } = entry;
  const texts = [
    ...COLUMNS.map((column) => textOf(entry, column)),
    event.type,
    event.error_code,
    plain(event.arguments),
  ];
  return texts.some((text) => text.toLowerCase().includes(wanted));
}

const FIELDS = [
  "seq",
  "at",
  "type",
  "status",
  "risk",
  "tool",
  "server",
  "instance",
  "environment",
  "actor_id",
  "actor_name",
  "session",
  "call",
  "approval",
  "digest",
  "arguments",
  "statements",
  "reason",
  "summary",
  "error_code",
  "milliseconds",
  "host",
  "setup",
  "hash",
] as const;

/** The records as CSV (RFC 4180). A text that a spreadsheet would calculate is led by an apostrophe. */
export function csv(entries: AuditEntry[]): string {
  const lines = entries.map((entry) => FIELDS.map((field) => cell(value(entry, field))).join(","));
  return `${[FIELDS.join(","), ...lines].join("\r\n")}\r\n`;
}

function value({ seq, hash, event }: AuditEntry, field: (typeof FIELDS)[number]): unknown {
  switch (field) {
    case "seq":
      return seq;
    case "hash":
      return hash;
    case "actor_id":
      return event.actor.id;
    case "actor_name":
      return event.actor.name;
    default:
      return event[field];
  }
}

function cell(content: unknown): string {
  if (content === null || content === undefined) return "";
  if (typeof content === "number") return String(content);
  const text = typeof content === "string" ? content : JSON.stringify(content);
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

/** The code cells of a notebook that asks for the same records. */
export function cells(filter: AuditFilter): string[] {
  const options = (["since", "until", "risk", "status", "server", "tool", "actor"] as const)
    .filter((name) => filter[name])
    .map((name) => `--${name} ${quoted(filter[name] ?? "")}`);
  const lines = [`events = ${["%opsagent audit", ...options].join(" ")}`];
  // the command takes a level and those above it
  if (filter.risk) lines.push(`events = events[events["risk"] == "${filter.risk}"]`);
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
