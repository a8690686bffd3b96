// A cell's two doors: decisions go to the page's server when it has the kernel's store, everything else to the kernel.
import { afterEach, describe, expect, test, vi } from "vitest";
import { approval, eventOf } from "../../tests/golden";
import { recorder } from "../../tests/stage";
import type { Line, ServerClient } from "../client/server";
import type { Command, Event, Welcome } from "../protocol";
import { twoDoors } from "./doors";
import { serverLine } from "./page";

const pending = approval("pending");
const welcome = (store: string): Welcome => ({ ...eventOf("hello", "hello.event"), seq: 0, store });
const respond = (decision: "approve" | "reject" | "revoke" | "withdraw"): Command => ({
  type: "approval:respond",
  id: pending.id,
  decision,
  reason: "",
  version: pending.version,
  digest: pending.digest,
});
const told = (event: Event) => ({ ...event, seq: 9 });
const changed: Event = { type: "approval:response", seq: 9, approval: approval("approved") };
const pass = () => new Promise((done) => setTimeout(done, 5));

function server(store: string) {
  const { client, sent, emit } = recorder();
  let line: Line = { state: "open" };
  const found: ServerClient = {
    ...client,
    line: () => line,
    welcome: () => welcome(store),
    watchLine: () => () => {},
    retry: () => {},
    close: () => {},
  };
  return {
    found,
    sent,
    emit,
    become: (next: Line) => {
      line = next;
    },
  };
}

async function opened(mine: string, theirs: string | null) {
  const comm = recorder();
  const other = theirs === null ? null : server(theirs);
  const doors = twoDoors(comm.client, async () => other?.found ?? null);
  const heard: Event[] = [];
  doors.subscribe((event) => heard.push(event));
  comm.emit(welcome(mine));
  await pass();
  return { comm, other, doors, heard };
}

describe("a cell's two doors", () => {
  test("send a decision to the server, and everything else to the kernel", async () => {
    const { comm, other, doors } = await opened("a", "a");
    const rest: Command[] = [
      respond("withdraw"),
      { type: "approval:get", id: "x" },
      { type: "secret:reveal", id: "x" },
    ];
    for (const command of [respond("approve"), respond("reject"), ...rest]) doors.send(command);
    expect(other?.sent).toEqual([respond("approve"), respond("reject")]);
    expect(comm.sent).toEqual(rest);
  });

  test.each([
    ["another store", "a", "b"],
    ["a server without a store", "a", ""],
    ["a kernel without a store", "", ""],
    ["no server", "a", null],
  ])("send everything to the kernel: %s", async (_, mine, theirs) => {
    const { comm, other, doors } = await opened(mine, theirs);
    doors.send(respond("approve"));
    expect(comm.sent).toEqual([respond("approve")]);
    expect(other?.sent ?? []).toEqual([]);
  });

  test("fall back to the kernel at once while the server's line is cut", async () => {
    const { comm, other, doors } = await opened("a", "a");
    other?.become({ state: "lost", next: 0, tries: 1 });
    doors.send(respond("approve"));
    expect(comm.sent).toEqual([respond("approve")]);
  });

  test("notice that the server has another store since it came back", async () => {
    const { comm, other, doors } = await opened("a", "a");
    other?.emit(welcome("b"));
    doors.send(respond("approve"));
    expect(comm.sent).toEqual([respond("approve")]);
  });

  test("tell what the server says of what was decided there, and nothing else of it", async () => {
    const { other, doors, heard } = await opened("a", "a");
    other?.emit(changed);
    other?.emit(told(eventOf("chat:message", "chat.message.answered")));
    expect(heard).toHaveLength(1);
    doors.send(respond("approve"));
    other?.emit(changed);
    const refusal: Event = {
      type: "error",
      seq: 0,
      code: "request.not_authorized",
      message: "No.",
      hint: "",
      command: "approval:respond",
      about: pending.id,
    };
    other?.emit(refusal);
    expect(heard.slice(1)).toEqual([{ ...changed, seq: 0 }, refusal]);
  });

  test("ask again what became of a decision when the server's line comes back", async () => {
    const { other, doors } = await opened("a", "a");
    doors.send(respond("approve"));
    other?.emit(welcome("a"));
    expect(other?.sent.at(-1)).toEqual({ type: "approval:get", id: pending.id });
  });

  test("tell nothing any more once they are closed", async () => {
    const { comm, other, doors, heard } = await opened("a", "a");
    doors.send(respond("approve"));
    doors.close();
    comm.emit(changed);
    other?.emit(changed);
    expect(heard).toHaveLength(1);
  });
});

describe("the page's server", () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    document.body.innerHTML = "";
  });

  const config = (content: object) => {
    document.body.innerHTML = `<script id="jupyter-config-data" type="application/json">${JSON.stringify(content)}</script>`;
  };
  const extension = { federated_extensions: [{ name: "opsagent-jupyter" }] };
  const answers = (body: object, status = 200) => {
    const asked = vi.fn(async (_: unknown, __: unknown) => new Response(JSON.stringify(body), { status }));
    vi.stubGlobal("fetch", asked);
    vi.stubGlobal(
      "WebSocket",
      class {
        static readonly urls: string[] = [];
        constructor(url: URL) {
          (globalThis.WebSocket as unknown as { urls: string[] }).urls.push(String(url));
        }
        close() {}
      },
    );
    return asked;
  };
  const urls = () => (globalThis.WebSocket as unknown as { urls: string[] }).urls;

  test.each([
    ["no settings", null],
    ["not our extension", { baseUrl: "/", federated_extensions: [{ name: "other" }] }],
    ["another machine", { baseUrl: "https://elsewhere.example/", ...extension }],
  ])("is not looked for: %s", async (_, content) => {
    if (content) config(content);
    const asked = answers({});
    expect(await serverLine("0.1.0")).toBeNull();
    expect(asked).not.toHaveBeenCalled();
  });

  test.each([
    ["another release", { version: "9.9.9", wire: 1 }, 200],
    ["another wire", { version: "0.1.0", wire: 2 }, 200],
    ["nothing there", {}, 404],
  ])("is not used: %s", async (_, body, status) => {
    config({ baseUrl: "/user/someone/", ...extension });
    answers(body, status);
    expect(await serverLine("0.1.0")).toBeNull();
    expect(urls()).toEqual([]);
  });

  test("is asked below its base URL with the page's login, and one line serves all cells", async () => {
    config({ baseUrl: "/user/someone/", wsUrl: "", ...extension });
    const asked = answers({ version: "1.0.0", wire: 1 });
    const line = await serverLine("1.0.0");
    expect(await serverLine("1.0.0")).toBe(line);
    expect(String(asked.mock.calls[0]?.[0])).toBe(`${location.origin}/user/someone/opsagent/api/version`);
    expect(asked.mock.calls[0]?.[1]).toEqual({ credentials: "same-origin" });
    expect(urls()).toEqual([`${location.origin.replace("http", "ws")}/user/someone/opsagent/ws`]);
    line?.close();
  });
});
