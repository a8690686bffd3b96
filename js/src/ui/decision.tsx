// How a person decides. Approve is never the default: Enter in a field decides nothing, and for high and critical calls
// the order is reason, Reject, Approve, and no single key approves.
import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Approval, Failure, Respond } from "../protocol";
import { visible } from "./exact";
import { isCritical, isGuarded, isReason, place } from "./format";
import { keepKeys, useScreen } from "./screen";
import { t } from "./strings";
import { Exact } from "./text";

/** After this long without an answer the person may try again, in milliseconds. */
const PATIENCE = 5000;

type Choice = Respond["decision"];
type Missing = "" | "reason" | "confirm";

export interface DecisionForm {
  approval: Approval;
  reason: string;
  setReason(text: string): void;
  confirm: string;
  setConfirm(text: string): void;
  complaint: string;
  fields: Record<"reason" | "confirm" | "approve" | "reject", RefObject<HTMLElement | null>>;
  /** Whether a decision was sent and nothing came back for a while. */
  silent: boolean;
  decide(choice: Choice): void;
  /** Acts on a shortcut: decides a medium call, and only moves the focus for a graver one. */
  key(choice: "approve" | "reject"): void;
}

/** What an approval still needs: a critical one a reason, and the target's name typed by hand. */
function missing(approval: Approval, reason: string, confirm: string): Missing {
  if (!isCritical(approval.risk)) return "";
  if (!isReason(reason)) return "reason";
  return confirm.trim() === approval.target.instance ? "" : "confirm";
}

function complaintOf(what: Missing, approval: Approval): string {
  if (what === "reason") return t("decide.reason.short");
  return what === "confirm" ? t("decide.confirm.missing", { name: approval.target.instance }) : "";
}

/** What the person has entered so far, and the ways to decide; it lives in the card, whose shortcuts use it too. */
export function useDecision(approval: Approval, silent: boolean): DecisionForm {
  const screen = useScreen();
  const [reason, setReason] = useState("");
  const [confirm, setConfirm] = useState("");
  const [complaint, setComplaint] = useState("");
  const fields = {
    reason: useRef<HTMLElement>(null),
    confirm: useRef<HTMLElement>(null),
    approve: useRef<HTMLElement>(null),
    reject: useRef<HTMLElement>(null),
  };
  const lacks = missing(approval, reason, confirm);
  const decide = (choice: Choice) => {
    if (screen.state.deciding[approval.id] && !silent) return;
    const lacking = choice === "approve" ? complaintOf(lacks, approval) : "";
    setComplaint(lacking);
    if (choice === "approve" && lacks) {
      fields[lacks].current?.focus();
      screen.announce(lacking);
      return;
    }
    const { id, version, digest } = approval;
    screen.send({ type: "approval:respond", id, decision: choice, reason: reason.trim(), version, digest });
  };
  const key = (choice: "approve" | "reject") => {
    if (!isGuarded(approval.risk) || (choice === "approve" && lacks)) return decide(choice);
    fields[choice].current?.focus();
    screen.announce(readiness(approval, choice));
  };
  return { approval, reason, setReason, confirm, setConfirm, complaint, fields, silent, decide, key };
}

function readiness(approval: Approval, choice: "approve" | "reject"): string {
  if (choice === "reject") return t("decide.ready.reject");
  const environment = t(`environment.${approval.target.environment}`);
  return t("decide.ready", { target: place(approval.target), environment });
}

/** Whether a decision was sent and nothing came back for a while; asks how the request stands when that happens. */
export function useSilence(id: string): boolean {
  const { state, send } = useScreen();
  const waiting = state.deciding[id];
  const [silent, setSilent] = useState(false);
  // one timer for each decision that was sent
  useEffect(() => {
    setSilent(false);
    if (!waiting) return;
    const timer = setTimeout(() => {
      setSilent(true);
      send({ type: "approval:get", id });
    }, PATIENCE);
    return () => clearTimeout(timer);
  }, [waiting]);
  return silent;
}

export function Decision({ form }: { form: DecisionForm }) {
  const { state } = useScreen();
  const { approval } = form;
  const guarded = isGuarded(approval.risk);
  const mine = state.welcome?.actor.id === approval.requester.id;
  const approve = <Choose key="approve" form={form} choice="approve" primary={!guarded} />;
  const reject = <Choose key="reject" form={form} choice="reject" primary={false} />;
  return (
    <fieldset class="oa-decide">
      <legend class="oa-sr">{t("decide.label")}</legend>
      <div class="oa-row oa-decide-row">
        <ReasonField form={form} />
        {isCritical(approval.risk) && <ConfirmField form={form} />}
        <div class="oa-row oa-buttons">
          {guarded ? [reject, approve] : [approve, reject]}
          {mine && <Choose form={form} choice="withdraw" primary={false} quiet />}
        </div>
      </div>
      <Answer id={approval.id} silent={form.silent} />
      {form.complaint && (
        <p class="oa-warn" id={`oa-missing-${approval.id}`}>
          <Exact text={form.complaint} />
        </p>
      )}
      <p class="oa-muted oa-small">
        {t(guarded ? "decide.keys.guarded" : "decide.keys")}
        {mine && approval.setup !== "personal" && guarded && ` ${t("card.own")}`}
      </p>
    </fieldset>
  );
}

