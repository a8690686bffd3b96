// Toasts for requests that arrive while the page is open: the first few name theirs, one more counts the others.
import type { Notification } from "@jupyterlab/apputils";
import type { Approval } from "../protocol";
import { visible } from "../ui/exact";
import { type Desk, t, w } from "../ui/home";

/** Toasts that name their request, within the milliseconds that a toast stays. */
export const TOASTS = 3;
export const SHOWN = 10_000;

/** Where toasts are shown, and what is known around them. */
export interface Around {
  board: Pick<typeof Notification, "warning" | "update" | "dismiss">;
  /** Whether the person wants toasts at all. */
  isWanted(): boolean;
  /** Whether the person sees the request as it arrives: then it needs no toast. */
  isShown(approval: Approval): boolean;
  /** Shows one request, or all that wait. */
  open(args: { id?: string }): void;
}

/** A toast for each request that arrives; what was there before is in the queue. */
export function announceArrivals({ store, way }: Pick<Desk, "store" | "way">, around: Around): void {
  const toasts = new Map<string, string>();
  const others = createCounter(around);
  const seen = new Set<string>();
  let first = true;
  const look = () => {
    const { approvals, lists } = store.state();
    if (lists === 0) return;
    for (const approval of Object.values(approvals)) {
      const { id, state } = approval;
      const needed = state === "pending" && !around.isShown(approval);
      const toast = toasts.get(id);
      if (toast && !needed) around.board.dismiss(toast);
      if (!needed) {
        toasts.delete(id);
        others.without(id);
      } else if (!seen.has(id) && !first && around.isWanted()) {
        if (others.isFew()) toasts.set(id, arrival(around, approval));
        else others.with(id);
      }
      seen.add(id);
    }
    others.tell();
    first = false;
  };
  store.watch(look);
  // whoever opens the request needs its toast no more, which could cover the buttons
  way.watch(look);
}

/** The one toast for requests beyond the first few: many at once must not bury the page. */
function createCounter(around: Around) {
  const waiting = new Set<string>();
  let [toast, said, since, arrived] = ["", 0, 0, 0];
  return {
    /** Counts an arrival; whether it is among the first of those that arrive together. */
    isFew() {
      if (Date.now() - since > SHOWN) {
        waiting.clear();
        [toast, said, since, arrived] = ["", 0, Date.now(), 0];
      }
      arrived += 1;
      return arrived <= TOASTS;
    },
    with: (id: string) => void waiting.add(id),
    without: (id: string) => void waiting.delete(id),
    tell() {
      if (waiting.size === said) return;
      said = waiting.size;
      const message = w(said === 1 ? "page.toast.other" : "page.toast.others", { n: said });
      if (said === 0) around.board.dismiss(toast);
      else if (!toast || !around.board.update({ id: toast, message })) toast = show(around, message, {});
    },
  };
}

function arrival(around: Around, { id, plan, risk, target }: Approval): string {
  const message = w("page.toast", {
    title: visible(plan.title),
    risk: t(`risk.${risk}`),
    environment: t(`environment.${target.environment}`),
    target: visible(t("target.on", { instance: target.instance, server: target.server })),
  });
  return show(around, message, { id });
}

function show({ board, open }: Around, message: string, args: { id?: string }): string {
  const action = { label: w("page.toast.open"), callback: () => open(args) };
  return board.warning(message, { autoClose: SHOWN, actions: [action] });
}
