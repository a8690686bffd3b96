"""Indexes that cost without serving: redundant, unused, hidden and too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from opsagent_jupyter.models import Suggestion
from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.mongodb.connection import Database
from opsagent_jupyter.plugins.mongodb.diagnosis import scope
from opsagent_jupyter.plugins.mongodb.reads.indexes import YOUNG, Judged, dropping, surveyed
from opsagent_jupyter.plugins.wording import count, duration, plural, size

#: Indexes of one collection from which on every write pays dearly; the server's own limit is 64.
MANY = 20
#: Bytes from which an unused index is more than a remark.
BIG = 10 * 1024**2


async def survey(db: Database) -> Survey:
    """Look at every index."""
    places, notes = await scope.databases(db)
    findings: list[Finding] = []
    said = list(notes)
    for place in places:
        found, more = await surveyed(db, database=place)
        findings += [*_findings(found), *_many(found)]
        said += more
    return Survey(tuple(findings), tuple(said))


def _findings(found: Sequence[Judged]) -> Iterator[Finding]:
    for each in found:
        if each.finding == "redundant":
            yield _redundant(each)
        elif each.finding == "unused":
            yield _unused(each)
        elif each.index.option("hidden"):
            yield _hidden(each)


def _subject(each: Judged) -> str:
    return f"{each.collection.full}.{each.index.name}"


def _redundant(each: Judged) -> Finding:
    return Finding(
        kind="redundant_index",
        severity=Severity.MEDIUM,
        confidence="certain",
        subject=_subject(each),
        title=f"Index {each.index.name} {each.index.written} of {each.collection.shown} {each.why}",
        evidence=(f"{size(each.size)} on disk", f"{count(each.usage.total)} uses" if each.usage else "use not visible"),
        why="Every write keeps it up, and the other index serves the same queries.",
        advice="Drop it; hide it first if you want to be able to take that back at once.",
        fix=dropping(each),
        impact=float(each.size),
    )


def _unused(each: Judged) -> Finding:
    since = each.usage.since if each.usage else None
    seconds = (datetime.now(UTC) - since).total_seconds() if since else 0.0
    young = seconds < YOUNG
    return Finding(
        kind="unused_index",
        severity=Severity.INFO if young or each.size < BIG else Severity.MEDIUM,
        confidence="possible" if young else "likely",
        subject=_subject(each),
        title=f"Index {each.index.name} {each.index.written} of {each.collection.shown} was never used",
        evidence=(f"{size(each.size)} on disk", f"counted for {duration(max(seconds, 0.0))}, on every member"),
        why="Every write keeps it up for nobody.",
        advice="Hide it, wait for a month's end, then drop it.",
        fix=dropping(each),
        impact=float(each.size),
    )


def _hidden(each: Judged) -> Finding:
    fix = Suggestion(
        tool="mongodb.drop_index",
        arguments={
            "collection": each.collection.name,
            "index": each.index.name,
            "database": each.collection.database,
        },
        why="it is hidden, and nothing uses it",
    )
    return Finding(
        kind="hidden_index",
        severity=Severity.INFO,
        confidence="certain",
        subject=_subject(each),
        title=f"Index {each.index.name} of {each.collection.shown} is hidden and still kept up",
        evidence=(f"{size(each.size)} on disk",),
        why="It costs every write and serves no query.",
        advice="Drop it if nobody missed it, or unhide it.",
        fix=fix,
        impact=float(each.size),
    )


def _many(found: Sequence[Judged]) -> Iterator[Finding]:
    counts = Counter(each.collection.full for each in found)
    for name, number in counts.items():
        if number >= MANY:
            yield Finding(
                kind="many_indexes",
                severity=Severity.MEDIUM,
                confidence="certain",
                subject=name,
                title=f"{name} has {plural(number, 'index', 'indexes')}",
                evidence=("the server's limit is 64",),
                why="Every write keeps all of them up.",
                advice="Look with list_indexes for those that few queries use, and merge those that begin alike.",
                impact=float(number),
            )
