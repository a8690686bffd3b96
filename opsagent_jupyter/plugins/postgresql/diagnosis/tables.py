"""Tables: dead rows and free space, statistics that grew old, autovacuum that is switched off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from opsagent_jupyter.plugins.findings import Confidence, Finding, Severity, Survey
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import GB, MB, TABLES, Observation, call
from opsagent_jupyter.plugins.postgresql.measures import locked_note
from opsagent_jupyter.plugins.postgresql.reads.tables import BLOATED_BYTES, BLOATED_SHARE, TableState
from opsagent_jupyter.plugins.wording import count, duration, listing, percent, size

#: How many times autovacuum's own threshold must be passed until something is wrong, not merely due.
OVERDUE = 3.0
#: Share of dead rows from which every scan pays.
DEAD = 0.3
#: Time within which changes and an ANALYZE may be counted in the wrong order.
RECENT = timedelta(minutes=1)
#: Rows of a table below which nothing of this matters.
FEW_ROWS = 1_000


async def survey(seen: Observation) -> Survey:
    """Look at the largest tables."""
    states, settings = await seen.tables(), await seen.vacuum_settings()
    findings = []
    for state in states:
        if state.row["kind"] == "p":
            findings += _never_whole(state)
        elif not state.row["vacuuming"]:
            findings += [*_space(state, settings), *_stale(state, settings), *_switched_off(state)]
    return Survey(tuple(findings), tuple(_notes(seen, states)))


def _notes(seen: Observation, states: list[TableState]) -> list[str]:
    notes = [*locked_note([state.row for state in states], "tables")]
    blind = [state.name for state in states if state.bloat is None and state.row["pages"] and state.row["kind"] != "p"]
    if blind:
        notes.append(
            f"No bloat estimate for {listing(blind)}: never analysed, or {seen.db.server.role} may not read the columns."
        )
    if len(states) == TABLES:
        notes.append(f"Only the {TABLES} largest tables were looked at.")
    return notes


def _off(row: Row) -> bool:
    return row["options"].get("autovacuum_enabled") in ("false", "off")


def _alive(row: Row) -> float:
    return float(max(row["live"] or 0, row["counted"], 0))


def _threshold(row: Row, settings: Row, kind: str, base: str, scale: str) -> float:
    """Rows from which autovacuum would come, by the table's own options or the server's settings."""
    least = float(row["options"].get(f"autovacuum_{kind}_threshold", settings[base]))
    share = float(row["options"].get(f"autovacuum_{kind}_scale_factor", settings[scale]))
    return least + share * max(float(row["counted"]), 0.0)


def _space(state: TableState, settings: Row) -> list[Finding]:
    row, dead = state.row, float(state.row["dead"] or 0)
    own = row["table_bytes"] - (row["toast_bytes"] or 0)
    share = dead / (dead + _alive(row)) if dead else 0.0
    overdue = dead >= OVERDUE * max(_threshold(row, settings, "vacuum", "threshold", "scale"), FEW_ROWS)
    wasted = state.bloat if state.bloat and state.bloat >= max(BLOATED_BYTES, BLOATED_SHARE * own) else 0.0
    if dead >= FEW_ROWS and (share >= DEAD or overdue):
        return [_dead(state, share, wasted, own)]
    return [_bloated(state, wasted, own)] if wasted else []


def _dead(state: TableState, share: float, wasted: float, own: int) -> Finding:
    row = state.row
    kept = (
        [f"about {size(wasted)} of its {size(own)} hold no live row (estimate)"] if wasted else [f"table {size(own)}"]
    )
    off = ["autovacuum is switched off for it"] if _off(row) else []
    return Finding(
        kind="bloat",
        severity=Severity.HIGH if _off(row) or share >= 0.5 else Severity.MEDIUM,
        confidence="likely",
        subject=state.name,
        title=f"Table {state.name} holds {count(row['dead'])} dead rows, {share:.0%} of all"
        + (", and autovacuum is off for it" if off else ""),
        evidence=(*kept, _last("vacuumed", row["last_vacuum"]), *off),
        why="Every scan reads the dead rows too, and the table grows instead of using their space again.",
        advice=f"VACUUM {state.name}" + (", and switch autovacuum on for it again." if off else "."),
        fix=call("vacuum_table", f"{count(row['dead'])} dead rows", table=state.name, analyze=True),
        impact=wasted or share * own,
    )


def _bloated(state: TableState, wasted: float, own: int) -> Finding:
    confidence: Confidence = "possible"
    return Finding(
        kind="bloat",
        severity=Severity.MEDIUM if wasted >= GB else Severity.INFO,
        confidence=confidence,
        subject=state.name,
        title=f"Table {state.name} is about {percent(wasted, own)} free space",
        evidence=(f"{size(wasted)} of its {size(own)} (estimate)", _last("vacuumed", state.row["last_vacuum"])),
        why="New rows will use the space; until then every scan reads it.",
        advice=f"Leave it if the table grows again. Only VACUUM FULL {state.name} gives it back, and nobody can use the"
        " table meanwhile.",
        impact=wasted,
    )


def _last(what: str, when: datetime | None) -> str:
    return f"last {what} {duration(datetime.now(UTC) - when)} ago" if when else f"never {what}"


def _stale(state: TableState, settings: Row) -> list[Finding]:
    row, rows = state.row, _alive(state.row)
    threshold = _threshold(row, settings, "analyze", "analyze_threshold", "analyze_scale")
    modified = float(row["modified"] or 0)
    never = row["last_analyze"] is None and row["counted"] <= 0 and rows >= FEW_ROWS
    if not never and (modified < max(threshold, FEW_ROWS, OVERDUE * threshold) or _just_analysed(row)):
        return []
    known = "it knows nothing of it" if never else f"it counts on {count(max(row['counted'], 0))}"
    return [
        Finding(
            kind="stale_statistics",
            severity=Severity.MEDIUM,
            confidence="likely",
            subject=state.name,
            title=f"The planner's statistics of {state.name} are out of date: the table has {count(rows)} rows, and {known}",
            evidence=(f"{count(modified)} rows changed since the last ANALYZE", _last("analysed", row["last_analyze"])),
            why="The planner chooses joins and indexes by these counts; wrong ones make plans that are slow by orders.",
            advice=f"ANALYZE {state.name}" + (", and switch autovacuum on for it again." if _off(row) else "."),
            fix=call("analyze_table", f"{count(modified)} rows changed since the last ANALYZE", table=state.name),
            impact=modified,
        )
    ]


def _never_whole(state: TableState) -> list[Finding]:
    """A partitioned table whose parts are analysed, and never the whole: no autovacuum does that."""
    if state.remedy != "analyze":
        return []
    return [
        Finding(
            kind="stale_statistics",
            severity=Severity.INFO,
            confidence="certain",
            subject=state.name,
            title=f"Partitioned table {state.name} was never analysed as a whole",
            evidence=("autovacuum analyses its partitions only",),
            why="Queries over several partitions are planned without statistics of the whole.",
            advice=f"ANALYZE {state.name} now, and again whenever its partitions have changed much.",
            fix=call("analyze_table", "never analysed as a whole", table=state.name),
        )
    ]


def _just_analysed(row: Row) -> bool:
    """Whether the planner knows the table: changes before an ANALYZE are sometimes counted after it."""
    when = row["last_analyze"]
    return when is not None and datetime.now(UTC) - when < RECENT and row["counted"] >= _alive(row) / 2


def _switched_off(state: TableState) -> list[Finding]:
    row = state.row
    if not _off(row) or _alive(row) < FEW_ROWS:
        return []
    return [
        Finding(
            kind="autovacuum_off_for_table",
            severity=Severity.MEDIUM if row["table_bytes"] >= MB else Severity.INFO,
            confidence="certain",
            subject=state.name,
            title=f"Autovacuum is switched off for table {state.name}",
            evidence=(f"{count(_alive(row))} rows, {size(row['table_bytes'])}", _last("vacuumed", row["last_vacuum"])),
            why="Dead rows pile up and statistics grow old until somebody remembers, or wraparound forces a VACUUM.",
            advice=f"ALTER TABLE {state.name} RESET (autovacuum_enabled).",
            impact=float(row["table_bytes"]),
        )
    ]
