"""compact_collection: gives the free space of one collection on one member back to the file system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from opsagent_jupyter.errors import DatabaseError, EffectMissing, InvalidArguments, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import statements
from opsagent_jupyter.plugins.mongodb.changes import preflight
from opsagent_jupyter.plugins.mongodb.changes.execution import Node, Reader, carry_out, code_of, found_out, reported
from opsagent_jupyter.plugins.mongodb.connection import REPLICA_SET, SHARDED, Database, Document, Ending
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import duration, listing, percent, size

#: The release from which the server knows ``dryRun`` and ``freeSpaceTargetMB``; an older one ignores them and compacts.
KNOWS_DRY_RUN = (8, 0)


@tools.change(
    Risk.MEDIUM,
    phrases=(
        "compact {collection}",
        "compact collection {collection}",
        "compact the collection {collection}",
        "give back the free space of {collection}",
        "reclaim the disk space of {collection}",
    ),
    keywords=("compact", "reclaim", "free", "space", "disk", "collection"),
    patterns=(r"compact\s+(the\s+)?collection\b",),
)
async def compact_collection(
    db: Database,
    collection: Annotated[str, Arg("the collection", slot="collection", example="orders")],
    database: Annotated[str, Arg("its database, when it is not the connection's", slot="database")] = "",
    member: Annotated[str, Arg("host:port of a member of the set; without it the primary")] = "",
    free_space_target_mb: Annotated[
        int | None, Field(ge=1, le=1_000_000), Arg("do nothing below this many MB to give back (from 8.0)")
    ] = None,
    *,
    force: Annotated[bool, Arg("needed for the primary of a set")] = False,
) -> Plan:
    """Give the free space of a collection back to the file system, on one member of the set."""
    await _check(db, member, free_space_target_mb)
    found = await preflight.target(db, collection, database, "compact", member=member)
    preflight.refuse_while_building(found)
    where = await _where(found.at)
    _permit(where, member, force=force)
    command = _command(found, where, free_space_target_mb)
    free, exact = await _free(found, command)
    shown, risk = found.collection.shown, Risk.HIGH if where.primary else Risk.MEDIUM
    return Plan(
        title=f"Compact {shown} on {where.shown}",
        statements=(statements.written(found.collection.database, command),),
        risk=risk,
        reasons=_reasons(where),
        lock=f"none that reads and writes of {shown} wait for; no index is made or dropped and the collection is not "
        "dropped meanwhile; it can be cancelled",
        size=f"{found.measures}; {size(found.stats['storageSize'])} on disk here, of which {size(free)} "
        f"({percent(free, found.stats['storageSize'])}) {'can be given back' if exact else 'are free inside'}",
        duration=preflight.estimated(int(found.stats["storageSize"])),
        undo_note="There is nothing to take back: the documents are the same.",
        cautions=tuple(_cautions(where, free)),
        preconditions={**found.bound, "member": where.name, "primary": where.primary},
        before={
            "member": found.at.member,
            "where": where.shown,
            "shown": shown,
            "storage": int(found.stats["storageSize"]),
        },
        execution="probeable",
    )


@compact_collection.assesses
def _(arguments: Any) -> Assessment:
    if arguments.force:
        return Assessment(risk=Risk.HIGH, reasons=("it is forced on a primary",))
    return Assessment(risk=Risk.MEDIUM)


@compact_collection.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@compact_collection.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


@dataclass(frozen=True)
class Where:
    """The one member that is compacted; nothing of it is replicated."""

    name: str
    """host:port as the set calls it; empty for a standalone."""
    primary: bool
    """Whether it is the primary of a set."""
    others: tuple[str, ...]

    @property
    def shown(self) -> str:
        return f"{self.name} ({'the primary' if self.primary else 'a secondary'})" if self.name else "this server"


async def _where(at: Node) -> Where:
    hello = await at.read("admin", {"hello": 1})
    if not hello.get("setName"):
        return Where("", primary=False, others=())
    others = [each for each in (*hello.get("hosts", ()), *hello.get("passives", ())) if each != hello.get("primary")]
    return Where(hello.get("me", at.member), bool(hello.get("isWritablePrimary")), tuple(others))


async def _check(db: Database, member: str, target: int | None) -> None:
    if target is not None and db.server.number < KNOWS_DRY_RUN:
        raise InvalidArguments(
            f"MongoDB {db.server.version} knows no free_space_target_mb: it would ignore it and compact.",
            hint="Leave it out.",
            path="free_space_target_mb",
        )
    if db.server.topology == SHARDED:
        raise PreconditionFailed("mongos does not compact: attach the members of each shard, and ask there.")
    await must_be_member(db, member)


async def must_be_member(db: Database, member: str) -> None:
    """Refuse a member that the set does not have: a command must not reach a server that nobody has attached."""
    if not member or member in db.server.hosts:
        return
    if db.server.topology != REPLICA_SET:
        raise InvalidArguments(f"This is a {db.server.topology}: it has no members to choose from.", path="member")
    raise InvalidArguments(
        f"{member!r} is no member of {db.server.set_name}.",
        hint=f"Its members are {listing(db.server.hosts, 9)}.",
        path="member",
    )


def _permit(where: Where, member: str, *, force: bool) -> None:
    if where.primary and not force:
        hint = f"Compact a secondary first: member={where.others[0]}. " if where.others else ""
        raise PreconditionFailed(
            f"{where.shown} is compacted only when it is forced.",
            hint=f"{hint}Or ask with force=true, which slows down the primary while it runs.",
        )
    if force and not where.primary:
        there = "a secondary" if where.name else "a standalone"
        raise InvalidArguments(f"{member or 'This server'} is {there}: nothing has to be forced.", path="force")


def _command(found: preflight.Target, where: Where, target: int | None) -> Document:
    return {
        "compact": found.collection.name,
        **({"force": True} if where.primary else {}),
        **({"freeSpaceTargetMB": target} if target is not None else {}),
    }


async def _free(found: preflight.Target, command: Document) -> tuple[int, bool]:
    """Bytes that would be given back, and whether the server itself says so; a dry run only where it is one."""
    if found.db.server.number >= KNOWS_DRY_RUN:
        try:
            reply = await found.at.read(found.collection.database, {**command, "dryRun": True})
        except (DatabaseError, PreconditionFailed):
            reply = {}
        if "estimatedBytesFreed" in reply:
            return int(reply["estimatedBytesFreed"]), True
    return int(found.stats.get("freeStorageSize", 0)), False


def _reasons(where: Where) -> tuple[str, ...]:
    if where.primary:
        return ("it is forced on the primary: it competes with everybody's work there", "no document changes")
    return (f"it reads and writes much of the disk of {where.shown}", "no document changes")


def _cautions(where: Where, free: int) -> list[str]:
    cautions = []
    if free < 1024**2:
        cautions.append("There is next to nothing to give back, as of the last checkpoint (at most a minute ago).")
    if where.name:
        cautions.append(f"Only {where.name} is compacted: it is not replicated, so ask for each member.")
    if where.name and not where.primary:
        cautions.append("The secondary may fall behind while it runs.")
    return cautions


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Compare the size on disk before and after: that, not the report, is what was wanted."""
    before: Any = plan.before
    database, command = statements.read(plan.statements[0])
    stats = await preflight.stats_of(reader, database, command["compact"])
    now = int(stats.get("storageSize", before["storage"]))
    freed = max(int(ending.reply.get("bytesFreed", 0)), before["storage"] - now)
    figures: dict[str, Json] = {"storage_before": before["storage"], "storage": now, "freed": freed}
    if not stats:
        summary = f"The collection {before['shown']} is gone: {reported(ending)}."
        return Effect(state="failed", summary=summary, error_code=code_of(ending, EffectMissing.code))
    if not ending.clean and not (ending.lost and freed):
        kept = f"; {size(freed)} given back until then stay so" if freed > 0 else "; nothing has changed"
        return Effect(
            state="failed",
            summary=f"{before['shown']} was not compacted: {reported(ending)}{kept}.",
            error_code=code_of(ending, EffectMissing.code),
            figures=figures,
        )
    took = f" in {duration(ending.seconds)}" if ending.seconds else ""
    gave = (
        f"{size(freed)} given back, {size(now)} on disk now"
        if freed > 0
        else "without effect: there was nothing to give back"
    )
    return Effect(
        state="succeeded",
        summary=f"{before['shown']} is compacted on {before['where']}{took}: {gave}.",
        figures=figures,
    )
