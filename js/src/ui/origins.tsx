// Where the arguments of the model's call come from that no person wrote: seen before anything is approved.
import type { Approval, Origin } from "../protocol";
import { clock } from "./format";
import { t } from "./strings";
import { Exact } from "./text";

/** How many arguments hold something that a database said. */
export function fromDatabases(approval: Approval): number {
  const found = approval.origins.filter((origin) => origin.kind === "database");
  return new Set(found.map((origin) => origin.argument)).size;
}

/** The kind of each outermost argument with an origin; what a database said counts more than what the model made up. */
export function kinds(origins: Origin[]): Record<string, Origin["kind"]> {
  const found: Record<string, Origin["kind"]> = {};
  for (const { argument, kind } of origins) {
    const name = argument.split(/[.[]/, 1)[0] ?? argument;
    if (found[name] !== "database") found[name] = kind;
  }
  return found;
}

export function Origins({ approval }: { approval: Approval }) {
  const { origins } = approval;
  if (origins.length === 0) return null;
  const tainted = fromDatabases(approval);
  return (
    <section class={`oa-origins ${tainted > 0 ? "oa-tainted" : ""}`} aria-label={t("origin.title")}>
      <p>
        <strong>{t("origin.title")}</strong>
        {tainted > 0 && <span> {t(tainted === 1 ? "origin.warning" : "origin.warnings", { n: tainted })}</span>}
      </p>
      <ul>
        {origins.map((origin, index) => (
          <li key={index} class={`oa-from-${origin.kind}`}>
            <OriginMark kind={origin.kind} />{" "}
            <span class="oa-muted">
              <Exact text={origin.argument} />
            </span>{" "}
            <code>
              <Exact text={origin.text} />
            </code>{" "}
            <span title={origin.call && t("origin.call", { call: origin.call })}>
              <Exact text={sentence(origin)} />
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** A sign and a word, so that the colour need not be seen. */
export function OriginMark({ kind }: { kind: Origin["kind"] }) {
  return (
    <span class={`oa-from oa-from-${kind}`}>
      <span aria-hidden="true">{kind === "database" ? "▲ " : "○ "}</span>
      {t(kind === "database" ? "origin.database" : "origin.model")}
    </span>
  );
}

function sentence(origin: Origin): string {
  const { tool, instance, server, at } = origin;
  if (origin.kind !== "database") return t("origin.model.told");
  const target = server ? t("target.on", { instance, server }) : instance;
  if (!tool) return t("origin.self.told", { target });
  return t("origin.database.told", { tool: tool.split(".").at(-1) ?? tool, target, time: clock(at) });
}
