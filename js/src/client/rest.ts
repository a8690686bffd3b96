// What a screen asks the server for by request and answer: what is attached, conversations, the audit.
import type { Actor, Approval, Health, Instance, JsonValue, Risk, Session } from "../protocol";

export type Method = "GET" | "POST" | "DELETE";
export type Query = Record<string, string | number | undefined>;

/** Carries one request to a path below `<base_url>opsagent/api/`; rejects with a `Refusal`. */
export type Ask = (method: Method, path: string, body?: unknown) => Promise<unknown>;

/** Why a request was not done. `code` is stable; `hint` says what to do. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string,
  ) {
    super(message);
  }
}

/** One page of a list; `next` is the cursor of the page after it, "" at the end. */
export interface Page<T> {
  items: T[];
  next: string;
}

/** A kind of database; `missing` says what has to be installed before it can be attached. */
export interface PluginKind {
  name: string;
  missing: string;
}

export interface Tool {
  name: string;
  summary: string;
  risk: Risk;
}

/** A server with what is attached to it and how that was when it was last asked. */
export interface ServerEntry {
  name: string;
  plugins: Instance[];
  health: Health[];
}

/** A database to attach. The connection string holds the password: it is sent, and kept nowhere here. */
export interface Attachment {
  plugin: string;
  name: string;
  environment: Instance["environment"];
  read_only: boolean;
  dsn: string;
}

/** One record of the audit. */
export interface AuditEvent {
  type: string;
  at: string;
  actor: Actor;
  status: string;
  risk: Risk | null;
  tool: string;
  server: string;
  instance: string;
  environment: string;
  session: string;
  call: string;
  approval: string;
  digest: string;
  arguments: Record<string, JsonValue>;
  statements: string[];
  reason: string;
  summary: string;
  error_code: string;
  milliseconds: number | null;
  host: string;
  setup: string;
  details: Record<string, JsonValue>;
}

/** A record with its place in the chain. */
export interface AuditEntry {
  seq: number;
  event_id: string;
  hash: string;
  event: AuditEvent;
}

/** Which records; what is empty filters nothing. Times are ISO texts with a zone. */
export interface AuditFilter {
  /** That level and those above it. */
  risk?: string;
  /** Words that a text of the record contains. */
  search?: string;
  status?: string;
  server?: string;
  tool?: string;
  actor?: string;
  since?: string;
  until?: string;
}

/** How one step of a run of a runbook stands. */
export interface RunbookStep {
  runbook: string;
  run: string;
  step: string;
  call: string;
  tool: string;
  server: string;
  instance: string;
  risk: string;
  state: string;
  decided_by: string;
  asked_at: string;
  decided_at: string | null;
  began_at: string | null;
  ended_at: string | null;
  approval: string;
  /** The signature of the runbook by which nobody was asked; "" when somebody was. */
  vetting: string;
  summary: string;
}

export interface AuditStats {
  total: number;
  by_status: Record<string, number>;
  by_server: Record<string, number>;
  by_tool: Record<string, number>;
}

/** The records of one span of time that match. */
export interface TimeSpan {
  since: string;
  until: string;
  total: number;
  by_status: Record<string, number>;
  /** A record without a level counts under an empty name. */
  by_risk: Record<string, number>;
}

/** All records that match, counted by equal spans; spans without any are left out. */
export interface AuditTimeline {
  total: number;
  since: string | null;
  milliseconds: number;
  spans: TimeSpan[];
}

/** The check of the audit's chain, which the server runs in the background. */
export interface Checking {
  running: boolean;
  /** Whether `last` is about the audit's present end. */
  current: boolean;
  last: { checked_at: string; ok: boolean; rows: number; first_bad: number | null; problems: string[] } | null;
  failure: string;
}

export type FileKind = "csv" | "parquet";

/** A file that the server made; `cut` when there were more records than a file holds. */
export interface Taken {
  content: Blob;
  rows: number;
  cut: boolean;
}

/** Reads one file from a path below `<base_url>opsagent/api/`; rejects with a `Refusal`. */
export type Take = (path: string) => Promise<Taken>;

