// How runs of runbooks go, in the main area: each step with its state, who decided, and how long it took; live.
import type { RunbookStep } from "../client/rest";
import { useHappenings } from "./audit";
import { useAsked, useDesk } from "./desk";
import { clock, duration, short } from "./format";
import { Refused } from "./refused";
import { useNow, useScreen } from "./screen";
import { t } from "./strings";
import { Exact, RiskBadge } from "./text";
import { type Word, w } from "./wording";

/** Milliseconds between two looks at the steps while things happen. */
const CALM = 300;

export interface Run {
  runbook: string;
  run: string;
  steps: RunbookStep[];
}

/** Steps by run, the run that was asked last first; of a step that was called again only the newest call. */
export function grouped(steps: RunbookStep[]): Run[] {
  const runs = new Map<string, Map<string, RunbookStep>>();
  for (const step of steps) {
    const key = `${step.runbook}/${step.run}`;
    const known = runs.get(key) ?? new Map<string, RunbookStep>();
    runs.delete(key);
    runs.set(key, known.set(step.step, step));
  }
  return [...runs.values()].reverse().map((known) => {
    const list = [...known.values()];
    return { runbook: list[0]?.runbook ?? "", run: list[0]?.run ?? "", steps: list };
  });
}

/** A state's word; what is not known is shown as it is. */
const STATES: Record<string, Word> = {
  pending: "runs.pending",
  approved: "runs.approved",
  executing: "runs.running",
  running: "runs.running",
  planning: "runs.running",
  succeeded: "runs.succeeded",
  failed: "runs.failed",
  unknown: "runs.unknown",
  refused: "runs.refused",
  rejected: "runs.rejected",
};

const COLUMNS = [
  "runs.step",
  "audit.tool",
  "column.status",
  "column.risk",
  "runs.decided",
  "runs.waited",
  "column.took",
  "column.summary",
] as const;

const isMoving = ({ state }: RunbookStep) =>
  ["pending", "approved", "executing", "running", "planning"].includes(state);

export function RunsPanel() {
  const { api } = useDesk();
  const beat = useHappenings(CALM);
  const { value, refusal, reading } = useAsked(() => api.runbookSteps(), [beat]);
  const runs = grouped(value ?? []);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
    <section class="oa-audit oa-runs" tabIndex={0} aria-label={w("runs.label")}>
      <Refused refusal={refusal} />
      {value && runs.length === 0 && <p class="oa-muted">{w("runs.none")}</p>}
      {!value && reading && <p class="oa-muted">{w("loading")}</p>}
      {runs.map((run) => (
        <RunTable key={`${run.runbook}/${run.run}`} run={run} />
      ))}
    </section>
  );
}

function RunTable({ run }: { run: Run }) {
  const now = useNow(run.steps.some(isMoving));
  const done = run.steps.filter(({ state }) => state === "succeeded").length;
  const name = w("runs.run", { run: run.run, runbook: short(run.runbook), done, n: run.steps.length });
  return (
    <figure class="oa-table oa-run">
      <table>
        <caption>
          <Exact text={name} />
        </caption>
        <thead>
          <tr>
            {COLUMNS.map((word) => (
              <th key={word} scope="col">
                {w(word)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {run.steps.map((step) => (
            <StepRow key={step.call} step={step} now={now} />
          ))}
        </tbody>
      </table>
    </figure>
  );
}

function StepRow({ step, now }: { step: RunbookStep; now: number }) {
  const word = STATES[step.state];
  return (
    <tr>
      <th scope="row">
        <Exact text={step.step} />
      </th>
      <td>
        <Exact text={step.tool} />
        {step.instance && (
          <div class="oa-muted">
            <Exact text={t("target.on", { instance: step.instance, server: step.server })} />
          </div>
        )}
      </td>
      <td>{step.state === "pending" ? <Waiting step={step} /> : word ? w(word) : <Exact text={step.state} />}</td>
      <td>{step.risk && <RiskBadge risk={step.risk} />}</td>
      <td title={clock(step.decided_at)}>
        {step.decided_by && (
          <Exact
            text={
              step.vetting
                ? w("runs.vetted", { name: step.decided_by, signature: short(step.vetting) })
                : step.decided_by
            }
          />
        )}
      </td>
      <td>{step.approval && span(step.asked_at, step.decided_at, step.state === "pending" ? now : 0)}</td>
      <td>{span(step.began_at, step.ended_at, isMoving(step) ? now : 0)}</td>
      <td>
        <Exact text={step.summary} />
      </td>
    </tr>
  );
}

/** Shows the request in the sidebar, where it can be decided. */
function Waiting({ step }: { step: RunbookStep }) {
  const { way } = useDesk();
  const { announce } = useScreen();
  const open = () => {
    way.go({ tab: "waiting", approval: step.approval });
    announce(w("runs.opened"));
  };
  return (
    <button type="button" class="oa-quiet" onClick={open}>
      {w("runs.pending")}
    </button>
  );
}

/** How long something took, or takes until now; empty when it did not begin. */
function span(from: string | null, to: string | null, now: number): string {
  if (!from) return "";
  const end = to ? Date.parse(to) : now;
  return end ? duration(Math.max(0, end - Date.parse(from))) : "";
}
