"""Indexes that are broken, useless or missing behind a foreign key."""

from __future__ import annotations

from opsagent_jupyter.models import Suggestion
from opsagent_jupyter.plugins.findings import Confidence, Finding, Severity, Survey
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import GB, MB, Observation, call
from opsagent_jupyter.plugins.postgresql.measures import locked_note
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.indexes import YOUNG, Index
from opsagent_jupyter.plugins.wording import count, duration, listing, percent, plural, size

#: Bytes below which an index that costs something is only worth a remark.
SMALL = 64 * 1024
#: Rows of a referencing table from which a foreign key should have an index.
MANY_ROWS = 10_000


async def survey(seen: Observation) -> Survey:
    """Look at every index and at every foreign key without one."""
    found = await seen.indexes()
    age = await seen.statistics_age()
    missing = await seen.db.rows(query("foreign_keys"))
    findings = [finding for index in found for finding in _judged(index, age)]
    findings += [_unsupported(row) for row in missing]
    return Survey(tuple(findings), locked_note([index.row for index in found], "indexes"))


def _judged(index: Index, age: Row) -> list[Finding]:
    judge = {"invalid": _invalid, "incomplete": _incomplete, "duplicate": _duplicate, "redundant": _redundant}
    found = [judge[index.finding](index)] if index.finding in judge else []
    if index.finding == "unused":
        found.append(_unused(index, age))
    return [*found, _bloated(index)] if index.bloated and not found else found


def _drop(index: Index, why: str) -> Suggestion | None:
    return None if index.attached else call("drop_index", why, index=index.index)


def _figures(index: Index) -> tuple[str, ...]:
    scans = () if index.scans is None else (plural(index.scans, "scan"),)
    return (f"on {index.table} ({index.definition})", size(index.size), *scans)


def _invalid(index: Index) -> Finding:
    harms = index.ready or index.is_unique
    cost = "every write pays for it" if index.ready else "it takes space"
    refuses = " and it may refuse rows" if index.is_unique and index.ready else ""
    return Finding(
        kind="invalid_index",
        severity=Severity.HIGH if index.ready else Severity.MEDIUM,
        confidence="certain",
        subject=index.index,
        title=f"Index {index.index} on {index.table} is invalid: a build failed and left it behind",
        evidence=(*_figures(index), f"kept up by writes: {'yes' if index.ready else 'no'}"),
        why=f"No query uses it, {cost}{refuses}"
        + (", and the constraint that was wanted does not hold." if index.is_unique and harms else "."),
        advice=f"Drop {index.index}, remove what made the build fail, and build it again.",
        fix=_drop(index, "invalid: a build failed and left it behind"),
        impact=float(index.size),
    )


def _incomplete(index: Index) -> Finding:
    return Finding(
        kind="incomplete_index",
        severity=Severity.MEDIUM,
        confidence="certain",
        subject=index.index,
        title=f"Partitioned index {index.index} on {index.table} is incomplete: {index.why}",
        evidence=_figures(index),
        why="Queries on the partitions without their part read those partitions whole.",
        advice="Build the index on each partition that lacks it, and attach it with ALTER INDEX ... ATTACH PARTITION.",
    )


def _duplicate(index: Index) -> Finding:
    return Finding(
        kind="duplicate_index",
        severity=Severity.MEDIUM if index.size >= SMALL else Severity.INFO,
        confidence="certain",
        subject=index.index,
        title=f"Index {index.index} on {index.table} is a duplicate: {index.why}",
        evidence=_figures(index),
        why="Every write keeps both up, and both take memory and space, for the use of one.",
        advice=f"Drop {index.index}; the other one serves every query of it.",
        fix=_drop(index, f"duplicate: {index.why}"),
        impact=float(index.size),
    )


def _redundant(index: Index) -> Finding:
    return Finding(
        kind="redundant_index",
        severity=Severity.MEDIUM if index.size >= SMALL else Severity.INFO,
        confidence="likely",
        subject=index.index,
        title=f"Index {index.index} on {index.table} is redundant: {index.why}",
        evidence=_figures(index),
        why="The longer index serves the same queries, and every write keeps both up.",
        advice=f"Drop {index.index}, unless its being smaller matters to a query that runs very often.",
        fix=_drop(index, f"redundant: {index.why}"),
        impact=float(index.size),
    )


def _unused(index: Index, age: Row) -> Finding:
    old = age["seconds"] >= YOUNG and not (age["standbys"] or age["standby"])
    confidence: Confidence = "likely" if old else "possible"
    return Finding(
        kind="unused_index",
        severity=Severity.MEDIUM if old and index.size >= MB else Severity.INFO,
        confidence=confidence,
        subject=index.index,
        title=f"Index {index.index} on {index.table} was never used in {duration(age['seconds'])}",
        evidence=(*_figures(index), *_doubts(index, age)),
        why="Every write keeps it up, and nothing reads it.",
        advice=f"Drop {index.index} once a whole business cycle was counted and no standby uses it.",
        fix=_drop(index, index.why) if not index.supports else None,
        impact=float(index.size),
    )


def _doubts(index: Index, age: Row) -> list[str]:
    doubts = []
    if age["seconds"] < YOUNG:
        doubts.append(f"use is counted for {duration(age['seconds'])} only")
    if age["standbys"] or age["standby"]:
        doubts.append("each server counts for itself: look at the standbys too")
    if index.supports:
        doubts.append(f"it serves the foreign key {listing(index.supports)} when rows of the parent are deleted")
    return doubts


def _bloated(index: Index) -> Finding:
    return Finding(
        kind="bloated_index",
        severity=Severity.MEDIUM if index.bloat >= GB else Severity.INFO,
        confidence="possible",
        subject=index.index,
        title=f"Index {index.index} on {index.table} is about {percent(index.bloat, index.size)} free space",
        evidence=(*_figures(index), f"{size(index.bloat)} would be given back (estimate)"),
        why="A wide index takes more memory and more reads for the same rows.",
        advice=f"Rebuild {index.index} without blocking writers, when the table will not grow into the space again.",
        fix=call("reindex_table", f"{size(index.bloat)} of it is free space (estimate)", index=index.index),
        impact=index.bloat,
    )


def _unsupported(row: Row) -> Finding:
    columns = list(row["columns"])
    many, named = row["rows"] >= MANY_ROWS, ", ".join(columns)
    built = row["kind"] != "p"
    return Finding(
        kind="missing_index",
        severity=Severity.MEDIUM if many else Severity.INFO,
        confidence="certain",
        subject=f"{row['table']}.{named}",
        title=f"Foreign key {row['table']} ({named}) to {row['parent']} has no index",
        evidence=(
            f"{count(row['rows'])} rows in {row['table']}, {size(row['size'])}",
            f"{plural(row['parent_deletes'], 'row')} of {row['parent']} deleted so far",
            f"constraint {row['name']}",
        ),
        why=f"Each DELETE or key change in {row['parent']} reads {row['table']} whole, under locks; so does each join along it.",
        advice=f"Create an index on {row['table']} ({named}).",
        fix=call("create_index", f"the foreign key {row['name']} has none", table=row["table"], columns=[*columns])
        if built
        else None,
        impact=row["rows"],
    )
