// Times, durations and names as a person reads them.
import type { Actor, Approval, Risk, Session, Target } from "../protocol";
import { t } from "./strings";

const RANK: Record<Risk, number> = { low: 0, medium: 1, high: 2, critical: 3 };

/** 0 for low up to 3 for critical; an unknown level counts as critical. */
export function rank(risk: string): number {
  return isLevel(risk) ? RANK[risk] : 3;
}

/** Whether a level is one of those that there are. */
export function isLevel(risk: string): risk is Risk {
  return Object.hasOwn(RANK, risk);
}

/** Whether Approve takes a deliberate step: high, critical, and whatever is not known. */
export function isGuarded(risk: Risk): boolean {
  return rank(risk) >= 2;
}

/** Whether an approval needs a reason and the target's name. */
export function isCritical(risk: Risk): boolean {
  return rank(risk) >= 3;
}

/** The clock time, with the date when it is not today's. */
export function clock(iso: string | null, today: Date = new Date()): string {
  if (!iso) return "";
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return iso;
  const time = at.toLocaleTimeString(undefined, {
    hourCycle: "h23",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
  return at.toDateString() === today.toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}

/** Time left as m:ss, or h:mm:ss; "0:00" when none is. */
export function countdown(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const two = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** A duration: "8 ms", "1.2 s", "3 min 5 s". */
export function duration(milliseconds: number): string {
  if (milliseconds < 1000)
    return `${milliseconds < 10 ? Number(milliseconds.toFixed(1)) : Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** A planner cost, or another figure, with at most one decimal. */
export function figure(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: value < 100 ? 1 : 0 });
}

export function place(target: Target): string {
  return t("target.on", { instance: target.instance, server: target.server });
}

export function sessionPlace(session: Session): string {
  if (!session.instance) return session.server;
  return session.server ? t("target.on", { instance: session.instance, server: session.server }) : session.instance;
}

export function person(actor: Actor): string {
  return actor.agent ? t("someone.agent", { name: actor.name }) : actor.name;
}

/** The first eight characters of an id: enough to name it to a command. */
export function short(id: string): string {
  return id.slice(0, 8);
}

/** A value of a row or an argument as text, exactly. */
export function plain(value: unknown): string {
  if (value === null || value === undefined) return t("empty.value");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Whether a reason says something: the rule of the policy, so that a poor one is named before it is sent. */
export function isReason(text: string): boolean {
  const letters = new Set(text.toLowerCase().match(/[\p{L}\p{N}_]/gu));
  return text.trim().length >= 10 && text.trim().split(/\s+/).length >= 2 && letters.size >= 5;
}

/** A suggested call as a person would type it after `%opsagent`. */
export function asCommand(tool: string, values: Record<string, unknown>): string {
  const words = Object.entries(values).map(([name, value]) => `--${name} ${quoted(listed(value))}`);
  return ["run", tool, ...words].join(" ");
}

function listed(value: unknown): string {
  return Array.isArray(value) && value.every((item) => typeof item !== "object") ? value.join(",") : plain(value);
}

function quoted(text: string): string {
  return /^[\w.,:/-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

/** Where a request stands, in words: who, when, and what came of it. */
export function told(approval: Approval): string {
  const summary = approval.effect?.summary ?? "";
  const by = decidedBy(approval);
  const reason = approval.reason && ended(approval.reason);
  switch (approval.state) {
    case "pending":
      return t("told.pending");
    case "approved":
      return t("told.approved", { by });
    case "executing":
      return t("told.executing", { by, time: clock(approval.claimed_at) });
    case "succeeded":
      return t("told.succeeded", { by, summary });
    case "failed":
      return t("told.failed", { by, summary });
    case "unknown":
      return t("told.unknown", { by, summary: summary ? ended(summary) : t("told.unknown.default") });
    case "expired":
      return approval.decided_by
        ? t("told.expired.unused", { by, time: clock(approval.ended_at) })
        : t("told.expired", { time: clock(approval.ended_at ?? approval.expires_at) });
    case "superseded":
      return t("told.superseded");
    case "stale":
      return t("told.stale", { by, summary: summary || t("told.stale.default") });
    default:
      return reason ? t("told.ended.reason", { by, reason }) : t("told.ended", { by });
  }
}

function decidedBy(approval: Approval): string {
  const { state } = approval;
  const verb = state === "rejected" || state === "withdrawn" || state === "revoked" ? state : "approved";
  const name = approval.decided_by ? person(approval.decided_by) : "?";
  return t("told.by", { verb: t(`told.verb.${verb}`), name, time: clock(approval.decided_at) });
}

function ended(sentence: string): string {
  return /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
}
