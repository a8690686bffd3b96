// One line for each tool call, with its rows on demand and its card when a person has to decide.
import { useState } from "preact/hooks";
import type { Approval, CallRecord } from "../protocol";
import { ApprovalById } from "./card";
import { Lines, Pairs } from "./facts";
import { asCommand, duration } from "./format";
import { Insert } from "./insert";
import { ResultView } from "./result";
import { useScreen } from "./screen";
import { t } from "./strings";
import { Exact, Fact, Failed, RiskBadge } from "./text";

const SIGNS: Record<CallRecord["status"], string> = {
  running: "◌",
  succeeded: "✓",
  failed: "✕",
  refused: "⊘",
  waiting: "…",
  unknown: "?",
  cancelled: "–",
};

type Use = (text: string) => void;

export function CallLine({ call, onUse }: { call: CallRecord; onUse?: Use }) {
  const { state, send } = useScreen();
  const [open, setOpen] = useState(false);
  const id = call.approval || (state.requests[call.id] ?? "");
  const approval = state.approvals[id];
  const { status, summary } = current(call, approval);
  const toggle = (isOpen: boolean) => {
    setOpen(isOpen);
    const wanted = isOpen && status === "succeeded" && !state.results[call.id];
    if (wanted) send({ type: "result:get", call: call.id });
  };
  return (
    <div class="oa-call">
      <details onToggle={(event) => toggle(event.currentTarget.open)}>
        <summary>
          <span class={`oa-sign oa-call-${status}`} aria-hidden="true">
            {SIGNS[status]}
          </span>
          <span class="oa-sr">{t(`call.${status}`)}</span>
          <code>
            <Exact text={call.tool.split(".").at(-1) ?? call.tool} />
          </code>
          <span class="oa-grow oa-muted oa-ellipsis">{summary ? <Exact text={summary} /> : t(`call.${status}`)}</span>
          <RiskBadge risk={call.risk} />
          {call.milliseconds > 0 && <span class="oa-muted oa-num">{duration(call.milliseconds)}</span>}
        </summary>
        {open && <Details call={call} onUse={onUse} />}
      </details>
      {id && <ApprovalById id={id} />}
    </div>
  );
}

const ENDS: Partial<Record<Approval["state"], CallRecord["status"]>> = {
  pending: "waiting",
  approved: "waiting",
  executing: "running",
  succeeded: "succeeded",
  failed: "failed",
  unknown: "unknown",
};

/** A transcript may hold a call as it began or as it waited; its request knows better. */
function current(call: CallRecord, approval?: Approval): Pick<CallRecord, "status" | "summary"> {
  if (!approval || !["running", "waiting", "unknown"].includes(call.status)) return call;
  return { status: ENDS[approval.state] ?? "refused", summary: approval.effect?.summary ?? "" };
}

function Details({ call, onUse }: { call: CallRecord; onUse?: Use }) {
  const { state } = useScreen();
  const result = state.results[call.id];
  const failure = state.failures[call.id];
  return (
    <div class="oa-call-body">
      {call.summary && (
        <p>
          <Exact text={call.summary} />
        </p>
      )}
      <dl class="oa-facts">
        <Fact name={t("card.target")}>{call.instance && <Exact text={call.instance} />}</Fact>
        <Fact name={t("card.arguments")}>
          {Object.keys(call.arguments).length > 0 && <Pairs values={call.arguments} />}
        </Fact>
        <Fact name={t("call.requested")}>{call.requested && <Exact text={call.requested} />}</Fact>
        <Fact name={t("card.risk")}>{call.reasons.length > 0 && <Lines lines={call.reasons} />}</Fact>
        <Fact name={t("call.error")}>{call.error_code && <Exact text={call.error_code} />}</Fact>
      </dl>
      <Insert command={asCommand(call.tool, { ...(call.instance ? { on: call.instance } : {}), ...call.arguments })} />
      {result && <ResultView result={result} onUse={onUse} />}
      {failure && <Failed failure={failure} />}
      {!result && !failure && call.status === "succeeded" && <p class="oa-muted">{t("call.reading")}</p>}
    </div>
  );
}
