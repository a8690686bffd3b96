"""list_indexes: every index with its use on each member, those being built, and those that another one covers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from opsagent_jupyter.errors import MissingRight, OpsAgentError
from opsagent_jupyter.models import Json, Result, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.mongodb import names
from opsagent_jupyter.plugins.mongodb.connection import Database, Document
from opsagent_jupyter.plugins.mongodb.members import everywhere, one_member_note, silent_notes
from opsagent_jupyter.plugins.mongodb.reads.collections import InDatabase, measured
from opsagent_jupyter.plugins.mongodb.sheets import aware, sheet
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note
from opsagent_jupyter.plugins.wording import count, duration, listing, plural, size

#: Seconds of counting below which an unused index says little.
YOUNG = 7 * 86_400
#: Collections that are looked at when none is named.
COLLECTIONS = 100
#: Options that make an index mean something of its own, so that no other index stands in for it.
_MEANING = ("unique", "sparse", "partialFilterExpression", "expireAfterSeconds", "collation", "prepareUnique")


@dataclass(frozen=True)
class Usage:
    """How often members used an index, and since when they count."""

    counts: Mapping[str, int] = field(default_factory=dict)
    since: datetime | None = None
    """The youngest of the members' counts."""
    building: bool = False

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Judged:
    """An index with what is to be said of it."""

    collection: names.Collection
    index: names.Index
    usage: Usage | None
    """None when use cannot be seen."""
    size: int
    finding: str = ""
    """redundant or unused; empty for the others."""
    why: str = ""
    covered_by: str = ""


@tools.read(
    phrases=(
        "show the indexes of {collection}",
        "list indexes",
        "which indexes are unused",
        "are there redundant indexes",
        "show duplicate indexes",
        "which index is never used",
        "index usage",
        "what indexes does {collection} have",
        "which indexes are being built",
    ),
    keywords=("index", "indexes", "unused", "redundant", "duplicate", "usage", "ttl", "hidden"),
    patterns=(r"\bgetIndexes\(\)", r"\blistIndexes\b", r"\$indexStats\b", r"\bindex(es)?\b"),
)
async def list_indexes(
    db: Database,
    collection: Annotated[
        str, Arg("collection name; left out, all collections of the database", slot="collection", example="orders")
    ] = "",
    database: InDatabase = "",
) -> Result:
    """List indexes with key, options, size and use on every member; mark unused, redundant, hidden and building ones."""
    found, notes = await surveyed(db, collection, database)
    rows = [_row(each) for each in found]
    page = sheet("indexes", _COLUMNS, rows, db.limits, {"size": "bytes"})
    building = [each for each in found if each.usage and each.usage.building]
    marked = [each for each in found if each.finding]
    where = found[0].collection.shown if collection and found else (found[0].collection.database if found else "")
    return Result(
        summary=_summary(where, found, building),
        highlights=(
            *(f"{_place(each)} is being built now." for each in building),
            *(f"{_place(each)} {each.why} ({size(each.size)})." for each in marked[:10]),
            *(f"{_place(each)} is hidden: kept up, but not used by the planner." for each in found if _hidden(each)),
        ),
        tables=(page,),
        figures={
            "indexes": len(found),
            "unused": sum(each.finding == "unused" for each in found),
            "redundant": sum(each.finding == "redundant" for each in found),
            "building": len(building),
        },
        notes=(*notes, *_age_notes(found), *cut_note(page), *one_member_note(db)),
        suggestions=tuple(dropping(each) for each in marked[:10]),
    )


_COLUMNS = (
    "collection", "index", "key", "uses", "uses by member", "since", "size", "options", "building", "finding", "covered by",
)  # fmt: skip


async def surveyed(db: Database, collection: str = "", database: str = "") -> tuple[list[Judged], tuple[str, ...]]:
    """All indexes of one collection or of a database, judged, and what could not be seen."""
    if collection:
        targets = [await names.collection(db, collection, database, views=False)]
    else:
        place = await names.database(db, database)
        targets = [each for each in await names.collections(db, place) if not each.is_view and not each.is_system]
    notes: list[str] = []
    if len(targets) > COLLECTIONS:
        notes.append(f"Only the first {COLLECTIONS} of {len(targets)} collections by name were looked at.")
    found: list[Judged] = []
    # the first alone: a member that is silent is then known to be, and the others do not wait for it
    looks = [await _of_collection(db, target) for target in targets[:1]]
    looks += await asyncio.gather(*(_of_collection(db, target) for target in targets[1:COLLECTIONS]))
    for judged, said in looks:
        found += judged
        notes += said
    return found, tuple(dict.fromkeys(notes))


async def _of_collection(db: Database, target: names.Collection) -> tuple[list[Judged], Sequence[str]]:
    indexes = await names.indexes(db, target)
    notes: list[str] = []
    try:
        stats = await measured(db, target)
    except OpsAgentError as error:
        stats = {}
        notes.append(f"Sizes of {target.shown} cannot be seen: {error}")
    usage, said = await _usage(db, target)
    builds = stats.get("indexBuilds", ())
    judged = []
    for each in indexes:
        seen = usage.get(each.name, Usage()) if usage is not None else None
        if each.name in builds:
            seen = replace(seen or Usage(), building=True)
        judged.append(Judged(target, each, seen, stats.get("indexSizes", {}).get(each.name, 0)))
    return [_judged(each, judged, complete=not said) for each in judged], [*notes, *said]


