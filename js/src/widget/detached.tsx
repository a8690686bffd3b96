// What a card or chat shows when no kernel answers: the redacted summary that was saved, and how to attach again.
import { t } from "../ui";
import { Exact } from "../ui/text";

/** The synced summary; see `notebook/widgets.py`. */
export type Summary = Record<string, string>;

export function Detached({ kind, summary }: { kind: string; summary: Summary }) {
  const command = summary.attach ?? "";
  const known = Object.entries(summary).filter(([name, value]) => name !== "attach" && value !== "");
  return (
    <section class="oa-detached">
      <p class="oa-muted">{t("detached.asked")}</p>
      <dl class="oa-facts">
        {known.map(([name, value]) => (
          <>
            <dt>
              <Exact text={name.replaceAll("_", " ")} />
            </dt>
            <dd>
              <Exact text={value} />
            </dd>
          </>
        ))}
      </dl>
      <p>
        <Exact text={t(kind === "approval" ? "detached.approval" : "detached.chat", { command })} />
      </p>
    </section>
  );
}
