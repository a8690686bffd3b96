"""kill_operation: ends exactly the operation that was approved, never another one with its number, and looks that it is gone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from opsagent_jupyter.errors import EffectMissing, MissingRight, OpsAgentError, OutcomeUnknown, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import failures, shapes, statements
from opsagent_jupyter.plugins.mongodb.changes import operation
from opsagent_jupyter.plugins.mongodb.changes.compact_collection import must_be_member
from opsagent_jupyter.plugins.mongodb.changes.execution import Node, code_of, member_of, node, reported
from opsagent_jupyter.plugins.mongodb.changes.operation import Operation
from opsagent_jupyter.plugins.mongodb.changes.rights import Rights, rights
from opsagent_jupyter.plugins.mongodb.connection import MARK, REPLICA_SET, SHARDED, Change, Database
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import duration

#: Seconds in which an operation that was killed has to be gone, and between two looks.
GONE_WITHIN, PAUSE = 10.0, 0.05
#: Seconds that the command itself may take.
KILL_SECONDS = 5.0

_OPID = r"^(-?\d{1,10}|[\w.-]{1,100}:-?\d{1,10})$"
_WRITES = ("insert", "update", "remove", "delete", "findAndModify", "bulkWrite")
_HANDSHAKES = ("hello", "isMaster", "ismaster")
_SHUTS_DOWN = re.compile(r"replSet|shutdown|_|migrat|moveChunk|setFeature|fsync", re.IGNORECASE)


@tools.change(
    Risk.HIGH,
    phrases=(
        "kill operation {opid}",
        "kill op {opid}",
        "kill opid {opid}",
        "stop operation {opid}",
        "end operation {opid}",
        "terminate operation {opid}",
    ),
    keywords=("kill", "terminate", "stop", "end", "operation", "op", "opid"),
    patterns=(r"killop\b", r"(kill|terminate)\s+(the\s+)?(operation|opid|op)\b"),
)
async def kill_operation(
    db: Database,
    opid: Annotated[
        str,
        BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
        Field(pattern=_OPID),
        Arg("the number of the operation, as get_current_ops shows it", slot="pid", example="12345"),
    ],
    member: Annotated[str, Arg("host:port of the member that runs it; without it the primary")] = "",
) -> Plan:
    """End one running operation; its connection stays."""
    await must_be_member(db, member)
    at = await node(db, member)
    held = await rights(db)
    found = await _operation(at, opid)
    _refuse(db, found)
    _permit(held, found)
    risk, reasons = _risk(found)
    return Plan(
        title=f"Kill operation {opid} ({found.who})",
        statements=(statements.written("admin", {"killOp": 1, "op": _number(opid)}),),
        risk=risk,
        reasons=reasons,
        lock="it takes none; the operation gives back what it holds",
        size=_size(found),
        duration="at once, when the operation next looks whether it was killed",
        undo_note="An operation cannot be brought back; its client gets error 11601 and may send it again.",
        cautions=tuple(_cautions(found)),
        preconditions={**found.identity, "process": await _process(at)},
        before={
            "member": at.member,
            "identity": found.identity,
            "started": found.started.isoformat() if found.started else "",
        },
        execution="once",
    )


@kill_operation.assesses
def _(arguments: Any) -> Assessment:  # noqa: ARG001  # whom it hits, only the plan can see
    return Assessment(risk=Risk.HIGH, reasons=("it ends the work of somebody else",))


@kill_operation.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    async with db.changing(member=member_of(plan)) as change:
        await note({"comment": change.comment, "member": member_of(plan)})
        if ended := await _ended_before(db, change, plan):
            return ended
        database, command = statements.read(plan.statements[0])
        ending = await change.run(database, command, seconds=KILL_SECONDS, limited=False)
        if ending.lost:
            raise OutcomeUnknown(f"The connection broke while {_subject(plan)} was being killed.")
        if not ending.clean:
            return Effect(
                state="failed",
                summary=f"{_subject(plan)} was not killed: {reported(ending)}.",
                error_code=code_of(ending),
            )
        try:
            return await _followed(db, change, plan)
        except OpsAgentError as error:
            raise OutcomeUnknown(f"The kill was sent, but its effect could not be seen: {error.message}") from error


@kill_operation.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    if not evidence.get("comment"):
        return Effect(state="failed", summary="Nothing was sent to the database.")
    if await _there(db, await node(db, member_of(plan)), plan) is None:
        return Effect(state="succeeded", summary=f"{_subject(plan)} is gone; who ended it cannot be told.")
    return Effect(state="unknown", summary=f"{_subject(plan)} is still there; whether the kill was sent is not known.")


def _number(opid: str) -> int | str:
    return int(opid) if opid.lstrip("-").isdigit() else opid


async def _process(at: Node) -> str:
    """The id of the server process: after a restart the same number means another operation."""
    hello = await at.read("admin", {"hello": 1})
    return str(hello.get("topologyVersion", {}).get("processId", ""))


async def _operation(at: Node, opid: str) -> Operation:
    found, all_seen = await operation.found(at, opid, local=_is_local(at.db, opid))
    if found:
        return found[0]
    if not all_seen:
        raise MissingRight(
            f"Operation {opid} is none of this user's, and other users' cannot be seen.",
            hint=f"Grant the user {failures.ROLES['inprog']}.",
            right="inprog",
        )
    raise PreconditionFailed(
        f"There is no operation {opid} now: it has ended, or was never there.",
        hint="A query gets a new number with each batch that it fetches; get_current_ops shows those of now.",
    )


def _is_local(db: Database, opid: str) -> bool:
    """Whether it is an operation of mongos itself; those of the shards have the shard's name in front."""
    return db.server.topology == SHARDED and ":" not in opid


