// Whether the audit's chain verifies, as the server last found out.
import { useEffect, useState } from "preact/hooks";
import type { Checking } from "../client/rest";
import { useAsked, useDesk } from "./desk";
import { clock } from "./format";
import { Exact } from "./text";
import { w } from "./wording";

/** Milliseconds between two looks, while a check runs and while none does. */
const SOON = 2000;
const LATER = 60_000;

export function ChainMark() {
  const { api } = useDesk();
  const [look, setLook] = useState(0);
  const { value } = useAsked(() => api.verification(), [look]);
  useEffect(() => {
    if (!value) return;
    const timer = setTimeout(() => setLook(look + 1), value.running ? SOON : LATER);
    return () => clearTimeout(timer);
  }, [value]);
  return value ? <Mark checking={value} /> : null;
}

function Mark({ checking: { last, failure } }: { checking: Checking }) {
  if (last && !last.ok) {
    const problems = last.problems.join(" ");
    const text = w("audit.broken", { seq: last.first_bad ?? "?", time: clock(last.checked_at), problems });
    return (
      <span class="oa-warn oa-small" role="alert">
        <Exact text={text} />
      </span>
    );
  }
  if (failure)
    return (
      <span class="oa-warn oa-small">
        <Exact text={w("audit.unverified", { message: failure })} />
      </span>
    );
  if (!last) return <span class="oa-muted oa-small">{w("audit.verifying")}</span>;
  return (
    <span class="oa-muted oa-small" title={w("audit.verified.title")}>
      <span aria-hidden="true">✓ </span>
      {w("audit.verified", { n: last.rows, time: clock(last.checked_at) })}
    </span>
  );
}
