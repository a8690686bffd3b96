// What a cell may know of the page around it: where the Jupyter server is, and whether ours answers there.
import { connectServer, type ServerClient, type Socket } from "../client/server";
import { WIRE } from "../protocol";

/** The page's own settings, as JupyterLab and Notebook 7 write them into it. */
interface PageConfig {
  baseUrl?: string;
  wsUrl?: string;
  federated_extensions?: { name?: string }[];
}

const EXTENSION = "opsagent-jupyter";

/** The line of a page, shared by all its cells: one for each release of the widget. */
const lines = new Map<string, Promise<ServerClient | null>>();

/** The line to the page's server; null when this is no page of a Jupyter server with our extension of this release. */
export function serverLine(version: string): Promise<ServerClient | null> {
  let line = lines.get(version);
  if (!line) {
    line = find(version).catch(() => null);
    lines.set(version, line);
    // a server that was not there may come
    void line.then((found) => found ?? lines.delete(version));
  }
  return line;
}

async function find(version: string): Promise<ServerClient | null> {
  const config = pageConfig();
  const base = config && addressOf(config);
  if (!config || !base) return null;
  const answer = await fetch(new URL("opsagent/api/version", base), { credentials: "same-origin" });
  if (!answer.ok) return null;
  const told = (await answer.json()) as { version?: string; wire?: number };
  if (told.wire !== WIRE || told.version !== version) return null;
  const url = new URL("opsagent/ws", config.wsUrl ? new URL(slashed(config.wsUrl), base) : base);
  if (url.host !== base.host) return null;
  url.protocol = base.protocol === "https:" ? "wss:" : "ws:";
  return connectServer(() => new WebSocket(url) as unknown as Socket, version);
}

/** No request is made from a page that does not name our extension: it would only leave an error in its log. */
function pageConfig(): PageConfig | null {
  try {
    const text = document.getElementById("jupyter-config-data")?.textContent ?? "";
    const config = JSON.parse(text) as PageConfig;
    return config.federated_extensions?.some(({ name }) => name === EXTENSION) ? config : null;
  } catch {
    return null;
  }
}

/** The server's address, when it is the page's own: a decision goes nowhere else. */
function addressOf({ baseUrl }: PageConfig): URL | null {
  if (!baseUrl) return null;
  const base = new URL(slashed(baseUrl), location.href);
  return base.origin === location.origin ? base : null;
}

function slashed(url: string): string {
  return url.endsWith("/") ? url : `${url}/`;
}