def _refuse(db: Database, found: Operation) -> None:
    """Refuse our own work, the server's own threads, replication, and what has a better way to be ended."""
    opid = found.opid
    if found.application.startswith(f"{MARK}:"):
        raise PreconditionFailed(
            f"Operation {opid} is OpsAgent's own ({found.name or found.row.get('op')}).",
            hint="Cancel the request that started it. If its host has died: drop_index aborts an index build.",
        )
    if found.is_index_build and (db.server.topology == REPLICA_SET or not found.client):
        builds = (
            "builds an index, which the whole set takes part in" if found.client else "is a thread that builds an index"
        )
        raise PreconditionFailed(
            f"Operation {opid} {builds}: it is not killed.",
            hint=f"drop_index with the name of that index aborts the build cleanly ({found.namespace}).",
        )
    if not found.client or "__system@local" in found.users:
        raise PreconditionFailed(f"Operation {opid} is the server's own ({found.row.get('desc', 'internal')}).")
    if found.name in _HANDSHAKES or found.row.get("op") == "none":
        raise PreconditionFailed(f"Operation {opid} is a client's idle wait ({found.name or 'none'}): it does no work.")
    if "oplog.rs" in found.namespace or _SHUTS_DOWN.match(found.name):
        raise PreconditionFailed(f"Operation {opid} belongs to replication or to the server itself ({found.name}).")


def _permit(held: Rights, found: Operation) -> None:
    own = bool(set(found.users) & set(held.users))
    if not own and not held.may_on_cluster("killop"):
        raise failures.missing_right("killOp", "the cluster")


def _risk(found: Operation) -> tuple[Risk, tuple[str, ...]]:
    done = "it ends a running operation, and its client gets an error"
    if found.name in operation.MAINTENANCE:
        return Risk.CRITICAL, (f"it is running maintenance ({found.name}), which would be lost", done)
    if found.row.get("transaction"):
        return Risk.HIGH, (done, "it is part of a transaction, which is aborted as a whole")
    return Risk.HIGH, (done,)


def _size(found: Operation) -> str:
    waits = ", waiting for a lock" if found.row.get("waitingForLock") else ""
    return f"running for {found.age}{waits} on {found.namespace}: {shapes.shown(found.command)}"


def _cautions(found: Operation) -> list[str]:
    cautions = []
    if found.row.get("op") in _WRITES or found.name in _WRITES:
        cautions.append("It writes: documents that it has written already stay so, unless it is in a transaction.")
    if found.name in ("aggregate", "mapReduce") and "$merge" in str(shapes.shape(found.command)):
        cautions.append("It writes with $merge: what it has written already stays so.")
    if found.row.get("killPending"):
        cautions.append("Somebody has asked to kill it already.")
    return cautions


def _subject(plan: Plan) -> str:
    identity: Any = plan.before["identity"]
    return f"Operation {identity['opid']}"


async def _there(db: Database, reader: Change | Node, plan: Plan) -> Operation | None:
    """The approved operation, if it still runs; another one with its number is not it."""
    identity: Any = plan.before["identity"]
    found, _ = await operation.found(reader, str(identity["opid"]), local=_is_local(db, str(identity["opid"])))
    return next((each for each in found if each.same_as(identity, str(plan.before["started"]))), None)


async def _ended_before(db: Database, change: Change, plan: Plan) -> Effect | None:
    """The effect of a kill that nobody needs any more; looked at immediately before it would be sent."""
    if await _there(db, change, plan) is not None:
        return None
    return Effect(
        state="succeeded",
        summary=f"{_subject(plan)} had ended by itself before the kill; nothing was sent.",
        figures={"killed": False},
    )


async def _followed(db: Database, change: Change, plan: Plan) -> Effect:
    """Look until the operation is gone: the server answers every kill with success, whether it hits or not."""
    waited = 0.0
    while (there := await _there(db, change, plan)) is not None and waited < GONE_WITHIN:
        await asyncio.sleep(PAUSE)
        waited += PAUSE
    if there is None:
        return Effect(
            state="succeeded",
            summary=f"{_subject(plan)} is gone{f' after {duration(waited)}' if waited else ''}.",
            figures={"killed": True, "seconds": round(waited, 3)},
        )
    asked = " and knows that it was killed" if there.row.get("killPending") else ""
    return Effect(
        state="unknown",
        summary=f"{_subject(plan)} still runs {duration(waited)} after the kill{asked}: it ends when it next looks.",
        error_code=EffectMissing.code,
    )
