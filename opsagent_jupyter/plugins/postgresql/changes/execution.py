"""How an approved plan is carried out, and how the end of a statement that nobody saw is found out later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from opsagent_jupyter.errors import OpsAgentError, OutcomeUnknown
from opsagent_jupyter.models import Effect, Json, Plan
from opsagent_jupyter.plugin import Note
from opsagent_jupyter.plugins.postgresql.connection import Change, Database, Ending, Row
from opsagent_jupyter.plugins.postgresql.queries import query

#: Looks at a backend that is idle but not gone, and seconds between them.
LEAVING, PAUSE = 10, 0.1


class Reader(Protocol):
    """What a post-check reads with: the change's own connection, or the pool when that one is gone."""

    async def rows(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """Run one read."""


#: Reads back what a statement did; the ending is what the driver saw of it.
Judge = Callable[[Reader, Plan, Ending], Awaitable[Effect]]

#: The ending that a probe judges with.
UNSEEN = Ending(message="its end was not seen", sqlstate="08006")


async def carry_out(db: Database, plan: Plan, note: Note, judge: Judge) -> Effect:
    """Send the plan's statements over a connection of their own and report what they did.

    A cancelled task cancels the statement in the server and still reports. Raises ``OutcomeUnknown`` when a statement
    was sent and neither its end nor its effect could be seen.
    """
    async with db.changing(session_of(plan)) as change:
        await note({"pid": change.pid, "backend_start": change.backend_start})
        ending = await _send(change, plan)
        if ending.lost:
            raise OutcomeUnknown(
                f"The connection broke while backend {change.pid} was running the statement.",
                pid=change.pid,
                backend_start=change.backend_start,
            )
        reader: Reader = change if change.alive else db
        try:
            return await judge(reader, plan, ending)
        except OpsAgentError as error:
            raise OutcomeUnknown(
                f"The statement ended, but its effect could not be read back: {error.message}"
            ) from error


async def _send(change: Change, plan: Plan) -> Ending:
    ending = Ending()
    for statement in plan.statements:
        ending = await change.run(statement)
        if not ending.clean:
            break
    return ending


def session_of(plan: Plan) -> dict[str, str]:
    """The session settings that were approved with the plan."""
    settings = plan.before.get("session")
    return {str(name): str(value) for name, value in settings.items()} if isinstance(settings, dict) else {}


def session(db: Database, lock_timeout: str) -> dict[str, Json]:
    """Session settings of a change: this patience for a lock ("0": no end), and no limit on the statement."""
    settings: dict[str, Json] = {"lock_timeout": lock_timeout, "statement_timeout": "0"}
    return settings | ({"transaction_timeout": "0"} if db.server.major >= 17 else {})


async def found_out(db: Database, plan: Plan, evidence: Mapping[str, Json], judge: Judge) -> Effect:
    """Say how a change ended whose end nobody saw: the catalog decides, once its backend is done."""
    return await unfinished(db, plan, evidence) or await judge(db, plan, UNSEEN)


async def unfinished(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect | None:
    """Say why a probe cannot judge yet, or that nothing was sent; None when the backend is done and the catalog decides."""
    pid, start = evidence.get("pid"), evidence.get("backend_start")
    if pid is None or start is None:
        return Effect(state="failed", summary="Nothing was sent to the database.")
    for _ in range(LEAVING):
        found = await db.rows(query("backend_state"), {"pid": pid, "backend_start": start})
        if not found or (found[0]["state"] == "idle" and found[0]["query"] == plan.statements[-1]):
            return None
        if found[0]["state"] == "active":
            break
        await asyncio.sleep(PAUSE)  # idle: its client has gone and it is about to leave, or nothing was sent yet
    waits = f", which waits for pid {found[0]['locker']}" if found[0]["locker"] else ""
    phase = f" ({found[0]['phase']})" if found[0]["phase"] else ""
    return Effect(state="unknown", summary=f"It may still be running in backend {pid}{phase}{waits}.")


def reported(ending: Ending) -> str:
    """What the server said of a statement that failed: ``canceling statement due to user request (57014)``."""
    if ending.cancelled and ending.sqlstate:
        return f"it was cancelled in the database ({ending.sqlstate})"
    if ending.sqlstate:
        return f"{ending.message} ({ending.sqlstate})"
    warnings = [notice for notice in ending.notices if notice.startswith("WARNING")]
    return "; ".join(warnings) or "the server reported success"
