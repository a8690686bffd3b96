// The way to the server that serves this page, as JupyterLab itself takes it: its address, its token, its XSRF header.
import { URLExt } from "@jupyterlab/coreutils";
import { ServerConnection } from "@jupyterlab/services";
import type { Client } from "../client";
import { type Api, createApi, type Method, Refusal } from "../client/rest";
import { connectServer, type Socket } from "../client/server";
import type { Event } from "../protocol";
import { createStore } from "../state";
import { refusalOf } from "../ui/desk";
import { createWay, type Desk, type Home, type Page } from "../ui/home";

const VERSION = OPSAGENT_VERSION;

interface Around extends Omit<Page, "save"> {
  insert(code: string): void;
}

export function connectHome(settings: ServerConnection.ISettings, around: Around): Home {
  const request = requests(settings);
  const api = createApi(
    async (method, path, body) => (await request(method, path, body)).json(),
    async (path) => {
      const response = await request("GET", path);
      const [rows, cut] = ["X-OpsAgent-Rows", "X-OpsAgent-Cut"].map((name) => response.headers.get(name));
      return { content: await response.blob(), rows: Number(rows), cut: cut === "true" };
    },
  );
  const line = connectServer(() => socket(settings), VERSION);
  const models = createModels();
  const store = createStore(withModels(line, api, models));
  store.send({ type: "approval:subscribe" });
  store.send({ type: "plugin:subscribe" });
  const desk: Desk = {
    api,
    store,
    models,
    way: createWay(),
    page: { ...around, save },
    line: { now: () => line.line(), watch: (onChange) => line.watchLine(onChange), retry: () => line.retry() },
  };
  return { desk, version: VERSION, insert: around.insert };
}

function socket(settings: ServerConnection.ISettings): Socket {
  const url = URLExt.join(settings.wsUrl, "opsagent", "ws");
  const token = settings.appendToken && settings.token ? `?token=${encodeURIComponent(settings.token)}` : "";
  return new settings.WebSocket(`${url}${token}`) as unknown as Socket;
}

type Request = (method: Method, path: string, body?: unknown) => Promise<Response>;

/** Each request's answer, when it is no refusal. */
function requests(settings: ServerConnection.ISettings): Request {
  return async (method, path, body) => {
    const url = URLExt.join(settings.baseUrl, "opsagent", "api", path);
    const init: RequestInit = { method };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { "Content-Type": "application/json" };
    }
    const response = await ServerConnection.makeRequest(url, init, settings).catch((error: unknown) => {
      throw new Refusal(0, "connection.lost", error instanceof Error ? error.message : String(error), "");
    });
    if (response.ok) return response;
    const answer = (await response.json().catch(() => ({}))) as { code?: string; message?: string; hint?: string };
    const { code = "http", message = response.statusText, hint = "" } = answer;
    throw new Refusal(response.status, code, message || String(response.status), hint);
  };
}

type Models = Desk["models"];

function createModels(): Models {
  const chosen = new Map<string, string>();
  return {
    chosen: (session) => chosen.get(session) ?? "",
    choose: (session, model) => {
      if (model) chosen.set(session, model);
      else chosen.delete(session);
    },
  };
}

/** Words for which another model was chosen go by request, which can name one; everything else goes by the line. */
function withModels(line: Client, api: Api, models: Models): Client {
  const listeners = new Set<(event: Event) => void>();
  return {
    send(command) {
      const model = command.type === "chat:message" ? models.chosen(command.session) : "";
      if (command.type !== "chat:message" || !model) return line.send(command);
      const { session, text, type } = command;
      api.say(session, text, model).then(
        () => models.choose(session, ""),
        (error: unknown) => {
          const { code, message, hint } = refusalOf(error);
          for (const tell of listeners)
            tell({ type: "error", seq: 0, code, message, hint, command: type, about: session });
        },
      );
    },
    subscribe(onEvent) {
      listeners.add(onEvent);
      const stop = line.subscribe(onEvent);
      return () => {
        listeners.delete(onEvent);
        stop();
      };
    },
  };
}

/** Hands a file to the person. */
function save(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