export interface ModelChoice {
  name: string;
  ready: boolean;
  /** What to install or to set before it can be used. */
  missing: string;
}

export interface ModelChoices {
  items: ModelChoice[];
  providers: { name: string; installed: boolean; key: boolean; missing: string }[];
}

export interface Api {
  plugins(): Promise<PluginKind[]>;
  servers(): Promise<ServerEntry[]>;
  attach(server: string, what: Attachment): Promise<{ instance: Instance | null; health: Health }>;
  detach(instance: Instance): Promise<void>;
  health(instance: Instance): Promise<Health>;
  tools(instance: Instance): Promise<Tool[]>;
  sessions(cursor: string): Promise<Page<Session>>;
  /** Open requests, newest first. */
  approvals(cursor: string, limit: number): Promise<Page<Approval>>;
  begin(instance: string, model: string): Promise<Session>;
  close(session: string): Promise<Session>;
  /** Says something with another model than the session's; from then on it is the session's. */
  say(session: string, text: string, model: string): Promise<void>;
  audit(filter: AuditFilter, cursor: string, limit: number): Promise<Page<AuditEntry>>;
  stats(since: string): Promise<AuditStats>;
  timeline(filter: AuditFilter, spans: number): Promise<AuditTimeline>;
  export(filter: AuditFilter, format: FileKind): Promise<Taken>;
  verification(): Promise<Checking>;
  /** The newest steps of all runs of runbooks, in the order in which they were asked for. */
  runbookSteps(): Promise<RunbookStep[]>;
  modelChoices(session: string): Promise<ModelChoices>;
}

/** A path with its query; what is empty is left out. */
export function withQuery(path: string, query: Query): string {
  const filled = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(filled.map(([name, value]) => [name, String(value)])).toString();
  return text ? `${path}?${text}` : path;
}

/** How many pages of a list are read when all of it is wanted: a list that never ends must not fill the memory. */
const PAGES = 50;

const part = encodeURIComponent;
const pathOf = ({ server, id }: Instance) => `servers/${part(server)}/plugins/${part(id)}`;

export function createApi(ask: Ask, take: Take): Api {
  const get = <T>(path: string, query: Query = {}) => ask("GET", withQuery(path, query)) as Promise<T>;
  const post = <T>(path: string, body: unknown = {}) => ask("POST", path, body) as Promise<T>;
  const all = async <T>(path: string): Promise<T[]> => {
    const items: T[] = [];
    let cursor = "";
    for (let page = 0; page < PAGES; page++) {
      const found = await get<Page<T>>(path, { limit: 200, cursor });
      items.push(...found.items);
      cursor = found.next;
      if (!cursor) break;
    }
    return items;
  };
  return {
    plugins: async () => (await get<Page<PluginKind>>("plugins")).items,
    servers: () => all("servers"),
    attach: (server, what) => post(`servers/${part(server)}/plugins`, what),
    detach: async (instance) => void (await ask("DELETE", pathOf(instance))),
    health: (instance) => get(`${pathOf(instance)}/health`),
    tools: async (instance) => (await get<Page<Tool>>(`${pathOf(instance)}/tools`)).items,
    sessions: (cursor) => get("sessions", { limit: 50, cursor }),
    approvals: (cursor, limit) => get("approvals", { limit, cursor }),
    begin: (instance, model) => post("sessions", { instance, model }),
    close: (session) => post(`sessions/${part(session)}/close`),
    say: async (session, text, model) => void (await post(`sessions/${part(session)}/messages`, { text, model })),
    audit: (filter, cursor, limit) => get("audit", { ...filter, cursor, limit }),
    stats: (since) => get("audit/stats", { since }),
    timeline: (filter, spans) => get("audit/timeline", { ...filter, spans }),
    export: (filter, format) => take(withQuery("audit/export", { ...filter, format })),
    verification: () => get("audit/verification"),
    runbookSteps: async () => (await get<Page<RunbookStep>>("runbooks/steps")).items,
    modelChoices: (session) => get("models", { session }),
  };
}
