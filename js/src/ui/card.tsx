// The approval card: everything a person needs to decide one call, and what became of it.
import { useEffect, useState } from "preact/hooks";
import type { Approval } from "../protocol";
import { isOpen } from "../state";
import { Answer, Decision, type DecisionForm, Resolution, Revocation, useDecision, useSilence } from "./decision";
import { visible } from "./exact";
import { Facts, PlanBars } from "./facts";
import { clock, countdown, person, place, short, told } from "./format";
import { fromDatabases, Origins } from "./origins";
import { Outcome, StateChip } from "./outcome";
import { useNow, useScreen } from "./screen";
import { t } from "./strings";
import { EnvironmentBadge, Exact, RiskBadge, Statement } from "./text";

/** The card of a request that is known by its id; asks for it, and again after a new start if no answer came. */
export function ApprovalById({ id }: { id: string }) {
  const { state, send } = useScreen();
  const approval = state.approvals[id];
  const settled = approval !== undefined && !isOpen(approval);
  // what a new list of open requests no longer holds, the store asks for by itself
  useEffect(() => {
    if (!settled) send({ type: "approval:get", id });
  }, [id, approval ? 0 : state.lists]);
  if (approval) return <ApprovalCard approval={approval} />;
  const failure = state.failures[id];
  return (
    <p class="oa-card oa-loading" role="status">
      {failure ? <Exact text={`${failure.message} ${failure.hint}`} /> : t("card.loading", { id: short(id) })}
    </p>
  );
}

export function ApprovalCard({ approval }: { approval: Approval }) {
  const { id, state } = approval;
  const silent = useSilence(id);
  const form = useDecision(approval, silent);
  const pending = state === "pending";
  useAnnouncements(approval);
  return (
    // the card owns its shortcuts while it has the focus
    <article
      class={`oa-card oa-is-${approval.risk} oa-card-${state}`}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: see above
      tabIndex={0}
      aria-label={label(approval)}
      aria-keyshortcuts={pending ? "A R" : undefined}
      onKeyDown={(event) => pending && shortcut(event, form)}
    >
      <Header approval={approval} />
      {pending ? <Proposal approval={approval} /> : <Folded approval={approval} />}
      {pending && <Decision form={form} />}
      {state === "approved" && <Revocation approval={approval} silent={silent} />}
      {state === "unknown" && <Resolution approval={approval} silent={silent} />}
      {!pending && state !== "approved" && state !== "unknown" && <Answer id={id} silent={silent} />}
    </article>
  );
}

/** Single keys work while the card itself has the focus, not a field or a button in it. */
function shortcut(event: KeyboardEvent, form: DecisionForm): void {
  if (event.target !== event.currentTarget) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const choice = { a: "approve", r: "reject" }[event.key.toLowerCase()] as "approve" | "reject" | undefined;
  if (!choice) return;
  event.preventDefault();
  event.stopPropagation();
  form.key(choice);
}

function label(approval: Approval): string {
  return t("card.label", {
    id: short(approval.id),
    risk: t(`risk.${approval.risk}`),
    environment: t(`environment.${approval.target.environment}`),
    state: t(`state.${approval.state}`),
    title: visible(approval.plan.title),
  });
}

/** Says a new request, each later state, and the last minute, once each. */
function useAnnouncements(approval: Approval): void {
  const { announce } = useScreen();
  const { state, plan } = approval;
  // said once for each state
  useEffect(() => {
    announce(state === "pending" ? question(approval) : `${plan.title}. ${t(`state.${state}`)}. ${told(approval)}`);
  }, [state]);
  // one timer for each request
  useEffect(() => {
    const left = Date.parse(approval.expires_at) - Date.now() - 60_000;
    if (state !== "pending" || left <= 0 || left >= 2 ** 31) return;
    const timer = setTimeout(() => announce(t("card.minute", { title: plan.title })), left);
    return () => clearTimeout(timer);
  }, [state, approval.expires_at]);
}