function Choose(props: { form: DecisionForm; choice: Choice; primary: boolean; quiet?: boolean }) {
  const { form, choice, primary, quiet = false } = props;
  const { state } = useScreen();
  const waiting = state.deciding[form.approval.id];
  const lacks = choice === "approve" && missing(form.approval, form.reason, form.confirm) !== "";
  const field = choice === "approve" || choice === "reject" ? form.fields[choice] : undefined;
  return (
    <button
      type="button"
      ref={field as RefObject<HTMLButtonElement>}
      class={primary ? "oa-primary" : quiet ? "oa-quiet" : ""}
      data-decision={choice}
      aria-disabled={lacks || (waiting !== undefined && waiting.decision !== choice)}
      aria-busy={waiting?.decision === choice}
      onClick={() => form.decide(choice)}
    >
      {waiting?.decision === choice ? t(`decide.sending.${choice}`) : t(`decide.${choice}`)}
    </button>
  );
}

/** Enter in a field decides nothing, whatever the risk: the hand that typed a reason has not yet said yes. */
function keepEnter(event: KeyboardEvent): void {
  keepKeys(event);
  if (event.key === "Enter") event.preventDefault();
}

function ReasonField({ form }: { form: DecisionForm }) {
  const required = isCritical(form.approval.risk);
  const name = t(required ? "decide.reason.required" : "decide.reason.optional");
  return (
    <input
      type="text"
      class="oa-reason"
      ref={form.fields.reason as RefObject<HTMLInputElement>}
      value={form.reason}
      maxLength={2000}
      aria-label={name}
      aria-required={required}
      aria-describedby={form.complaint ? `oa-missing-${form.approval.id}` : undefined}
      placeholder={name}
      autocomplete="off"
      onInput={(event) => form.setReason(event.currentTarget.value)}
      onKeyDown={keepEnter}
    />
  );
}

function ConfirmField({ form }: { form: DecisionForm }) {
  const name = visible(t("decide.confirm", { name: form.approval.target.instance }));
  return (
    <input
      type="text"
      class="oa-confirm"
      ref={form.fields.confirm as RefObject<HTMLInputElement>}
      value={form.confirm}
      aria-label={name}
      aria-required="true"
      placeholder={name}
      autocomplete="off"
      spellcheck={false}
      onInput={(event) => form.setConfirm(event.currentTarget.value)}
      onKeyDown={keepEnter}
    />
  );
}

/** What came back of the last decision, when it did not simply change the card. */
export function Answer({ id, silent }: { id: string; silent: boolean }) {
  const { state, send } = useScreen();
  const failure = state.failures[id];
  const late = failure?.code === "approval.already_decided";
  // once for each failure
  useEffect(() => {
    if (late) send({ type: "approval:get", id });
  }, [failure]);
  const text = sentence(silent, failure);
  return (
    <p class={text ? "oa-warn" : "oa-empty"} role="alert">
      {text && <Exact text={text} />}
    </p>
  );
}

function sentence(silent: boolean, failure: Failure | undefined): string {
  if (failure?.code === "approval.already_decided") return t("decide.late");
  if (failure) return t("decide.error", { message: failure.message, hint: failure.hint });
  return silent ? t("decide.silent") : "";
}

/** An approval that no host has started can be taken back. */
export function Revocation({ approval, silent }: { approval: Approval; silent: boolean }) {
  const { state, send } = useScreen();
  const { id, version, digest } = approval;
  const waiting = state.deciding[id] !== undefined;
  return (
    <div class="oa-decide oa-row">
      <button
        type="button"
        data-decision="revoke"
        aria-disabled={waiting}
        onClick={() =>
          !waiting && send({ type: "approval:respond", id, decision: "revoke", reason: "", version, digest })
        }
      >
        {t(waiting ? "decide.sending.revoke" : "decide.revoke")}
      </button>
      <Answer id={id} silent={silent} />
    </div>
  );
}

/** Nobody saw the end: a person looks at the target and records what happened, with how they know. */
export function Resolution({ approval, silent }: { approval: Approval; silent: boolean }) {
  const [open, setOpen] = useState(false);
  if (open) return <ResolutionForm approval={approval} silent={silent} />;
  return (
    <div class="oa-decide oa-row">
      <button type="button" aria-expanded={false} onClick={() => setOpen(true)}>
        {t("record.open")}
      </button>
    </div>
  );
}

function ResolutionForm({ approval, silent }: { approval: Approval; silent: boolean }) {
  const { state, send } = useScreen();
  const { id } = approval;
  const [found, setFound] = useState<"" | "succeeded" | "failed">("");
  const [reason, setReason] = useState("");
  const [complaint, setComplaint] = useState("");
  const record = () => {
    const lacking = found === "" ? t("record.choose") : isReason(reason) ? "" : t("decide.reason.short");
    setComplaint(lacking);
    if (found && !lacking) send({ type: "approval:resolve", id, state: found, reason: reason.trim() });
  };
  return (
    <fieldset class="oa-decide">
      <legend>{t("record.label")}</legend>
      {(["succeeded", "failed"] as const).map((choice) => (
        <label key={choice}>
          <input type="radio" name={`oa-found-${id}`} checked={found === choice} onChange={() => setFound(choice)} />{" "}
          {t(`record.${choice}`)}
        </label>
      ))}
      <div class="oa-row oa-decide-row">
        <input
          type="text"
          class="oa-reason"
          value={reason}
          maxLength={2000}
          aria-label={t("record.reason")}
          aria-required="true"
          placeholder={t("record.reason")}
          onInput={(event) => setReason(event.currentTarget.value)}
          onKeyDown={keepEnter}
        />
        <button type="button" aria-busy={state.deciding[id] !== undefined} onClick={record}>
          {t(state.deciding[id] ? "decide.sending.succeeded" : "record.send")}
        </button>
      </div>
      <p class={complaint ? "oa-warn" : "oa-empty"} role="alert">
        {complaint}
      </p>
      <Answer id={id} silent={silent} />
    </fieldset>
  );
}
