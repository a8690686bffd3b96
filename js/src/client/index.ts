// A client is the only thing that differs from host to host: it carries commands to Python and events back.
import type { Command, Event } from "../protocol";

export interface Client {
  /** Hands a command over; never throws and never waits: an answer, or a failure, is an event. */
  send(command: Command): void;
  /** Calls back for each event, in order, until the returned function is called. */
  subscribe(onEvent: (event: Event) => void): () => void;
}
