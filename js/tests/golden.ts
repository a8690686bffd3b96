// The golden files, which the Python tests read too.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Approval, Command, Event } from "../src/protocol";

const FOLDER = join(import.meta.dirname, "../../tests/conformance/protocol");

/** One side's files by their names without the ending. */
export function files(side: "good" | "bad"): [string, unknown][] {
  const folder = join(FOLDER, side);
  const names = readdirSync(folder).filter((name) => name.endsWith(".json"));
  return names.map((name) => [name.slice(0, -5), JSON.parse(readFileSync(join(folder, name), "utf8"))]);
}

const GOOD = new Map(files("good"));

export function event(name: string): Event {
  return (GOOD.get(name) as { event: Event }).event;
}

/** The event of a golden file, with its type known. */
export function eventOf<T extends Event["type"]>(type: T, name: string): Extract<Event, { type: T }> {
  const found = event(name);
  if (found.type !== type) throw new Error(`${name} is a ${found.type}`);
  return found as Extract<Event, { type: T }>;
}

export function command(name: string): Command {
  return (GOOD.get(name) as { command: Command }).command;
}

/** A request in a state; its times are moved so that it still has half an hour. */
export function approval(name: string, changes: Partial<Approval> = {}): Approval {
  const found = eventOf("approval:response", `approval.response.${name}`).approval;
  return { ...found, expires_at: new Date(Date.now() + 1_800_000).toISOString(), ...changes };
}
