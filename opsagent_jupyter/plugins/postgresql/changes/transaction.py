"""Statements of one approved plan as one transaction: all of them or none, and its number tells later which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from opsagent_jupyter.errors import OpsAgentError, OutcomeUnknown
from opsagent_jupyter.models import Effect, Json, Plan
from opsagent_jupyter.plugin import Note
from opsagent_jupyter.plugins.postgresql.changes.execution import Judge, Reader, reported, session_of
from opsagent_jupyter.plugins.postgresql.connection import Change, Database, Ending
from opsagent_jupyter.plugins.postgresql.queries import query

BEGIN, COMMIT = "BEGIN", "COMMIT"


def transacted(*statements: str) -> tuple[str, ...]:
    """The statements as they are shown and sent: between BEGIN and COMMIT."""
    return (BEGIN, *statements, COMMIT)


async def carry_out_whole(
    db: Database,
    plan: Plan,
    note: Note,
    judge: Judge,
    *,
    sent: Sequence[str],
    secret: Callable[[], str] | None = None,
) -> Effect:
    """Send a plan's transaction and report what it did. ``sent`` are the plan's statements, with what is filled in only
    now; the evidence holds the transaction's number, by which ``fate`` finds out how it ended.

    Raises ``OutcomeUnknown`` when the COMMIT was sent and its end was not seen.
    """
    async with db.changing(session_of(plan)) as change:
        begun = await change.run(sent[0])
        if not begun.clean:
            return _failed(plan, begun, "the transaction did not begin")
        (row,) = await change.rows(query("transaction_id"))
        await note({"pid": change.pid, "backend_start": change.backend_start, "xid": row["xid"]}, secret=secret)
        for statement in sent[1:-1]:
            ending = await change.run(statement)
            if not ending.clean or ending.cancelled:
                # the COMMIT was not sent, so the server rolls back, whether or not it hears us say so
                await _give_up(change)
                return _failed(plan, ending, "it is rolled back, and nothing was changed")
        ending = await change.run(sent[-1])
        if ending.lost:
            raise OutcomeUnknown(f"The connection broke while backend {change.pid} was committing.", pid=change.pid)
        if not ending.clean:
            return _failed(plan, ending, "it is rolled back, and nothing was changed")
        reader: Reader = change if change.alive else db
        try:
            return await judge(reader, plan, ending)
        except OpsAgentError as error:
            raise OutcomeUnknown(
                f"The transaction was committed, but its effect could not be read back: {error.message}"
            ) from error


async def _give_up(change: Change) -> None:
    if change.alive:
        await change.run("ROLLBACK")


def _failed(plan: Plan, ending: Ending, otherwise: str) -> Effect:
    said = "the connection broke" if ending.lost else reported(ending)
    if ending.cancelled and not ending.sqlstate:
        said = "it was cancelled"
    return Effect(state="failed", summary=f"{plan.title}: {said}; {otherwise}.", error_code=ending.sqlstate)


async def fate(db: Database, evidence: Mapping[str, Json]) -> Effect | None:
    """How a transaction ended whose end nobody saw; None when it was committed, and the catalog shows the effect."""
    xid = evidence.get("xid")
    if xid is None:
        return Effect(state="failed", summary="Nothing was sent to the database.")
    status = (await db.one(query("transaction_status"), {"xid": str(xid)}))["status"]
    if status == "committed":
        return None
    if status == "aborted":
        return Effect(state="failed", summary="The transaction was rolled back, and nothing was changed.")
    if status == "in progress":
        return Effect(state="unknown", summary=f"It may still be running in backend {evidence.get('pid')}.")
    return Effect(state="unknown", summary="The server does not know any more how the transaction ended.")
