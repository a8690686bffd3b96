"""How an approved command is carried out, and how the end of a command that nobody saw is found out later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from opsagent_jupyter.errors import OpsAgentError, OutcomeUnknown, PreconditionFailed
from opsagent_jupyter.models import Effect, Json, Plan
from opsagent_jupyter.plugin import Note
from opsagent_jupyter.plugins.mongodb import failures, statements
from opsagent_jupyter.plugins.mongodb.connection import READ_SECONDS, REPLICA_SET, Change, Database, Document, Ending

#: Milliseconds in which a command that is quick by nature has to get its locks and end.
QUICK_MS = 10_000


class Reader(Protocol):
    """What a post-check reads with: the member that the command went to."""

    async def read(self, database: str, command: Mapping[str, Any], *, seconds: float = READ_SECONDS) -> Document:
        """Run one command that only reads."""


#: Reads back what a command did; the ending is what the driver saw of it.
Judge = Callable[[Reader, Plan, Ending], Awaitable[Effect]]
#: Puts into a command what the approved text only names.
Fill = Callable[[Document], Document]

#: The ending that a probe judges with.
UNSEEN = Ending(message="its end was not seen", lost=True)


@dataclass(frozen=True)
class Node:
    """One member to read from: the one that a change would go to, whatever the connection prefers for reading."""

    db: Database
    member: str = ""

    async def read(
        self, database: str, command: Mapping[str, Any], *, seconds: float = READ_SECONDS, action: str = ""
    ) -> Document:
        """Run one command that only reads; ``action`` names the right for a refusal."""
        return await self.db.command(database, command, seconds=seconds, member=self.member, action=action)

    async def batch(
        self, database: str, command: Mapping[str, Any], *, seconds: float = READ_SECONDS, action: str = ""
    ) -> list[Document]:
        """The first batch of a command that answers with a cursor: up to 101 documents."""
        found = await self.read(database, command, seconds=seconds, action=action)
        return list(found["cursor"]["firstBatch"])


async def node(db: Database, member: str = "") -> Node:
    """The member that a change would go to: the one that is named, else the primary."""
    if member or db.server.topology != REPLICA_SET or db.server.direct or db.client().read_preference.mode == 0:
        return Node(db, member)
    hello = await db.command("admin", {"hello": 1})
    if not hello.get("primary"):
        raise PreconditionFailed("The replica set has no primary now.", hint="Run get_repl_status to see why.")
    return Node(db, str(hello["primary"]))


async def carry_out(
    db: Database,
    plan: Plan,
    note: Note,
    judge: Judge,
    *,
    fill: Fill | None = None,
    secret: Callable[[], str] | None = None,
) -> Effect:
    """Send the plan's commands as approved and report what they did; ``fill`` puts in a secret that was made for it.

    A cancelled task kills the command on the server and still reports. Raises ``OutcomeUnknown`` when a command was sent
    and neither its end nor its effect could be seen.
    """
    async with db.changing(member=member_of(plan)) as change:
        evidence: dict[str, Json] = {"comment": change.comment, "member": member_of(plan)}
        await (note(evidence, secret=secret) if secret else note(evidence))
        ending = await _send(db, change, plan, fill)
        if ending.lost:
            raise OutcomeUnknown(
                f"The connection broke while the command ran ({change.comment}).", comment=change.comment
            )
        try:
            return await judge(change, plan, ending)
        except OpsAgentError as error:
            raise OutcomeUnknown(
                f"The command ended, but its effect could not be read back: {error.message}"
            ) from error


async def _send(db: Database, change: Change, plan: Plan, fill: Fill | None) -> Ending:
    ending = Ending()
    for statement in plan.statements:
        database, command = statements.read(statement)
        limit = command.get("maxTimeMS")
        seconds = limit / 1000 if limit else db.limits.change_deadline
        command = fill(command) if fill else command
        ending = await change.run(database, command, seconds=seconds, limited=bool(limit))
        if not ending.clean or ending.cancelled:
            break
    return ending


def member_of(plan: Plan) -> str:
    """The member that the plan is for; empty for the primary."""
    return str(plan.before.get("member") or "")


async def found_out(db: Database, plan: Plan, evidence: Mapping[str, Json], judge: Judge) -> Effect:
    """Say how a change ended whose end nobody saw: the database decides, once no operation of ours runs any more."""
    return await unfinished(db, plan, evidence) or await judge(await node(db, member_of(plan)), plan, UNSEEN)


async def unfinished(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect | None:
    """Say why a probe cannot judge yet, or that nothing was sent; None when no operation with our comment runs."""
    comment = evidence.get("comment")
    if not comment:
        return Effect(state="failed", summary="Nothing was sent to the database.")
    at = await node(db, member_of(plan))
    for each in await db.operations(str(comment), member=at.member):
        return Effect(state="unknown", summary=f"It still runs as operation {each['opid']}{_progress(each)}.")
    return None


def _progress(operation: Mapping[str, Any]) -> str:
    if operation.get("waitingForLock"):
        return ", which waits for a lock"
    done = operation.get("progress") or {}
    return f" ({100 * done['done'] // done['total']} % done)" if done.get("total") else ""


def reported(ending: Ending) -> str:
    """What the server said of a command that failed: ``E11000 duplicate key error … (11000)``."""
    if ending.clean:
        return "the server reported success"
    if ending.code == failures.UNAUTHORIZED and ending.error:
        return ending.error.message.removesuffix(".")
    if ending.cancelled and ending.code > 0:
        return f"it was cancelled in the database ({ending.code})"
    if ending.code == failures.MAX_TIME_EXPIRED:
        return f"it reached its time limit and gave up ({ending.code})"
    return f"{ending.message}{f' ({ending.code})' if ending.code > 0 else ''}"


def code_of(ending: Ending, otherwise: str = "") -> str:
    """The error code of an effect: the server's number, the error's own code, or what is given."""
    if ending.code > 0:
        return str(ending.code)
    return ending.error.code if ending.error else otherwise


def unacknowledged(ending: Ending) -> str:
    """What the server adds to a success that too few members of the set have confirmed."""
    concern = ending.reply.get("writeConcernError")
    said = f": {concern.get('errmsg', '')}" if isinstance(concern, Mapping) else ""
    return f" Too few members have confirmed it yet{said}." if concern else ""