function question(approval: Approval): string {
  const tainted = fromDatabases(approval);
  const asked = t("card.new", {
    title: approval.plan.title,
    risk: t(`risk.${approval.risk}`),
    environment: t(`environment.${approval.target.environment}`),
    target: place(approval.target),
  });
  return tainted > 0 ? `${asked} ${t("origin.announced", { n: tainted })}` : asked;
}

function Header({ approval }: { approval: Approval }) {
  const { id, plan, risk, target, state, use_by } = approval;
  return (
    <header class="oa-card-head">
      <div class="oa-row">
        <h3>
          <Exact text={plan.title} />
        </h3>
        <RiskBadge risk={risk} />
        <span class="oa-grow" />
        {state === "pending" && <TimeLeft id={id} until={approval.expires_at} text="card.expires" />}
        {state === "approved" && use_by && <TimeLeft id={id} until={use_by} text="card.use.by" />}
        {state !== "pending" && <StateChip state={state} />}
      </div>
      <div class="oa-row">
        <EnvironmentBadge environment={target.environment} />
        <strong>
          <Exact text={place(target)} />
        </strong>
        <code class="oa-muted">
          <Exact text={approval.tool} />
        </code>
      </div>
      {state !== "pending" && <Outcome approval={approval} />}
    </header>
  );
}

/** Time left by this computer's clock. At zero Python is asked: it decides by the store's. */
function TimeLeft({ id, until, text }: { id: string; until: string; text: "card.expires" | "card.use.by" }) {
  const { send } = useScreen();
  const left = Date.parse(until) - useNow(true);
  const over = left <= 0;
  // asked once, when the time is up
  useEffect(() => {
    if (over) send({ type: "approval:get", id });
  }, [over]);
  return (
    <span
      class={`oa-num ${left < 60_000 ? "oa-urgent" : "oa-muted"}`}
      role="timer"
      aria-live="off"
      title={t("card.expires.title", { time: clock(until) })}
    >
      {over ? t("card.overdue") : t(text, { left: countdown(left) })}
    </span>
  );
}

/** What is asked: the exact statements and what they would do. */
function Proposal({ approval }: { approval: Approval }) {
  const { plan } = approval;
  const total = plan.statements.length;
  return (
    <div class="oa-card-body">
      {plan.statements.map((text, index) => (
        <Statement
          key={text}
          text={text}
          label={total === 1 ? t("card.statement") : t("card.statements", { n: index + 1, total })}
        />
      ))}
      <Origins approval={approval} />
      {plan.cautions.length > 0 && (
        <ul class="oa-cautions" aria-label={t("card.cautions")}>
          {plan.cautions.map((caution) => (
            <li key={caution}>
              <Exact text={caution} />
            </li>
          ))}
        </ul>
      )}
      <Facts approval={approval} />
      {plan.comparison && <PlanBars comparison={plan.comparison} />}
      <Origin approval={approval} />
    </div>
  );
}

/** A decided request is folded to its head; what was asked stays one click away. */
function Folded({ approval }: { approval: Approval }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="oa-folded" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{t("card.asked")}</summary>
      {open && <Proposal approval={approval} />}
    </details>
  );
}

/** Who asked, under which id and digest, and what an approval is worth here. */
function Origin({ approval }: { approval: Approval }) {
  const { welcome } = useScreen().state;
  const setup = approval.setup as "personal" | "separated" | "team";
  const claim = welcome?.setup === setup ? welcome.claim : t(`claim.${setup}`);
  const digest = `${approval.digest.slice(0, 12)}…`;
  const requested = t("card.requested", { name: person(approval.requester), time: clock(approval.created_at) });
  return (
    <p class="oa-origin">
      <Exact text={requested} /> · <span title={approval.id}>{t("card.request", { id: short(approval.id) })}</span> ·{" "}
      <span title={t("card.digest.title", { digest: approval.digest })}>{t("card.digest", { digest })}</span> ·{" "}
      <Exact text={t("card.tool", { version: approval.tool_version })} /> ·{" "}
      <Exact text={t("card.setup", { setup, claim })} />
    </p>
  );
}
