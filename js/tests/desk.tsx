// Puts the screens of a page with a server on the screen; the test is the server.
import { act, type RenderResult, render } from "@testing-library/preact";
import userEvent, { type UserEvent } from "@testing-library/user-event";
import {
  type Api,
  type AuditEntry,
  type AuditEvent,
  createApi,
  type Method,
  Refusal,
  type Taken,
} from "../src/client/rest";
import type { Line } from "../src/client/server";
import type { Command, Event, Instance, Session } from "../src/protocol";
import { createStore } from "../src/state";
import { AuditPanel } from "../src/ui/audit";
import { type Desk, DeskContext } from "../src/ui/desk";
import { Frame } from "../src/ui/frame";
import { createWay, type Place, type Way } from "../src/ui/place";
import { RunsPanel } from "../src/ui/runs";
import { Sidebar } from "../src/ui/sidebar";
import { eventOf } from "./golden";
import { recorder } from "./stage";

type Answer = unknown | ((body: unknown) => unknown);

export interface Office extends RenderResult {
  user: UserEvent;
  way: Way;
  sent: Command[];
  requests: [Method, string, unknown][];
  inserted: string[];
  notebooks: string[][];
  saved: [string, Blob][];
  say(...events: Event[]): Promise<void>;
  become(line: Line): Promise<void>;
}

export const SHOP: Instance = {
  id: "1".repeat(32),
  name: "shop",
  server: "demo",
  plugin: "postgresql",
  environment: "staging",
  read_only: false,
  settings: { host: "db1", port: 5432, database: "shop", user: "operator" },
  created_by: "Alice",
  created_at: "2026-11-23T10:00:00Z",
};

export const attached: Event = {
  type: "plugin:status",
  seq: 0,
  server: "demo",
  name: "shop",
  status: "attached",
  instance: SHOP,
};

export function session(changes: Partial<Session> = {}): Session {
  return { ...eventOf("chat:joined", "chat.joined.empty").session, ...changes };
}

export function entry(seq: number, changes: Partial<AuditEvent> = {}): AuditEntry {
  const event: AuditEvent = {
    type: "call.outcome",
    at: new Date(Date.UTC(2026, 10, 23, 10, 0, seq)).toISOString(),
    actor: { id: "jupyter:alice", name: "Alice", via: "server", agent: false, stable: false },
    status: "succeeded",
    risk: "low",
    tool: "postgresql.list_indexes",
    server: "demo",
    instance: "shop",
    environment: "staging",
    session: "",
    call: "",
    approval: "",
    digest: "",
    arguments: {},
    statements: [],
    reason: "",
    summary: `summary ${seq}`,
    error_code: "",
    milliseconds: 4,
    host: "h1",
    setup: "personal",
    details: {},
    ...changes,
  };
  return { seq, event_id: `e${seq}`, hash: "f".repeat(64), event };
}

const EMPTY = { items: [], next: "" };

/** What a server with nothing in particular answers. */
const USUAL: Record<string, Answer> = {
  "GET audit/stats": { by_status: { succeeded: 1 }, by_server: { demo: 1 }, by_tool: {} },
  "GET audit/timeline": { total: 0, since: null, milliseconds: 0, spans: [] },
  "GET audit/verification": { running: true, current: false, last: null, failure: "" },
  "GET models": { items: [{ name: "offline", ready: true, missing: "" }], providers: [] },
};

/** ``answers``: by method and path without its query, such as "GET audit". */
export async function office(
  screen: "sidebar" | "audit" | "runs",
  answers: Record<string, Answer> = {},
  start: Partial<Place> = {},
): Promise<Office> {
  const { client, sent, emit } = recorder();
  const store = createStore(client);
  const way = createWay(start);
  const requests: Office["requests"] = [];
  const [inserted, notebooks, saved]: [string[], string[][], [string, Blob][]] = [[], [], []];
  let line: Line = { state: "open" };
  const watchers = new Set<() => void>();
  const answered = async (method: Method, path: string, body?: unknown) => {
    requests.push([method, path, body]);
    const key = `${method} ${path.split("?")[0]}`;
    const found = answers[key] ?? USUAL[key];
    if (found === undefined && key.endsWith("/health")) return new Promise(() => {});
    const answer = typeof found === "function" ? found(path) : found;
    if (answer instanceof Refusal) throw answer;
    return answer ?? EMPTY;
  };
  const api: Api = createApi(answered, async (path) => (await answered("GET", path)) as Taken);
  const chosen = new Map<string, string>();
  const desk: Desk = {
    api,
    store,
    way,
    models: { chosen: (id) => chosen.get(id) ?? "", choose: (id, model) => void chosen.set(id, model) },
    page: {
      openAudit: () => {},
      openNotebook: (cells) => void notebooks.push(cells),
      save: (name, content) => void saved.push([name, content]),
    },
    line: {
      now: () => line,
      watch: (onChange) => {
        watchers.add(onChange);
        return () => watchers.delete(onChange);
      },
      retry: () => {},
    },
  };
  const shown = render(
    <DeskContext.Provider value={desk}>
      <Frame store={store} version="0.1.0" insert={(code) => void inserted.push(code)}>
        {screen === "sidebar" ? <Sidebar /> : screen === "runs" ? <RunsPanel /> : <AuditPanel />}
      </Frame>
    </DeskContext.Provider>,
  );
  const pass = () => new Promise((drawn) => setTimeout(drawn, 40));
  const say = (...events: Event[]) =>
    act(async () => {
      for (const event of events) emit(event);
      await pass();
    }) as Promise<void>;
  const become = (next: Line) =>
    act(async () => {
      line = next;
      for (const watcher of watchers) watcher();
      await pass();
    }) as Promise<void>;
  await say(eventOf("hello", "hello.event"));
  const user = userEvent.setup({ delay: null });
  return { ...shown, user, way, sent, requests, inserted, notebooks, saved, say, become };
}
