"""Sequences that come to the end of their numbers, or of the column that takes them."""

from __future__ import annotations

from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import Observation
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.wording import count, listing, percent, plural

#: Shares of the numbers used from which it is told, harms soon, and is an emergency.
USED, SOON, LAST = 0.7, 0.85, 0.98


async def survey(seen: Observation) -> Survey:
    """Look at every sequence that this role may read and nobody holds exclusively."""
    rows = await seen.db.rows(query("sequences"))
    findings = [finding for row in rows if (finding := _judged(row))]
    return Survey(tuple(findings), tuple(_notes(seen, rows)))


def _notes(seen: Observation, rows: list[Row]) -> list[str]:
    notes = []
    hidden = {row["sequence"] for row in rows if not row["readable"]}
    locked = {row["sequence"] for row in rows if row["locked"]}
    if hidden:
        role = seen.db.server.role
        notes.append(
            f"{plural(len(hidden), 'sequence')} may not be read by {role}: GRANT SELECT on them to see how full."
        )
    if locked:
        notes.append(f"Sequences that are locked exclusively were left out: {listing(sorted(locked))}.")
    return notes


def _judged(row: Row) -> Finding | None:
    if row["last"] is None:
        return None
    whole, done = abs(row["end"] - min(row["start"], 1)), abs(row["last"] - min(row["start"], 1))
    share = done / whole if whole else 1.0
    return _near(row, share, abs(row["end"] - row["last"])) if share >= USED else None


def _near(row: Row, share: float, left: int) -> Finding:
    severity = Severity.CRITICAL if share >= LAST else Severity.HIGH if share >= SOON else Severity.MEDIUM
    feeds = f"{row['table']}.{row['column']} ({row['type']})" if row["table"] else ""
    return Finding(
        kind="sequence_near_end",
        severity=severity,
        confidence="certain",
        subject=row["sequence"],
        title=f"Sequence {row['sequence']} has used {percent(share, 1)} of its numbers",
        evidence=(
            f"last number {count(row['last'])} of {count(row['end'])}, {plural(left / abs(row['step']), 'insert')} left",
            *([f"it feeds {feeds}"] if feeds else []),
        ),
        why="When the last number is used every insert that needs one fails.",
        advice=f"Make {row['table']}.{row['column']} a bigint before that: add a bigint column, fill it in batches, swap them"
        " (ALTER COLUMN TYPE rewrites the table under an exclusive lock); foreign keys to it must follow."
        if row["table"]
        else f"ALTER SEQUENCE {row['sequence']} AS bigint MAXVALUE ..., and widen what takes its numbers.",
        impact=share,
    )
