// Events over time as stacked bars, one a span of time, by risk; a bar narrows the audit to its span.
import type { AuditTimeline } from "../client/rest";
import { clock } from "./format";
import { w } from "./wording";

export const BARS = 48;
const HEIGHT = 44;
const LEVELS = ["none", "low", "medium", "high", "critical"] as const;

type Level = (typeof LEVELS)[number];

export interface Span {
  from: number;
  to: number;
  counts: Record<Level, number>;
  total: number;
}

/** The counted spans as bars; times in milliseconds since 1970. */
export function spans({ since, milliseconds, spans: counted }: AuditTimeline): Span[] {
  if (!since || counted.length === 0) return [];
  const first = Date.parse(since);
  const found = Array.from({ length: BARS }, (_, index) => empty(first + index * milliseconds, milliseconds));
  for (const { since: from, total, by_risk } of counted) {
    const span = found[Math.min(BARS - 1, Math.round((Date.parse(from) - first) / milliseconds))] as Span;
    span.total += total;
    for (const level of LEVELS) span.counts[level] += by_risk[level === "none" ? "" : level] ?? 0;
  }
  return found;
}

function empty(from: number, width: number): Span {
  return { from, to: from + width, counts: { none: 0, low: 0, medium: 0, high: 0, critical: 0 }, total: 0 };
}

export function Timeline({ counts, onSpan }: { counts: AuditTimeline; onSpan(from: string, to: string): void }) {
  const bars = spans(counts);
  const most = bars.reduce((max, bar) => Math.max(max, bar.total), 1);
  if (bars.length === 0) return null;
  return (
    <figure class="oa-timeline">
      <svg viewBox={`0 0 ${BARS * 10} ${HEIGHT}`} preserveAspectRatio="none">
        <title>{w("audit.timeline")}</title>
        {bars.map(
          (bar, index) =>
            bar.total > 0 && (
              <Bar
                key={bar.from}
                bar={bar}
                x={index * 10}
                most={most}
                onPick={() => onSpan(new Date(bar.from).toISOString(), new Date(bar.to).toISOString())}
              />
            ),
        )}
      </svg>
      <figcaption class="oa-row oa-muted oa-small oa-num">
        <span>{clock(new Date(bars[0]?.from ?? 0).toISOString())}</span>
        <span class="oa-grow" />
        <span>{clock(new Date((bars.at(-1)?.to ?? 0) - 1).toISOString())}</span>
      </figcaption>
    </figure>
  );
}

function Bar({ bar, x, most, onPick }: { bar: Span; x: number; most: number; onPick(): void }) {
  const places = {
    from: clock(new Date(bar.from).toISOString()),
    to: clock(new Date(bar.to).toISOString()),
    n: bar.total,
  };
  const label = w(bar.total === 1 ? "audit.timeline.bar.one" : "audit.timeline.bar", places);
  let top = HEIGHT;
  return (
    // biome-ignore lint/a11y/useSemanticElements: there is no button inside an SVG
    <g
      role="button"
      tabIndex={0}
      aria-label={label}
      class="oa-bar-of-time"
      onClick={onPick}
      onKeyDown={(event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        onPick();
      }}
    >
      <title>{label}</title>
      <rect class="oa-hit" x={x} y={0} width={10} height={HEIGHT} />
      {LEVELS.map((level) => {
        const height = (bar.counts[level] / most) * (HEIGHT - 2);
        top -= height;
        return (
          height > 0 && <rect key={level} class={`oa-span-${level}`} x={x + 1} y={top} width={8} height={height} />
        );
      })}
    </g>
  );
}
