// A secret that a call has made: asked for by a click, shown to this screen alone, and gone from it when it is hidden.
import { useEffect } from "preact/hooks";
import type { Approval } from "../protocol";
import { useScreen } from "./screen";
import { t } from "./strings";
import { Copy } from "./text";

/** Offers the secret to who may see it, and shows it once it came; otherwise nothing. */
export function OneTimeSecret({ approval }: { approval: Approval }) {
  const { state, send, forget, announce } = useScreen();
  const { id } = approval;
  const text = state.secrets[id];
  // a card that is taken away shows nothing when it comes back
  useEffect(() => () => forget(id), [id]);
  // said without the secret: whoever listens may not be alone
  useEffect(() => {
    if (text) announce(t("secret.announced"));
  }, [text]);
  if (text) return <Shown text={text} onHide={() => forget(id)} />;
  if (!isOffered(approval, state.welcome?.actor.id)) return null;
  const waiting = text !== undefined;
  return (
    <div class="oa-row oa-secret">
      <button
        type="button"
        data-secret="reveal"
        aria-disabled={waiting}
        aria-busy={waiting}
        onClick={() => !waiting && send({ type: "secret:reveal", id })}
      >
        {t(waiting ? "secret.asking" : "secret.reveal")}
      </button>
      <span class="oa-muted">{t("secret.once")}</span>
    </div>
  );
}

function Shown({ text, onHide }: { text: string; onHide(): void }) {
  return (
    <div class="oa-row oa-secret">
      <span>{t("secret.label")}</span>
      <code class="oa-secret-text" translate={false}>
        {text}
      </code>
      <Copy text={text} />
      <button type="button" onClick={onHide}>
        {t("secret.hide")}
      </button>
      <span class="oa-muted">{t("secret.last")}</span>
    </div>
  );
}

/** Python checks it again: this only spares others a button that is refused. */
function isOffered({ state, evidence, requester, decided_by }: Approval, actor: string | undefined): boolean {
  return state === "succeeded" && evidence.secret === "kept" && (actor === requester.id || actor === decided_by?.id);
}
