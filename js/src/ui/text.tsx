// Text of databases and tools: always text nodes, with nothing hidden in them.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { Failure, Target } from "../protocol";
import { type Piece, pieces } from "./exact";
import { isLevel, rank } from "./format";
import { t } from "./strings";

function Marked({ piece }: { piece: Piece }) {
  switch (piece.mark) {
    case "plain":
      return <>{piece.shown}</>;
    case "keyword":
      return <b>{piece.shown}</b>;
    case "hidden":
      return (
        <mark class="oa-hidden" title={t("card.hidden", { code: piece.code })}>
          {piece.shown}
        </mark>
      );
    case "lookalike":
      return (
        <mark class="oa-lookalike" title={t("card.lookalike", { code: piece.code })}>
          {piece.shown}
        </mark>
      );
    default:
      return (
        <span class="oa-foreign" title={piece.code}>
          {piece.shown}
        </span>
      );
  }
}

/** A text exactly as it is; invisible and reordering characters appear as their codes. */
export function Exact({ text, sql = false }: { text: string; sql?: boolean }) {
  const parts = pieces(text, sql);
  return (
    <bdi dir="ltr">
      {parts.map((piece, index) => (
        <Marked key={index} piece={piece} />
      ))}
    </bdi>
  );
}

/** A statement to be decided on: whole, in fixed width, with a word on whatever in it could deceive. */
export function Statement({ text, label }: { text: string; label: string }) {
  const parts = pieces(text, true);
  const lines = text.split("\n").length;
  return (
    <figure class="oa-statement">
      <figcaption>
        <span>{label}</span>
        {lines > 3 && <span class="oa-muted">{t("card.lines", { n: lines })}</span>}
        <Copy text={text} />
      </figcaption>
      <pre class="oa-sql" dir="ltr">
        <code>
          {parts.map((piece, index) => (
            <Marked key={index} piece={piece} />
          ))}
        </code>
      </pre>
      <Deceptions parts={parts} />
    </figure>
  );
}

function Deceptions({ parts }: { parts: Piece[] }) {
  const of = (mark: Piece["mark"]) => parts.filter((piece) => piece.mark === mark);
  const [hidden, lookalike, foreign] = [of("hidden"), of("lookalike"), of("foreign")];
  const list = [...new Set(lookalike.map((piece) => `${piece.source} ${piece.code}`))].slice(0, 8).join(", ");
  return (
    <>
      {hidden.length > 0 && <p class="oa-warn">{t("card.exact.hidden", { n: hidden.length })}</p>}
      {lookalike.length > 0 && (
        <p class="oa-warn">
          <Exact text={t("card.exact.lookalike", { n: lookalike.length, list })} />
        </p>
      )}
      {foreign.length > 0 && <p class="oa-muted oa-small">{t("card.exact.foreign")}</p>}
    </>
  );
}

export function Copy({ text }: { text: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 2000);
  };
  return (
    <button type="button" class="oa-quiet" onClick={() => void copy().catch(() => setDone(false))}>
      {t(done ? "copied" : "copy")}
    </button>
  );
}

const MARKS = ["○", "▲", "▲▲", "▲▲▲"];

/** A level in shape, word and colour, so that none of the three has to be seen; one that is not known looks critical. */
export function RiskBadge({ risk }: { risk: string }) {
  const known = isLevel(risk);
  return (
    <span class={`oa-risk oa-is-${known ? risk : "critical"}`}>
      <span aria-hidden="true">{MARKS[rank(risk)]} </span>
      <span class="oa-sr">{t("risk.label", { risk: "" })}</span>
      {known ? t(`risk.${risk}`) : <Exact text={risk} />}
    </span>
  );
}

export function EnvironmentBadge({ environment }: { environment: Target["environment"] }) {
  return <span class={`oa-env oa-env-${environment}`}>{t(`environment.${environment}`)}</span>;
}

/** Why a command was not done; the words may hold a database's own. */
export function Failed({ failure, role }: { failure: Failure; role?: "alert" | "status" }) {
  const { message, hint } = failure;
  return (
    <p class="oa-warn" role={role}>
      <Exact text={t("decide.error", { message, hint })} />
    </p>
  );
}

/** One line of a list of facts; nothing when there is nothing to say. */
export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  if (children === "" || children === null || children === undefined || children === false) return null;
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}