async def _usage(db: Database, target: names.Collection) -> tuple[dict[str, Usage] | None, Sequence[str]]:
    """Use of each index by name, added over the members that answered; None without the right to see it."""
    pipeline: list[Document] = [{"$indexStats": {}}]

    async def ask(member: str) -> list[Document]:
        command = {"aggregate": target.name, "pipeline": pipeline, "cursor": {}}
        return await db.documents(target.database, command, member=member, action="indexStats")

    try:
        answers = await everywhere(db, ask)
    except MissingRight as error:
        return None, [f"Use of indexes cannot be seen: {error}"]
    found: dict[str, Usage] = {}
    for answer in answers:
        for row in answer.found or ():
            found[row["name"]] = _added(found.get(row["name"], Usage()), answer.member, row)
    return found, silent_notes(answers)


def _added(usage: Usage, member: str, row: Document) -> Usage:
    accesses = row["accesses"]
    since = aware(accesses["since"])
    counts = {**usage.counts, member: usage.counts.get(member, 0) + int(accesses["ops"])}
    return Usage(counts, max(usage.since or since, since), usage.building or bool(row.get("building")))


# -- judging


def _judged(one: Judged, others: Sequence[Judged], *, complete: bool) -> Judged:
    """Redundant: another index begins with the same fields. Unused: no member has used it, and all have said so."""
    if one.index.name == "_id_" or (one.usage and one.usage.building):
        return one
    if cover := next((each for each in others if _covers(each, one)), None):
        why = f"is the beginning of {cover.index.name} {cover.index.written}"
        if cover.index.key == one.index.key:
            why = f"has the same key as {cover.index.name}"
        return replace(one, finding="redundant", why=why, covered_by=cover.index.name)
    own = any(one.index.option(option) for option in ("unique", "expireAfterSeconds")) or _hidden(one)
    if one.usage and one.usage.counts and not one.usage.total and complete and not own:
        return replace(one, finding="unused", why="was never used by any member")
    return one


def _covers(other: Judged, one: Judged) -> bool:
    """Whether ``other`` serves every query that ``one`` serves: its key begins with the same fields and directions."""
    mine, its = one.index.key, other.index.key
    if other is one or len(its) < len(mine) or its[: len(mine)] != mine or _hidden(other) or _hidden(one):
        return False
    if other.usage and other.usage.building:
        return False
    if any(not isinstance(kind, int | float) for _, kind in its):  # hashed, text, 2dsphere: no prefix stands alone
        return False
    if any(one.index.option(option) for option in _MEANING):
        return False
    if any(other.index.option(option) for option in ("sparse", "partialFilterExpression", "collation")):
        return False
    # of two alike one stays: the unique one, or the one whose name comes first
    alike = len(its) == len(mine)
    return not alike or bool(other.index.option("unique")) or other.index.name < one.index.name


def _hidden(each: Judged) -> bool:
    return bool(each.index.option("hidden"))


# -- words


def options_of(index: names.Index) -> list[str]:
    """The options of an index as words; the values of a partial filter are left out."""
    found = [option for option in ("unique", "sparse", "hidden", "prepareUnique") if index.option(option)]
    if (seconds := index.option("expireAfterSeconds")) is not None:
        found.append(f"TTL {duration(float(seconds))}")
    if index.option("partialFilterExpression"):
        found.append("partial")
    if collation := index.option("collation"):
        found.append(f"collation {collation.get('locale', '?')}")
    kinds = {kind for _, kind in index.key if isinstance(kind, str)}
    return [*found, *sorted(kinds), *(["wildcard"] if any("$**" in name for name in index.fields) else [])]


def _row(each: Judged) -> Document:
    usage = each.usage
    counts: dict[str, Any] = dict(usage.counts) if usage else {}
    by_member = ", ".join(f"{member} {count(uses)}" for member, uses in counts.items()) if len(counts) > 1 else ""
    return {
        "collection": each.collection.name,
        "index": each.index.name,
        "key": each.index.written,
        "uses": usage.total if usage and usage.counts else None,
        "uses_by_member": by_member,
        "since": usage.since if usage else None,
        "size": each.size,
        "options": ", ".join(options_of(each.index)),
        "building": bool(usage and usage.building),
        "finding": each.finding,
        "covered_by": each.covered_by,
    }


def _place(each: Judged) -> str:
    return f"{each.collection.shown}.{each.index.name} {each.index.written}"


def _summary(where: str, found: Sequence[Judged], building: Sequence[Judged]) -> str:
    if not found:
        return "There are no collections with indexes here."
    total = sum(each.size for each in found)
    parts = [
        f"{len(marked)} {kind}"
        for kind in ("redundant", "unused")
        if (marked := [e for e in found if e.finding == kind])
    ]
    parts += [f"{len(building)} being built"] if building else []
    return f"{where} has {plural(len(found), 'index', 'indexes')}, {size(total)}" + (
        f": {listing(parts)}." if parts else "; none is unused or redundant."
    )


def _age_notes(found: Sequence[Judged]) -> list[str]:
    unused = [each.usage.since for each in found if each.finding == "unused" and each.usage and each.usage.since]
    if not unused:
        return []
    seconds = (datetime.now(UTC) - max(unused)).total_seconds()
    if seconds >= YOUNG:
        return []
    return [f"Use is counted for {duration(max(seconds, 0))} only: an index for a monthly job looks unused."]


def dropping(each: Judged) -> Suggestion:
    """The ready call that takes an index away, or first out of use."""
    arguments: dict[str, Json] = {
        "collection": each.collection.name,
        "index": each.index.name,
        "database": each.collection.database,
    }
    if each.finding == "unused":  # hiding is taken back at once, should somebody need it after all
        arguments["hide"] = True
    return Suggestion(tool="mongodb.drop_index", arguments=arguments, why=f"{each.finding}: it {each.why}")
