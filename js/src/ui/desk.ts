// What the sidebar and the audit may reach beside the state: the server's answers, and the page around them.
import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { type Api, type AuditFilter, Refusal } from "../client/rest";
import type { Line } from "../client/server";
import type { Store } from "../state";
import type { Place, Way } from "./place";

/** What the page around the screens can do for them. */
export interface Page {
  /** Shows the audit in the main area. */
  openAudit(filter?: AuditFilter): void;
  /** Opens a new notebook with these code cells. */
  openNotebook(cells: string[]): void;
  /** Hands a file to the person. */
  save(name: string, content: Blob): void;
}

export interface Desk {
  api: Api;
  store: Store;
  page: Page;
  way: Way;
  line: { now(): Line; watch(onChange: () => void): () => void; retry(): void };
  /** The model that a person chose for the next turn of a session; "" for the session's own. */
  models: { chosen(session: string): string; choose(session: string, model: string): void };
}

export const DeskContext = createContext<Desk | null>(null);

export function useDesk(): Desk {
  const desk = useContext(DeskContext);
  if (!desk) throw new Error("This screen needs a page with a server.");
  return desk;
}

/** Where the sidebar is, drawn anew when that changes. */
export function usePlace(): [Place, Way["go"]] {
  const { way } = useDesk();
  const [, redraw] = useState(0);
  useEffect(() => way.watch(() => redraw((count) => count + 1)), [way]);
  return [way.place(), way.go];
}

export function useLine(): Line {
  const { line } = useDesk();
  const [, redraw] = useState(0);
  useEffect(() => line.watch(() => redraw((count) => count + 1)), [line]);
  return line.now();
}

/** Something that was asked for: its answer, or why there is none. */
export interface Asked<T> {
  value: T | undefined;
  refusal: Refusal | undefined;
  reading: boolean;
}

/** Asks when it appears and whenever one of ``causes`` changes; an answer that comes too late is dropped. */
export function useAsked<T>(ask: () => Promise<T>, causes: unknown[]): Asked<T> {
  const [asked, setAsked] = useState<Asked<T>>({ value: undefined, refusal: undefined, reading: true });
  useEffect(() => {
    let wanted = true;
    setAsked((before) => ({ ...before, reading: true }));
    ask().then(
      (value) => wanted && setAsked({ value, refusal: undefined, reading: false }),
      (error: unknown) => wanted && setAsked((before) => ({ ...before, refusal: refusalOf(error), reading: false })),
    );
    return () => {
      wanted = false;
    };
  }, causes);
  return asked;
}

/** Something that a person starts: whether it runs, and why it was not done. */
export function useDeed(): {
  running: boolean;
  refusal: Refusal | undefined;
  start(deed: () => Promise<void>): void;
} {
  const [running, setRunning] = useState(false);
  const [refusal, setRefusal] = useState<Refusal>();
  const shown = useRef(true);
  useEffect(
    () => () => {
      shown.current = false;
    },
    [],
  );
  const start = (deed: () => Promise<void>) => {
    if (running) return;
    setRunning(true);
    setRefusal(undefined);
    deed()
      .catch((error: unknown) => shown.current && setRefusal(refusalOf(error)))
      .finally(() => shown.current && setRunning(false));
  };
  return { running, refusal, start };
}

export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  return new Refusal(0, "unexpected", error instanceof Error ? error.message : String(error), "");
}
