// The frame of every view: the store, the connection's first words, and the voice for screen readers.
import { Component, type ComponentChildren } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Client } from "../client";
import type { Command } from "../protocol";
import { createStore } from "../state";
import { ApprovalList } from "./approvals";
import { ApprovalById } from "./card";
import { ChatPanel } from "./chat";
import { ScreenContext } from "./screen";
import { t } from "./strings";
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
  const [state, setState] = useState(store.state());
  const voice = useVoice();
  // A layout effect, because its end is not put off: leaving is said before the cell is gone.
  useLayoutEffect(() => {
    const stop = store.watch(() => setState(store.state()));
    for (const command of first(options)) store.send(command);
    return () => {
      for (const command of last(options.view)) store.send(command);
      stop();
      store.close();
    };
  }, [store]);

  const screen = { state, send: store.send, announce: voice.announce };
  const python = state.welcome?.version ?? "";
  const mismatch = options.version !== "" && python !== "" && python !== options.version;
  return (
    <ScreenContext.Provider value={screen}>
      {mismatch && (
        <p class="oa-warn" role="alert">
          {t("app.versions", { page: options.version, python })}
        </p>
      )}
      <Boundary>
        <Body view={options.view} />
      </Boundary>
      <div class="oa-sr" role="status" aria-live="polite">
        {voice.lines.map((line) => (
          <p key={line.key}>{line.text}</p>
        ))}
      </div>
    </ScreenContext.Provider>
  );
}

/** What a view asks for when it appears; on re-opening this is what attaches it again. A card asks by its own id. */
function first({ view, version }: Options): Command[] {
  const hello: Command = { type: "hello", version };
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

interface Line {
  key: number;
  text: string;
}

/** The last sentences that were announced; several at once are all read. */
function useVoice(): { lines: Line[]; announce(text: string): void } {
  const [lines, setLines] = useState<Line[]>([]);
  const count = useRef(0);
  const announce = (text: string) => {
    count.current += 1;
    const line = { key: count.current, text };
    setLines((held) => [...held.slice(-3), line]);
  };
  return { lines, announce };
}

/** A view that cannot be drawn says so, instead of leaving an empty cell. */
class Boundary extends Component<{ children: ComponentChildren }, { message: string }> {
  override state = { message: "" };

  override componentDidCatch(error: unknown): void {
    this.setState({ message: error instanceof Error ? error.message : String(error) });
  }

  override render() {
    if (!this.state.message) return this.props.children;
    return (
      <p class="oa-warn" role="alert">
        {t("app.broken", { message: this.state.message })}
      </p>
    );
  }
}
