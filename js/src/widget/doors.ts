// A cell's two doors: the kernel's comm for everything, and the page's server for decisions, which it takes while the kernel
// is busy or gone. Both must lead to the same store, or the server's stays shut.
import type { Client } from "../client";
import type { ServerClient } from "../client/server";
import type { Command, Event } from "../protocol";

/** Decisions that anybody who may decide can take. Withdrawing is the requester's own, whom the kernel knows. */
const DECISIONS = ["approve", "reject", "revoke"];

export interface Doors extends Client {
  close(): void;
}

/** ``find`` looks for the server's line once the kernel has said which store is its own. */
export function twoDoors(comm: Client, find: () => Promise<ServerClient | null>): Doors {
  const listeners = new Set<(event: Event) => void>();
  /** Requests that were decided by the server's door: what it says of them is shown. */
  const decided = new Set<string>();
  let server: ServerClient | null = null;
  let store = "";
  let other = "";
  let isClosed = false;
  let stopServer = () => {};

  const tell = (event: Event) => {
    for (const listener of [...listeners]) listener(event);
  };
  const look = async () => {
    const found = await find();
    if (!found || isClosed || server) return;
    server = found;
    other = storeOf(found);
    stopServer = found.subscribe(heard);
  };
  const heard = (event: Event) => {
    if (event.type === "hello") {
      other = event.store;
      // what happened while the line was cut
      for (const id of decided) server?.send({ type: "approval:get", id });
    }
    const about = subject(event);
    if (decided.has(about)) tell({ ...event, seq: 0 });
  };
  const stopComm = comm.subscribe((event) => {
    if (event.type === "hello") {
      store = event.store;
      if (store) void look();
    }
    tell(event);
  });
  const isOneStore = () => store !== "" && store === other && server?.line().state === "open";

  return {
    send(command) {
      if (!server || !isDecision(command) || !isOneStore()) return comm.send(command);
      decided.add(command.id);
      server.send(command);
    },
    subscribe(onEvent) {
      listeners.add(onEvent);
      return () => listeners.delete(onEvent);
    },
    close() {
      isClosed = true;
      stopComm();
      stopServer();
      listeners.clear();
    },
  };
}

function isDecision(command: Command): command is Extract<Command, { type: "approval:respond" }> {
  return command.type === "approval:respond" && DECISIONS.includes(command.decision);
}

/** The store that a line was last greeted with. */
function storeOf(line: ServerClient): string {
  return line.welcome()?.store ?? "";
}

/** The request that an event is about, when it tells what became of a decision. */
function subject(event: Event): string {
  if (event.type === "approval:response" || event.type === "approval:request") return event.approval.id;
  return event.type === "error" && event.command === "approval:respond" ? event.about : "";
}
