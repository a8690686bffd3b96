// What stands around every view: the state of its store, the versions, and the voice for screen readers.
import { Component, type ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Store } from "../state";
import { visible } from "./exact";
import { ScreenContext } from "./screen";
import { t } from "./strings";
import { Exact } from "./text";

interface Props {
  store: Store;
  /** The release this screen belongs to; "" when it is always Python's own. */
  version: string;
  /** Puts a command into a notebook cell, where there is one. */
  insert?: (code: string) => void;
  children: ComponentChildren;
}

export function Frame({ store, version, insert, children }: Props) {
  const [state, setState] = useState(store.state());
  const voice = useVoice();
  // before the first command is sent, so that no answer is missed
  useLayoutEffect(() => {
    setState(store.state());
    return store.watch(() => setState(store.state()));
  }, [store]);

  const screen = { state, send: store.send, forget: store.forget, announce: voice.announce, insert };
  const python = state.welcome?.version ?? "";
  const mismatch = version !== "" && python !== "" && python !== version;
  return (
    <ScreenContext.Provider value={screen}>
      {mismatch && (
        <p class="oa-warn" role="alert">
          <Exact text={t("app.versions", { page: version, python })} />
        </p>
      )}
      <Boundary>{children}</Boundary>
      <div class="oa-sr" role="status" aria-live="polite">
        {voice.lines.map((line) => (
          <p key={line.key}>{line.text}</p>
        ))}
      </div>
    </ScreenContext.Provider>
  );
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
    const line = { key: count.current, text: visible(text) };
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
        <Exact text={t("app.broken", { message: this.state.message })} />
      </p>
    );
  }
}
