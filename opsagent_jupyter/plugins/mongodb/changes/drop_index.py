"""drop_index: hides an index first, if asked so, or removes it, and keeps what is needed to build it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from opsagent_jupyter.errors import EffectMissing, InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk, Suggestion
from opsagent_jupyter.names import near
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import names, statements
from opsagent_jupyter.plugins.mongodb.changes import index_spec, preflight
from opsagent_jupyter.plugins.mongodb.changes.execution import (
    QUICK_MS,
    Reader,
    carry_out,
    code_of,
    found_out,
    reported,
    unacknowledged,
)
from opsagent_jupyter.plugins.mongodb.connection import SHARDED, Database, Document, Ending
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import count, listing, plural, size


@tools.change(
    Risk.MEDIUM,
    phrases=(
        "drop index {index} of {collection}",
        "drop index {index}",
        "remove the index {index} from {collection}",
        "delete the index {index} of {collection}",
        "drop the unused index {index} on {collection}",
        "hide index {index} of {collection}",
        "unhide index {index} of {collection}",
    ),
    keywords=("drop", "remove", "delete", "hide", "unhide", "index"),
    patterns=(r"(drop|remove|delete|hide|unhide)\s+(the\s+)?((unused|duplicate|redundant|hidden)\s+)?index\b",),
)
async def drop_index(
    db: Database,
    collection: Annotated[str, Arg("the collection", slot="collection", example="orders")],
    index: Annotated[str, Arg("the name of the index", slot="index", example="status_1")],
    database: Annotated[str, Arg("its database, when it is not the connection's", slot="database")] = "",
    *,
    hide: Annotated[bool, Arg("only hide it from queries: taken back at once")] = False,
    unhide: Annotated[bool, Arg("let queries use a hidden index again")] = False,
) -> Plan:
    """Drop an index, or only hide it from queries, which can be taken back at once."""
    if hide and unhide:
        raise InvalidArguments("Give hide or unhide, not both.", path="unhide")
    if index in ("*", "_id_"):
        every = "Every index has its own request." if index == "*" else "MongoDB does not drop or hide it (error 72)."
        raise PreconditionFailed(f"{'All indexes are' if index == '*' else 'The index on _id is'} not dropped. {every}")
    found = await preflight.target(db, collection, database, "collMod" if hide or unhide else "dropIndex")
    own = _wanted(found, index)
    if hide or unhide:
        return await _hiding(found, own, hidden=hide)
    return await _dropping(found, own)


@drop_index.assesses
def _(arguments: Any) -> Assessment:
    if arguments.hide or arguments.unhide:
        return Assessment(risk=Risk.MEDIUM)
    return Assessment(risk=Risk.HIGH, reasons=("an index is removed for good: building it again takes a full build",))


@drop_index.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@drop_index.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


def _wanted(found: preflight.Target, name: str) -> names.Index:
    for each in found.indexes:
        if each.name == name:
            if each.spec.get("clustered"):
                raise PreconditionFailed(f"{name} is the clustered index: the collection itself is stored by it.")
            return each
    known = [each.name for each in found.indexes if each.name != "_id_"]
    raise InvalidArguments(
        f"{found.collection.shown} has no index {name!r}{near(name, known)}.",
        hint="Names are case-sensitive; list_indexes shows them.",
        path="index",
    )


# -- hiding


async def _hiding(found: preflight.Target, own: names.Index, *, hidden: bool) -> Plan:
    if bool(own.spec.get("hidden")) == hidden:
        raise PreconditionFailed(f"{own.name} is {'hidden already' if hidden else 'not hidden'}.")
    if own.name in found.builds:
        raise PreconditionFailed(
            f"{own.name} is still being built.", hint="Wait for it, or drop it to abort the build."
        )
    collection = found.collection
    verb = "Hide" if hidden else "Unhide"
    used = await _used(found, own.name)
    return Plan(
        title=f"{verb} index {own.name} {own.written} of {collection.shown}",
        statements=(statements.written(collection.database, {**_collmod(found, own, hidden=hidden), **found.uuid}),),
        risk=Risk.MEDIUM,
        reasons=_hiding_reasons(used, hidden=hidden),
        lock=_brief_lock(found),
        size=_size(found, own),
        duration="at once",
        undo=statements.written(collection.database, _collmod(found, own, hidden=not hidden)),
        cautions=(*_hiding_cautions(own, hidden=hidden), *used.cautions),
        preconditions={**found.bound, "index": preflight.jsonable(own.spec)},
        before={"member": "", "mode": "hide" if hidden else "unhide", "shown": collection.shown},
        execution="probeable",
    )


def _collmod(found: preflight.Target, own: names.Index, *, hidden: bool) -> Document:
    index = {"name": own.name, "hidden": hidden}
    return {"collMod": found.collection.name, "index": index, "maxTimeMS": QUICK_MS}


def _hiding_reasons(used: Used, *, hidden: bool) -> tuple[str, ...]:
    if not hidden:
        return ("queries may use the index again, and their plans may change",)
    return (f"queries that use it get slower until it is unhidden{used.said}", "it is taken back at once")


def _hiding_cautions(own: names.Index, *, hidden: bool) -> list[str]:
    if not hidden:
        return []
    cautions = ["A hidden index still costs every write, and its use is counted from zero.",
                "A query that names it in a hint fails (error 2)."]  # fmt: skip
    if own.spec.get("unique"):
        cautions.append("It still refuses equal values.")
    if "expireAfterSeconds" in own.spec:
        cautions.append("Documents still expire by it.")
    return cautions


# -- dropping


async def _dropping(found: preflight.Target, own: names.Index) -> Plan:
    collection = found.collection
    building = own.name in found.builds
    used = await _used(found, own.name)
    waiting, all_seen = await preflight.transactions(found.at)
    risk, reasons = _risk(own, used, building=building)
    command = {"dropIndexes": collection.name, "index": own.name, **found.uuid, "maxTimeMS": QUICK_MS}
    again = {"createIndexes": collection.name, "indexes": [index_spec.recreated(own)]}
    return Plan(
        title=f"Drop index {own.name} {own.written} of {collection.shown}",
        statements=(statements.written(collection.database, command),),
        risk=risk,
        reasons=reasons,
        lock=_brief_lock(found),
        size=_size(found, own),
        waits=waiting,
        duration="at once",
        undo="" if building else statements.written(collection.database, again),
        undo_note="It is not built yet: ask create_index again." if building
        else f"That is a full build ({found.measures}), not done at once.",
        cautions=(*_cautions(found, own, building=building), *await _shard_key(found, own), *used.cautions,
                  *([] if all_seen else [preflight.BLIND])),
        preconditions={**found.bound, "index": preflight.jsonable(own.spec), "building": building},
        before={"member": "", "mode": "drop", "shown": collection.shown, "building": building},
        execution="probeable",
    )  # fmt: skip


def _brief_lock(found: preflight.Target) -> str:
    return (
        f"exclusive on {found.collection.shown} for a moment; it waits for open transactions, new work queues behind it, "
        f"and it gives up after {QUICK_MS // 1000} s"
    )


def _size(found: preflight.Target, own: names.Index) -> str:
    held = found.stats.get("indexSizes", {}).get(own.name)
    return f"the index {size(held) if held is not None else 'of unknown size'}; the collection {found.measures}"


class Used:
    """How often an index was used, on every member, as far as it can be seen."""

    def __init__(self, counted: Sequence[tuple[str, int, Any]], silent: Sequence[str], *, seen: bool = True) -> None:
        self.uses = sum(uses for _, uses, _ in counted)
        self._counted, self._silent, self._seen = counted, silent, seen

    @property
    def said(self) -> str:
        if not self._seen:
            return ""
        since = min((since for _, _, since in self._counted), default=None)
        return f" (used {plural(self.uses, 'time')}{f' since {since:%Y-%m-%d %H:%M} UTC' if since else ''})"

    @property
    def known(self) -> bool:
        return self._seen and not self._silent

    @property
    def cautions(self) -> list[str]:
        if not self._seen:
            return ["How often it is used cannot be seen with these rights (grant clusterMonitor on admin)."]
        each = [f"{host}: {count(uses)}" for host, uses, _ in self._counted if host]
        found = [f"Uses by member: {', '.join(each)}."] if len(each) > 1 else []
        if self._silent:
            found.append(f"{listing(self._silent)} could not be asked: the index may be used there.")
        return found


async def _used(found: preflight.Target, index: str) -> Used:
    try:
        counted, silent = await preflight.usage(found, index)
    except MissingRight:
        return Used((), (), seen=False)
    return Used(counted, silent)


def _risk(own: names.Index, used: Used, *, building: bool) -> tuple[Risk, tuple[str, ...]]:
    if building:
        return Risk.HIGH, ("it aborts a build that runs: its work is lost, and whoever asked for it gets error 276",)
    removed = "an index is removed for good: building it again takes a full build"
    if own.spec.get("unique"):
        return Risk.CRITICAL, ("equal values are accepted from then on: the index is unique", removed)
    if used.uses:
        return Risk.HIGH, (f"queries that use it get slower{used.said}", removed)
    if not used.known:
        return Risk.HIGH, ("it is not known whether queries use it", removed)
    return Risk.HIGH, (removed, f"no use of it is recorded{used.said}")


def _cautions(found: preflight.Target, own: names.Index, *, building: bool) -> list[str]:
    if building:
        return []
    cautions = []
    if not own.spec.get("hidden"):
        cautions.append("Hiding it first (hide=true) shows what would get slower, and is taken back at once.")
    if "expireAfterSeconds" in own.spec:
        cautions.append("It is a TTL index: documents no longer expire without it.")
    first = own.key[0][0]
    others = [each for each in found.indexes if each.name != own.name and each.key[0][0] == first]
    if not others:
        cautions.append(f"No other index begins with {first}.")
    else:
        cautions.append(f"{listing([f'{each.name} {each.written}' for each in others])} also begins with {first}.")
    return cautions


async def _shard_key(found: preflight.Target, own: names.Index) -> list[str]:
    """What speaks against dropping an index of a sharded collection."""
    if found.db.server.topology != SHARDED:
        return []
    look = {"find": "collections", "filter": {"_id": found.collection.full}, "limit": 1, "singleBatch": True}
    rows = await preflight.seen(found.at.batch("config", look))
    if rows is None:
        return ["Whether it carries the shard key cannot be seen with these rights."]
    key = [*rows[0].get("key", {})] if rows else []
    if key and list(own.fields[: len(key)]) == key:
        return [
            f"It begins with the shard key ({listing(key)}): the server refuses unless another such index is there."
        ]
    return []


# -- what came of it


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Look the index up in the list: gone, hidden or shown again is success, whatever the driver saw."""
    database, command = statements.read(plan.statements[0])
    mode = plan.before["mode"]
    name = command["index"] if mode == "drop" else command["index"]["name"]
    collection = next(iter(command.values()))
    listed = await preflight.indexes_of(reader, database, collection)
    own = next((each for each in listed if each.name == name), None)
    if mode == "drop":
        return _dropped(plan, ending, name, listed, still=own is not None)
    return _shown(plan, ending, name, own)


