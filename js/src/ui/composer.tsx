// Where a person writes: Enter sends, arrows bring back what was said, Esc stops.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Chat } from "../state";
import { visible } from "./exact";
import { sessionPlace } from "./format";
import { keepKeys, useScreen } from "./screen";
import { t } from "./strings";
import { Failed } from "./text";

interface Props {
  chat: Chat;
  id: string;
  text: string;
  setText(text: string): void;
  onStop(): void;
  /** Counts how often the box should take the focus. */
  focus?: number;
}

export function Composer({ chat, id, text, setText, onStop, focus = 0 }: Props) {
  const { state, send } = useScreen();
  const box = useRef<HTMLTextAreaElement>(null);
  const [sentText, setSentText] = useState("");
  const recall = useRecall(chat, text, setText);
  const failure = state.failures[id];
  const closed = chat.session?.closed ?? false;
  useGrowing(box, text);
  useEffect(() => {
    if (focus > 0) box.current?.focus();
  }, [focus]);
  useEffect(() => {
    if (failure?.command === "chat:message" && text === "") setText(sentText);
  }, [failure]);

  const say = () => {
    const words = text.trim();
    if (!words || chat.busy || closed) return;
    send({ type: "chat:message", session: id, text: words });
    setSentText(words);
    setText("");
  };
  const onKeyDown = (event: KeyboardEvent) => {
    keepKeys(event);
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      say();
    } else if (event.key === "Escape" && chat.busy) {
      event.preventDefault();
      onStop();
    } else {
      recall(event);
    }
  };
  const target = chat.session ? sessionPlace(chat.session) || t("chat.no.target") : "";
  return (
    <div class="oa-composer">
      {failure && <Failed failure={failure} role="alert" />}
      <div class="oa-row">
        <textarea
          ref={box}
          rows={1}
          value={text}
          disabled={closed}
          aria-label={t("chat.message")}
          placeholder={closed ? t("chat.closed") : visible(t("chat.placeholder", { target }))}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        {chat.busy ? (
          <button type="button" class="oa-stop" onClick={onStop}>
            {t("chat.stop")}
          </button>
        ) : (
          <button type="button" class="oa-primary" aria-disabled={!text.trim() || closed} onClick={say}>
            {t("chat.send")}
          </button>
        )}
      </div>
    </div>
  );
}

/** Arrow up on the first line brings back what was said before; arrow down goes forward again. */
function useRecall(chat: Chat, text: string, setText: (text: string) => void): (event: KeyboardEvent) => void {
  const [back, setBack] = useState(0);
  const [draft, setDraft] = useState("");
  const said = chat.messages.filter((message) => message.role === "user").map((message) => message.text);
  const go = (steps: number) => {
    if (steps < 0 || steps > said.length) return;
    if (back === 0) setDraft(text);
    setBack(steps);
    setText(steps === 0 ? draft : (said[said.length - steps] ?? ""));
  };
  return (event) => {
    const { selectionStart, value } = event.currentTarget as HTMLTextAreaElement;
    const firstLine = !value.slice(0, selectionStart).includes("\n");
    const lastLine = !value.slice(selectionStart).includes("\n");
    if (event.key === "ArrowUp" && firstLine && said.length > 0) {
      event.preventDefault();
      go(back + 1);
    } else if (event.key === "ArrowDown" && lastLine && back > 0) {
      event.preventDefault();
      go(back - 1);
    } else if (event.key === "Enter") {
      setBack(0);
    }
  };
}

function useGrowing(box: { current: HTMLTextAreaElement | null }, text: string): void {
  // measured anew when the text changes
  useLayoutEffect(() => {
    if (!box.current) return;
    box.current.style.height = "auto";
    box.current.style.height = `${Math.min(box.current.scrollHeight + 2, 160)}px`;
  }, [text]);
}
