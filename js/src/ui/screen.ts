// What every component may reach: the state, the way to Python, and the one voice for screen readers.
import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import type { Command } from "../protocol";
import { EMPTY, type State } from "../state";

export interface Screen {
  state: State;
  send(command: Command): void;
  /** Lets go of a one-time secret that was shown. */
  forget(id: string): void;
  /** Says a sentence to a screen reader, without moving the focus. */
  announce(sentence: string): void;
  /** Puts a command into a notebook cell below the one in use; absent where the screen is a cell itself. */
  insert?(code: string): void;
}

export const ScreenContext = createContext<Screen>({ state: EMPTY, send() {}, forget() {}, announce() {} });

export function useScreen(): Screen {
  return useContext(ScreenContext);
}

/** The time, drawn anew each second while ``running``. */
export function useNow(running: boolean): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [running]);
  return now;
}

/**
 * Keeps typing away from the notebook, whose single-letter shortcuts would cut cells. Saving and commands with other
 * modifiers go through, except with Enter, which would run the cell.
 */
export function keepKeys(event: KeyboardEvent): void {
  const modified = event.ctrlKey || event.metaKey;
  if (modified && event.key !== "Enter" && !"acvxyz".includes(event.key.toLowerCase())) return;
  event.stopPropagation();
}
