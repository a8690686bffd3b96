// One screen's state over time: it takes what a client tells it, some events at a time, and says when it changed.
import type { Client } from "../client";
import type { Command, Event } from "../protocol";
import { EMPTY, reduce, type State } from "./state";

/** How long events are collected before the screen is drawn again, in milliseconds: a model may stream faster than that. */
const FRAME = 16;

export interface Store {
  state(): State;
  send(command: Command): void;
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
    publish(events.reduce(reduce, state));
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
