// One turn, as it streams below the cell that asked.
import { useScreen } from "./screen";
import { t } from "./strings";
import { isGoingOn, Transcript } from "./transcript";

export function TurnView({ session, turn }: { session: string; turn: string }) {
  const { state, send } = useScreen();
  const chat = state.chats[session];
  if (!chat?.session) {
    return (
      <p class="oa-muted" role="status">
        {t("chat.connecting")}
      </p>
    );
  }
  const running = isGoingOn(chat, turn);
  const stop = () => send({ type: "chat:cancel", session });
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: Esc stops from wherever the focus is inside
    <div class="oa-one-turn" onKeyDown={(event) => running && event.key === "Escape" && stop()}>
      <Transcript chat={chat} turn={turn} />
      {running && (
        <button type="button" class="oa-stop" onClick={stop}>
          {t("chat.stop")}
        </button>
      )}
    </div>
  );
}
