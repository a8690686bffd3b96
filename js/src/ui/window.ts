// Which rows of a long table are drawn: those in view, and some around them. A list may be as long as it likes.
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

/** Rows beyond either edge, and how many at a time come and go. */
const AROUND = 25;
const STEP = 20;
/** Rows that are drawn before it is known how high they are, or how high the view is. */
const FIRST = 60;

/** Rows `from` up to `to`, and the height of those left out above and below, in pixels. */
export interface Window {
  from: number;
  to: number;
  above: number;
  below: number;
}

interface View {
  from: number;
  rows: number;
  height: number;
}

/** A window on rows of one height, whose elements have `data-row`, in a box that scrolls. */
export function useWindow(count: number): { box: RefObject<HTMLElement | null>; shown: Window; look(): void } {
  const box = useRef<HTMLElement | null>(null);
  const [view, setView] = useState<View>({ from: 0, rows: FIRST, height: 0 });
  const look = () => {
    const next = box.current && viewOf(box.current);
    if (next) setView((before) => (isSame(before, next) ? before : next));
  };
  // rows that have come may be the first, and the view may have been moved by what went
  useLayoutEffect(look, [count]);
  useEffect(() => {
    if (!box.current || typeof ResizeObserver === "undefined") return;
    const observer = new ResizeObserver(look);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  return { box, shown: windowOf(view, count), look };
}

function viewOf(box: HTMLElement): View | null {
  const height = box.querySelector<HTMLElement>("[data-row]")?.offsetHeight ?? 0;
  if (height === 0 || box.clientHeight === 0) return null;
  const first = Math.floor(box.scrollTop / height) - AROUND;
  const rows = Math.ceil(box.clientHeight / height) + 2 * AROUND + STEP;
  return { from: Math.max(0, Math.floor(first / STEP) * STEP), rows, height };
}

function isSame(one: View, other: View): boolean {
  return one.from === other.from && one.rows === other.rows && one.height === other.height;
}

export function windowOf({ from, rows, height }: View, count: number): Window {
  const first = Math.min(from, Math.max(0, count - rows));
  const to = Math.min(count, first + rows);
  return { from: first, to, above: first * height, below: (count - to) * height };
}
