// The queue: open requests, one line each, the card on demand.
import { useEffect, useState } from "preact/hooks";
import type { Approval } from "../protocol";
import { isOpen } from "../state";
import { ApprovalCard } from "./card";
import { countdown, person, place, rank } from "./format";
import { StateChip } from "./outcome";
import { useNow, useScreen } from "./screen";
import { t } from "./strings";
import { EnvironmentBadge, Exact, RiskBadge } from "./text";

/** Open requests, the gravest first, then the oldest. */
export function queue(approvals: Record<string, Approval>): Approval[] {
  return Object.values(approvals)
    .filter(isOpen)
    .sort((a, b) => rank(b.risk) - rank(a.risk) || Date.parse(a.created_at) - Date.parse(b.created_at));
}

/** ``chosen`` is a request that somebody asked for elsewhere on the page. */
export function ApprovalList({ chosen = "" }: { chosen?: string }) {
  const { state } = useScreen();
  const [opened, setOpened] = useState(chosen);
  useEffect(() => {
    if (chosen) setOpened(chosen);
  }, [chosen]);
  const open = queue(state.approvals);
  const shown = state.approvals[opened];
  return (
    <section class="oa-list" aria-label={t("list.title")}>
      <h2>
        {t("list.title")} · {open.filter((approval) => approval.state === "pending").length}
      </h2>
      {open.length === 0 && state.lists > 0 && <p class="oa-muted">{t("list.none")}</p>}
      <ul>
        {open.map((approval) => (
          <li key={approval.id}>
            <Line
              approval={approval}
              isOpen={approval.id === opened}
              onToggle={() => setOpened(approval.id === opened ? "" : approval.id)}
            />
          </li>
        ))}
      </ul>
      {shown && <ApprovalCard key={opened} approval={shown} />}
    </section>
  );
}

function Line(props: { approval: Approval; isOpen: boolean; onToggle(): void }) {
  const { approval } = props;
  const pending = approval.state === "pending";
  const left = Date.parse(approval.expires_at) - useNow(pending);
  return (
    <div class="oa-line">
      <div class="oa-row">
        <span class="oa-grow">
          <Exact text={approval.plan.title} />
        </span>
        <button type="button" aria-expanded={props.isOpen} onClick={props.onToggle}>
          {t(props.isOpen ? "list.close" : "list.open")}
        </button>
      </div>
      <div class="oa-row oa-small">
        <RiskBadge risk={approval.risk} />
        <EnvironmentBadge environment={approval.target.environment} />
        <span class="oa-muted">
          <Exact text={`${place(approval.target)} · ${person(approval.requester)}`} />
          {pending && ` · ${t("list.left", { left: countdown(left) })}`}
        </span>
        {!pending && <StateChip state={approval.state} />}
      </div>
    </div>
  );
}
