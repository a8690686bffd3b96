// Why something was not done, where it was asked for.
import type { Refusal } from "../client/rest";
import { Exact } from "./text";
import { w } from "./wording";

export function Refused({ refusal }: { refusal: Refusal | undefined }) {
  return (
    <p class={refusal ? "oa-warn" : "oa-empty"} role="alert">
      {refusal && <Exact text={w("not.done", { message: refusal.message, hint: refusal.hint })} />}
    </p>
  );
}
