// Where the sidebar is: its tab, the conversation in it, and words that somebody put into the message box.
export type Tab = "servers" | "chats" | "waiting";

export interface Place {
  tab: Tab;
  /** The open conversation; "" for the list of them. */
  session: string;
  /** The open approval request; "" for none. */
  approval: string;
  /** Words for the message box, taken once. */
  draft: string;
}

export interface Way {
  place(): Place;
  go(change: Partial<Place>): void;
  /** Calls back after each change, until the returned function is called. */
  watch(onChange: () => void): () => void;
}

export function createWay(start: Partial<Place> = {}): Way {
  let place: Place = { tab: "servers", session: "", approval: "", draft: "", ...start };
  const watchers = new Set<() => void>();
  return {
    place: () => place,
    go(change) {
      place = { ...place, ...change };
      for (const watcher of [...watchers]) watcher();
    },
    watch(onChange) {
      watchers.add(onChange);
      return () => watchers.delete(onChange);
    },
  };
}
