// Puts a view on the screen with a client that this test speaks for.
import { act, type RenderResult, render } from "@testing-library/preact";
import userEvent, { type UserEvent } from "@testing-library/user-event";
import { vi } from "vitest";
import type { Client } from "../src/client";
import type { Approval, Command, Event } from "../src/protocol";
import { App, type View } from "../src/ui/app";
import { eventOf } from "./golden";

export interface Stage extends RenderResult {
  sent: Command[];
  user: UserEvent;
  /** Says events to the screen and waits until they are drawn. */
  say(...events: Event[]): Promise<void>;
  /** The commands of one type that were sent. */
  of<T extends Command["type"]>(type: T): Extract<Command, { type: T }>[];
}

/** A client whose Python side is the test. */
export function recorder(): { client: Client; sent: Command[]; emit(event: Event): void } {
  const sent: Command[] = [];
  const listeners = new Set<(event: Event) => void>();
  return {
    sent,
    emit: (event) => {
      for (const listener of listeners) listener(event);
    },
    client: {
      send: (command) => void sent.push(command),
      subscribe: (onEvent) => {
        listeners.add(onEvent);
        return () => listeners.delete(onEvent);
      },
    },
  };
}

export async function stage(view: View, ...events: Event[]): Promise<Stage> {
  const { client, sent, emit } = recorder();
  const shown = render(<App client={client} options={{ view, version: "0.1.0" }} />);
  const say = async (...more: Event[]) => {
    await act(async () => {
      for (const event of more) emit(event);
      await new Promise((drawn) => setTimeout(drawn, 40));
    });
  };
  const of: Stage["of"] = (type) => sent.filter((command) => command.type === type) as never;
  await say(eventOf("hello", "hello.event"), ...events);
  return { ...shown, sent, say, of, user: userEvent.setup({ delay: null }) };
}

/** The card of one request on the screen. */
export function card(approval: Approval, ...events: Event[]): Promise<Stage> {
  return stage({ kind: "approval", id: approval.id }, { type: "approval:response", seq: 1, approval }, ...events);
}

/** Lets a clipboard and windows be looked at. */
export function opened(): ReturnType<typeof vi.fn> {
  const open = vi.fn(() => null);
  vi.stubGlobal("open", open);
  return open;
}
