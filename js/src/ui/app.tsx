// A view with a store of its own, as a notebook cell shows it.
import { useLayoutEffect, useMemo } from "preact/hooks";
import type { Client } from "../client";
import type { Command } from "../protocol";
import { createStore } from "../state";
import { ApprovalList } from "./approvals";
import { ApprovalById } from "./card";
import { ChatPanel } from "./chat";
import { Frame } from "./frame";
import { TurnView } from "./turn";

/** What to draw. An empty session starts a new one. */
export type View =
  | { kind: "chat"; session: string }
  | { kind: "turn"; session: string; turn: string }
  | { kind: "approval"; id: string }
  | { kind: "approvals" };

export interface Options {
  view: View;
  /** The release this screen belongs to; "" when it is always Python's own. */
  version: string;
}

export function App({ client, options }: { client: Client; options: Options }) {
  const store = useMemo(() => createStore(client), [client]);
  // A layout effect, because its end is not put off: leaving is said before the cell is gone.
  useLayoutEffect(() => {
    for (const command of first(options)) store.send(command);
    return () => {
      for (const command of last(options.view)) store.send(command);
      store.close();
    };
  }, [store]);
  return (
    <Frame store={store} version={options.version}>
      <Body view={options.view} />
    </Frame>
  );
}

/** What a view asks for when it appears; on re-opening this is what attaches it again. A card asks by its own id. */
function first({ view, version }: Options): Command[] {
  const hello: Command = { type: "hello", version, since: 0 };
  const watch: Command = { type: "approval:subscribe" };
  if (view.kind === "approval") return [hello];
  if (view.kind === "approvals") return [hello, watch];
  return [hello, { type: "chat:join", session: view.session, since: 0 }, watch];
}

function last(view: View): Command[] {
  const unwatch: Command = { type: "approval:unsubscribe" };
  if (view.kind === "approval") return [];
  if (view.kind === "approvals" || !view.session) return [unwatch];
  return [{ type: "chat:leave", session: view.session }, unwatch];
}

function Body({ view }: { view: View }) {
  switch (view.kind) {
    case "chat":
      return <ChatPanel session={view.session} />;
    case "turn":
      return <TurnView session={view.session} turn={view.turn} />;
    case "approval":
      return <ApprovalById id={view.id} />;
    default:
      return <ApprovalList />;
  }
}