def _dropped(plan: Plan, ending: Ending, name: str, listed: Sequence[names.Index], *, still: bool) -> Effect:
    if still:
        return Effect(
            state="failed",
            summary=f"{name} is still on {plan.before['shown']}: {reported(ending)}.",
            error_code=code_of(ending, EffectMissing.code),
        )
    if not listed:
        summary = f"{name} is gone, and so is the whole collection {plan.before['shown']}: {reported(ending)}."
        return Effect(state="succeeded", summary=summary)
    by_us = ending.clean or ending.lost
    done = "its build is aborted, and nothing is left of it" if plan.before["building"] else "is dropped"
    text = f"{name} {done} on {plan.before['shown']}" if by_us else f"{name} had been dropped by somebody else already"
    return Effect(
        state="succeeded",
        summary=f"{text}.{unacknowledged(ending)}".replace(" its build", ": its build", 1),
        figures={"indexes": len(listed), "seconds": round(ending.seconds, 3)},
    )


def _shown(plan: Plan, ending: Ending, name: str, own: names.Index | None) -> Effect:
    hide = plan.before["mode"] == "hide"
    if own is None or bool(own.spec.get("hidden")) != hide:
        state = "is gone" if own is None else f"is {'not hidden' if hide else 'still hidden'}"
        return Effect(
            state="failed",
            summary=f"{name} {state}: {reported(ending)}.",
            error_code=code_of(ending, EffectMissing.code),
        )
    more = (
        Suggestion(
            tool="mongodb.drop_index",
            arguments={"collection": str(plan.before["shown"]), "index": name},
            why="when nothing got slower without it",
        ),
    )
    return Effect(
        state="succeeded",
        summary=f"{name} of {plan.before['shown']} is {'hidden' if hide else 'used by queries again'}.{unacknowledged(ending)}",
        suggestions=more if hide else (),
    )
