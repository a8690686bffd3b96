// The client of a notebook cell: commands and events are custom messages of the widget's comm.
import type { Client } from "../client";
import { type Event, type Told, WIRE } from "../protocol";

/** What is used of a widget's model. */
export interface Channel {
  send(content: unknown): void;
  on(name: "msg:custom", callback: (content: unknown) => void): void;
  off(name: "msg:custom", callback: (content: unknown) => void): void;
}

function isTold(content: unknown): content is Told {
  const told = content as Partial<Told> | null;
  return told?.v === WIRE && typeof told.event?.type === "string";
}

export function connect(channel: Channel): Client {
  return {
    send(command) {
      try {
        channel.send({ v: WIRE, command });
      } catch {
        // a dead comm: the silence is noticed by whoever waits for the answer
      }
    },
    subscribe(onEvent: (event: Event) => void) {
      const onMessage = (content: unknown) => {
        if (isTold(content)) onEvent(content.event);
      };
      channel.on("msg:custom", onMessage);
      return () => channel.off("msg:custom", onMessage);
    },
  };
}
