// One screen's state over time: it takes what a client tells it, some events at a time, and says when it changed.
import type { Client } from "../client";
import type { Command, Event } from "../protocol";
import { EMPTY, isOpen, LISTED, reduce, type State } from "./state";

/** How long events are collected before the screen is drawn again, in milliseconds: a model may stream faster than that. */
const FRAME = 16;

export interface Store {
  state(): State;
  send(command: Command): void;
  /** Lets go of a one-time secret. */
  forget(id: string): void;
  /** Takes what came another way than by the client, such as an answer of the REST interface. */
  learn(...events: Event[]): void;
  /** Calls back after each change, until the returned function is called. */
  watch(onChange: () => void): () => void;
  close(): void;
}

export function createStore(client: Client): Store {
  let state = EMPTY;
  let queue: Event[] = [];
  let timer: ReturnType<typeof setTimeout> | undefined;
  const watchers = new Set<() => void>();

  const publish = (next: State) => {
    if (next === state) return;
    state = next;
    for (const watcher of watchers) watcher();
  };
  const flush = () => {
    timer = undefined;
    const events = queue;
    queue = [];
    const before = state;
    publish(events.reduce(reduce, state));
    if (state.lists > before.lists)
      for (const id of overtaken(before, events)) client.send({ type: "approval:get", id });
  };
  const unsubscribe = client.subscribe((event) => {
    queue.push(event);
    timer ??= setTimeout(flush, FRAME);
  });

  return {
    state: () => state,
    send(command) {
      publish(reduce(state, { type: "sent", command }));
      client.send(command);
    },
    forget(id) {
      publish(reduce(state, { type: "hidden", id }));
    },
    learn(...events) {
      publish(events.reduce(reduce, state));
    },
    watch(onChange) {
      watchers.add(onChange);
      return () => watchers.delete(onChange);
    },
    close() {
      clearTimeout(timer);
      unsubscribe();
      watchers.clear();
    },
  };
}

/**
 * Requests that were open and stand in no new list of open ones: something became of them while nobody listened. A full
 * list says nothing of those that are older than its last.
 */
function overtaken(before: State, events: Event[]): string[] {
  const told = events.flatMap((event) => (event.type === "approval:list" ? event.approvals : []));
  const listed = new Set(told.map((approval) => approval.id));
  const times = told.map((approval) => Date.parse(approval.created_at));
  const since = told.length >= LISTED ? Math.min(...times) : 0;
  const open = Object.values(before.approvals).filter(isOpen);
  return open
    .filter((approval) => !listed.has(approval.id) && Date.parse(approval.created_at) >= since)
    .map((approval) => approval.id);
}
