// What became of a request: who decided, when, and how it ended, in words.
import type { Approval, ApprovalState } from "../protocol";
import { Lines, Pairs } from "./facts";
import { duration, told } from "./format";
import { ResultView, Suggestions } from "./result";
import { OneTimeSecret } from "./secret";
import { t } from "./strings";
import { Exact, Fact } from "./text";

const SIGNS: Record<ApprovalState, string> = {
  pending: "○",
  approved: "✓",
  executing: "◌",
  succeeded: "✓",
  failed: "✕",
  unknown: "?",
  rejected: "✕",
  expired: "–",
  withdrawn: "–",
  superseded: "–",
  revoked: "–",
  stale: "–",
};

export function StateChip({ state }: { state: ApprovalState }) {
  return (
    <span class={`oa-state oa-state-is-${state}`}>
      <span aria-hidden="true" class="oa-sign">
        {SIGNS[state]}
      </span>{" "}
      {t(`state.${state}`)}
    </span>
  );
}

export function Outcome({ approval }: { approval: Approval }) {
  const { effect, state } = approval;
  const kept = state !== "rejected" && state !== "withdrawn" && state !== "revoked" && approval.reason;
  return (
    <div class="oa-outcome">
      <p>
        <Exact text={told(approval)} />
        {took(approval) && <span class="oa-muted oa-num"> ({took(approval)})</span>}
      </p>
      {kept && (
        <p class="oa-muted">
          <Exact text={t("told.reason", { reason: approval.reason })} />
        </p>
      )}
      <dl class="oa-facts">
        <Fact name={t("told.residue")}>{effect && effect.residue.length > 0 && <Lines lines={effect.residue} />}</Fact>
        <Fact name={t("told.evidence")}>
          {state === "unknown" && Object.keys(approval.evidence).length > 0 && <Pairs values={approval.evidence} />}
        </Fact>
      </dl>
      <OneTimeSecret approval={approval} />
      {effect?.result && <ResultView result={effect.result} />}
      {effect && <Suggestions suggestions={effect.suggestions} />}
    </div>
  );
}

function took(approval: Approval): string {
  if (!approval.claimed_at || !approval.ended_at || approval.state === "unknown") return "";
  const milliseconds = Date.parse(approval.ended_at) - Date.parse(approval.claimed_at);
  return milliseconds >= 0 ? t("told.took", { duration: duration(milliseconds) }) : "";
}
