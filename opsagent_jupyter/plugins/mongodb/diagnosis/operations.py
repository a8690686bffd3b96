"""Operations that run too long or wait."""

from __future__ import annotations

from collections.abc import Iterator

from opsagent_jupyter.models import Json, Suggestion
from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.mongodb.connection import Database, Document
from opsagent_jupyter.plugins.mongodb.reads.operations import TOO_LONG, running
from opsagent_jupyter.plugins.wording import duration

#: Seconds from which an operation is a serious case, and from which waiting for a lock is worth telling.
SERIOUS, WAITING = 300.0, 5.0


async def survey(db: Database) -> Survey:
    """Look at what runs now."""
    rows, notes = await running(db)
    return Survey(tuple(found for row in rows for found in _findings(row)), notes)


def _findings(row: Document) -> Iterator[Finding]:
    if row["waits"] and row["running"] >= WAITING:
        yield _waiting(row)
    elif row["running"] >= TOO_LONG and not row["build"]:
        yield _long(row)


def _subject(row: Document) -> str:
    return f"opid {row['opid']}" + (f" on {row['member']}" if row["member"] else "")


def _waiting(row: Document) -> Finding:
    return Finding(
        kind="waiting_operation",
        severity=Severity.HIGH,
        confidence="certain",
        subject=_subject(row),
        title=f"{_subject(row)} on {row['namespace']} waits for a lock, for {duration(row['running'])} so far",
        evidence=_evidence(row),
        why="Who waits for a lock holds up others behind it.",
        advice="Look with get_current_ops for what holds the lock: an fsync lock, a build, or another change.",
        impact=row["running"],
    )


def _long(row: Document) -> Finding:
    arguments: dict[str, Json] = {"opid": str(row["opid"])}
    if ":" in row["member"]:
        arguments["member"] = row["member"]
    fix = Suggestion(tool="mongodb.kill_operation", arguments=arguments, why=f"it runs {duration(row['running'])}")
    return Finding(
        kind="long_operation",
        severity=Severity.HIGH if row["running"] >= SERIOUS else Severity.MEDIUM,
        confidence="certain",
        subject=_subject(row),
        title=f"{_subject(row)} on {row['namespace']} runs for {duration(row['running'])}",
        evidence=_evidence(row),
        why="A long operation keeps its cache and its snapshot, and slows down everybody.",
        advice="Ask its owner, then end it; if it comes again, explain its query." if row["killable"] else "Watch it.",
        fix=fix if row["killable"] else None,
        impact=row["running"],
    )


def _evidence(row: Document) -> tuple[str, ...]:
    parts = (row["command"], row["plan"], row["application"] and f"application {row['application']}", row["user"])
    return tuple(str(part) for part in parts if part)
