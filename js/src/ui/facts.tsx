// What a call would touch, as computed by code: lock, size, waits, undo, and the plan before and after.
import type { Approval, Comparison, JsonValue, Origin } from "../protocol";
import { figure, plain } from "./format";
import { kinds, OriginMark } from "./origins";
import { t } from "./strings";
import { Exact, Fact } from "./text";

export function Facts({ approval }: { approval: Approval }) {
  const { plan, target } = approval;
  return (
    <dl class="oa-facts">
      <Fact name={t("card.risk")}>{approval.reasons.length > 0 && <Lines lines={approval.reasons} />}</Fact>
      <Fact name={t("card.locks")}>{plan.lock && <Exact text={plan.lock} />}</Fact>
      <Fact name={t("card.size")}>{plan.size && <Exact text={plan.size} />}</Fact>
      <Fact name={t("card.waits")}>{plan.waits.length > 0 && <Lines lines={plan.waits} />}</Fact>
      <Fact name={t("card.duration")}>{plan.duration && <Exact text={plan.duration} />}</Fact>
      <Fact name={t("card.undo")}>
        <Undo undo={plan.undo} note={plan.undo_note} />
      </Fact>
      <Fact name={t("card.database")}>{isFilled(target.identity) && <Pairs values={target.identity} />}</Fact>
      <Fact name={t("card.arguments")}>
        {isFilled(approval.arguments) && <Pairs values={approval.arguments} marks={kinds(approval.origins)} />}
      </Fact>
      <Fact name={t("card.preconditions")}>
        {isFilled(plan.preconditions) && <Pairs values={plan.preconditions} />}
      </Fact>
    </dl>
  );
}

function isFilled(values: Record<string, JsonValue>): boolean {
  return Object.keys(values).length > 0;
}

export function Lines({ lines }: { lines: string[] }) {
  return (
    <ul class="oa-lines">
      {lines.map((line) => (
        <li key={line}>
          <Exact text={line} />
        </li>
      ))}
    </ul>
  );
}

/** ``marks`` say which values no person wrote. */
export function Pairs(props: { values: Record<string, JsonValue>; marks?: Record<string, Origin["kind"]> }) {
  const marks = new Map(Object.entries(props.marks ?? {}));
  return (
    <span class="oa-pairs">
      {Object.entries(props.values).map(([name, value]) => (
        <span key={name} class={marks.has(name) ? `oa-from-${marks.get(name)}` : ""}>
          <span class="oa-muted">
            <Exact text={name} />
          </span>{" "}
          <code>
            <Exact text={plain(value)} />
          </code>
          {marks.has(name) && <OriginMark kind={marks.get(name) ?? "database"} />}
        </span>
      ))}
    </span>
  );
}

function Undo({ undo, note }: { undo: string; note: string }) {
  return (
    <>
      {undo ? (
        <code class="oa-block">
          <Exact text={undo} sql />
        </code>
      ) : (
        !note && t("card.undo.none")
      )}
      {note && (
        <span class={undo ? "oa-muted" : ""}>
          <Exact text={note} />
        </span>
      )}
    </>
  );
}

/** Two bars on one scale: the planner's cost now and with the change. */
export function PlanBars({ comparison }: { comparison: Comparison }) {
  const { before, after, note } = comparison;
  const scale = Math.max(before, after, 1e-9);
  const bar = (name: "card.plan.before" | "card.plan.after", cost: number) => (
    <>
      <span class="oa-muted">{t(name)}</span>
      <span class="oa-bar" aria-hidden="true">
        <i style={{ width: `${Math.max(1, (100 * cost) / scale)}%` }} />
      </span>
      <span class="oa-num oa-right">{t("card.plan.cost", { cost: figure(cost) })}</span>
    </>
  );
  return (
    <div class="oa-plan">
      {bar("card.plan.before", before)}
      {bar("card.plan.after", after)}
      {note && (
        <small class="oa-muted">
          <Exact text={note} />
        </small>
      )}
    </div>
  );
}
