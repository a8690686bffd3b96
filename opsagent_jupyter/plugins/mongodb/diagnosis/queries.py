"""Recorded queries: those that scan whole collections, and databases where nothing is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator

from opsagent_jupyter.models import Suggestion
from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.mongodb.connection import SHARDED, Database
from opsagent_jupyter.plugins.mongodb.diagnosis import scope
from opsagent_jupyter.plugins.mongodb.names import Index
from opsagent_jupyter.plugins.mongodb.reads.profiler import Kind, Recording, recorded, remedy
from opsagent_jupyter.plugins.wording import count, milliseconds, plural

#: Mean milliseconds of a scan, or documents that it examines each time, from which on it is a serious case.
SLOW, MANY = 500.0, 100_000
#: Kinds of queries of one database that are told.
TOLD = 10


async def survey(db: Database) -> Survey:
    """Look at what the profilers hold."""
    if db.server.topology == SHARDED:
        return Survey(notes=("Behind mongos there is no profiler to read: attach a shard to see its slow queries.",))
    places, notes = await scope.databases(db)
    findings = [finding for place in places async for finding in _of_database(db, place)]
    return Survey(tuple(findings), notes)


async def _of_database(db: Database, place: str) -> AsyncIterator[Finding]:
    found = await recorded(db, place)
    for kind in [kind for kind in found.kinds if kind.wasteful][:TOLD]:
        yield _scan(kind, found, *await remedy(db, place, kind))
    if found.level == 0:
        yield _not_recorded(place)
    if found.level == 2:
        yield _everything(place, found)


def _scan(kind: Kind, found: Recording, fix: Suggestion | None, serving: Index | None) -> Finding:
    times, examined = len(kind.rows), kind.total("docsExamined")
    mean = kind.millis / times
    severity = Severity.HIGH if mean >= SLOW or examined / times >= MANY else Severity.MEDIUM
    advice = (
        "Build the index: it follows equality, sort and range of the query." if fix else "Explain it: explain_query."
    )
    if serving:  # the profiler says what was, not what would be now
        severity = Severity.INFO
        advice = (
            f"The index {serving.name} {serving.written} serves it now. If it is still slow, explain it: explain_query."
        )
    return Finding(
        kind="missing_index",
        severity=severity,
        confidence="possible" if serving else "likely",
        subject=f"{kind.namespace} {kind.shape}",
        title=f"{kind.shape} {'scanned' if serving else 'scans'} all of {kind.collection}, {plural(times, 'time')} at "
        f"{milliseconds(mean)}",
        evidence=(
            f"examined {count(examined)} documents to return {count(kind.returned)}",
            f"recorded by the profiler of {found.database}",
        ),
        why="It reads the whole collection for a few documents, and more with every document that is added.",
        advice=advice,
        fix=fix,
        impact=float(kind.millis),
    )


def _not_recorded(place: str) -> Finding:
    fix = Suggestion(
        tool="mongodb.set_profiling_level",
        arguments={"level": 1, "database": place},
        why="records operations that are slow",
    )
    return Finding(
        kind="queries_not_recorded",
        severity=Severity.INFO,
        confidence="certain",
        subject=place,
        title=f"Slow operations of {place} are not recorded: its profiler is off",
        evidence=(),
        why="Without a record nobody can say which queries are slow.",
        advice="Switch it on for slow operations (level 1) while you look.",
        fix=fix,
    )


def _everything(place: str, found: Recording) -> Finding:
    fix = Suggestion(
        tool="mongodb.set_profiling_level",
        arguments={"level": 1, "database": place},
        why="records slow operations only",
    )
    return Finding(
        kind="every_query_recorded",
        severity=Severity.MEDIUM,
        confidence="certain",
        subject=place,
        title=f"The profiler of {place} records every operation (level 2)",
        evidence=(f"{plural(found.rows, 'recorded operation')} were read",),
        why="Each operation writes a second one, with the values of the query.",
        advice="Record slow operations only (level 1).",
        fix=fix,
    )
