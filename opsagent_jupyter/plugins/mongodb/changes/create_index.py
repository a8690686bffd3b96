"""create_index: builds an index on a collection that exists, and sees to it that it is whole and as approved."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from opsagent_jupyter.errors import (
    Cancelled,
    DatabaseError,
    DeadlineExceeded,
    EffectMissing,
    InvalidArguments,
    PreconditionFailed,
)
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import names, statements
from opsagent_jupyter.plugins.mongodb.changes import index_spec, preflight
from opsagent_jupyter.plugins.mongodb.changes.execution import (
    Reader,
    carry_out,
    code_of,
    found_out,
    reported,
    unacknowledged,
)
from opsagent_jupyter.plugins.mongodb.connection import REPLICA_SET, STANDALONE, Database, Document, Ending
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import article, count, duration, listing, plural, size

Fields = Annotated[list[str], BeforeValidator(index_spec.split)]
Quorum = Literal["votingMembers", "majority"]

#: Seconds that a count of equal or expired documents may take while a proposal is made.
COUNT_SECONDS = 5.0
#: Documents that are looked at to see whether a field is spelled right.
SAMPLE = 1_000
#: Looks at a build that is being given up, and seconds between them.
LEAVING, PAUSE = 50, 0.1


@tools.change(
    Risk.MEDIUM,
    phrases=(
        "create an index on {collection} for {fields}",
        "add an index on {collection} ({fields})",
        "index {fields} of {collection}",
        "build an index for {collection} on {fields}",
        "make a unique index on {collection} {fields}",
        "please add an index on {collection} for {fields}",
    ),
    keywords=("create", "add", "build", "make", "index"),
    patterns=(
        r"create\s+(an?\s+)?(unique\s+)?index\b",
        r"(add|build|make)\s+(an?\s+|the\s+)?(missing\s+|unique\s+|new\s+)?index\b",
    ),
)
async def create_index(  # noqa: PLR0913  # each is an option of the index
    db: Database,
    collection: Annotated[str, Arg("the collection", slot="collection", example="orders")],
    fields: Annotated[
        Fields, Arg("the fields in order; -ts or ts desc descends; loc 2dsphere", slot="columns", example="cust, -ts")
    ],
    name: Annotated[str, Arg("a name; without it MongoDB's own, such as cust_1_ts_-1")] = "",
    database: Annotated[str, Arg("its database, when it is not the connection's", slot="database")] = "",
    expire_after: Annotated[
        int | None, Field(ge=0, le=2**31 - 1), Arg("seconds after which documents are deleted (TTL)", slot="seconds")
    ] = None,
    where: Annotated[str, Arg('a filter in JSON for a partial index, such as {"status": "open"}')] = "",
    collation: Annotated[str, Arg("a locale such as de, or a collation in JSON")] = "",
    commit_quorum: Annotated[Quorum, Arg("which members of a set have to be ready before it counts")] = "votingMembers",
    *,
    unique: Annotated[bool, Arg("refuse equal values from then on")] = False,
    sparse: Annotated[bool, Arg("leave out documents that lack the field")] = False,
    hidden: Annotated[bool, Arg("build it, but let no query use it yet")] = False,
) -> Plan:
    """Create an index on a collection while reads and writes of it go on."""
    if db.server.topology == STANDALONE and commit_quorum != "votingMembers":
        raise InvalidArguments("A standalone has no members that could be a quorum.", path="commit_quorum")
    found = await preflight.target(db, collection, database, "createIndex")
    preflight.refuse_while_building(found)
    spec = _spec(fields, where, collation, expire_after, unique=unique, sparse=sparse, hidden=hidden)
    spec = _named(spec, name, found)
    _refuse_twins(spec, found)
    members = await preflight.members(found.at)
    doomed = await _expired(found, spec)
    waiting, all_seen = await preflight.transactions(found.at)
    risk, reasons = _risk(spec, found, doomed, members)
    where_built = found.collection
    return Plan(
        title=f"Create {_kind(spec)} on {where_built.shown}: {names.written_key(spec['key'].items())}",
        statements=(statements.written(where_built.database, _command(found, spec, commit_quorum)),),
        risk=risk,
        reasons=reasons,
        lock=f"exclusive on {where_built.shown}, only at the start and the end of the build; reads and writes go on "
        "in between; it can be cancelled at any time",
        size=f"{found.measures}; {plural(len(found.indexes), 'index', 'indexes')} so far{await _room(found)}",
        waits=waiting,
        duration=preflight.estimated(found.bytes),
        undo=statements.written(where_built.database, {"dropIndexes": where_built.name, "index": spec["name"]}),
        cautions=(
            *await _cautions(found, spec, doomed),
            *_member_cautions(members, commit_quorum),
            *([] if all_seen else [preflight.BLIND]),
        ),
        preconditions={**found.bound, "free_name": spec["name"]},
        before={"member": "", "name": spec["name"], "shown": where_built.shown},
        execution="probeable",
    )


@create_index.assesses
def _(arguments: Any) -> Assessment:
    reasons = []
    if arguments.unique:
        reasons.append("a unique index refuses documents from then on")
    if arguments.expire_after is not None:
        reasons.append("a TTL index deletes documents, again and again")
    if any(field.rstrip(": 1").endswith("$**") for field in arguments.fields):
        reasons.append("a wildcard index grows with every field")
    return Assessment(risk=Risk.HIGH if reasons else Risk.MEDIUM, reasons=tuple(reasons))


@create_index.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@create_index.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


def _spec(
    fields: list[str], where: str, collation: str, expire_after: int | None, *, unique: bool, sparse: bool, hidden: bool
) -> Document:
    """The index as createIndexes takes it, its name aside; refuses what the server would refuse later."""
    key = index_spec.key(fields)
    kinds = [kind for kind in key.values() if isinstance(kind, str)]
    if unique and (kinds or index_spec.is_wildcard(key)):
        raise InvalidArguments(
            f"{article(kinds[0] if kinds else 'wildcard').capitalize()} index cannot be unique.", path="unique"
        )
    if expire_after is not None and (len(key) > 1 or kinds or index_spec.is_wildcard(key) or "_id" in key):
        raise InvalidArguments("Documents expire by one plain field that holds a date.", path="fields")
    if where and sparse:
        raise InvalidArguments("A partial index is not sparse as well: give the one or the other.", path="sparse")
    return {
        "key": key,
        **({"unique": True} if unique else {}),
        **({"sparse": True} if sparse else {}),
        **({"expireAfterSeconds": expire_after} if expire_after is not None else {}),
        **({"partialFilterExpression": statements.document(where, "where")} if where else {}),
        **({"collation": _collation(collation)} if collation else {}),
        **({"hidden": True} if hidden else {}),
    }


def _collation(text: str) -> Document:
    return statements.document(text, "collation") if text.strip().startswith("{") else {"locale": text.strip()}


def _named(spec: Document, name: str, found: preflight.Target) -> Document:
    """The spec with its name: the one that was asked for, or MongoDB's own if no other index has it."""
    chosen = name.strip() or index_spec.made_name(spec["key"])
    if "\0" in chosen or chosen == "*" or len(chosen.encode()) > 127:
        raise InvalidArguments("An index name has no NUL, is not * and is at most 127 bytes long.", path="name")
    if not name.strip():
        taken = {each.name for each in found.indexes if not index_spec.same_key(spec, each)}
        stem, number = chosen, 2
        while chosen in taken:
            chosen, number = f"{stem}_{number}", number + 1
    return {"key": spec["key"], "name": chosen, **{field: value for field, value in spec.items() if field != "key"}}


def _refuse_twins(spec: Document, found: preflight.Target) -> None:
    """Refuse what is there already, and a name that is taken: the server would answer 85 or 86, or do nothing."""
    for index in found.indexes:
        if index_spec.same(spec, index):
            raise PreconditionFailed(f"{index.name} on {found.collection.shown} is the same index already.")
        alike = index_spec.same_key(spec, index)
        if alike and index_spec.differing(spec, index) == ["hidden"]:
            raise PreconditionFailed(
                f"{index.name} is the same index, {'hidden' if index.spec.get('hidden') else 'not hidden'}: the server "
                "would report success and change nothing.",
                hint=f"Ask drop_index for index={index.name} with unhide=true (or hide=true): that is done at once.",
            )
        if alike and index_spec.same_options(spec, index, "collation", "partialFilterExpression", "unique", "sparse"):
            raise PreconditionFailed(
                f"{index.name} has the same key {index.written}, with other options "
                f"({listing(index_spec.differing(spec, index))}); the server takes only one of them.",
                hint=f"Drop {index.name} first, if it is to be replaced: no index serves queries meanwhile.",
            )
        if index.name == spec["name"]:
            raise PreconditionFailed(
                f"The name {index.name} is taken by an index on {index.written}.", hint="Give another name."
            )


def _command(found: preflight.Target, spec: Document, quorum: Quorum) -> Document:
    said = found.db.server.topology == REPLICA_SET or quorum != "votingMembers"
    in_a_set = {"commitQuorum": quorum} if said else {}
    return {"createIndexes": found.collection.name, "indexes": [spec], **in_a_set, **found.uuid}


def _kind(spec: Document) -> str:
    words = [
        *(["hidden"] if spec.get("hidden") else []),
        *(["unique"] if spec.get("unique") else []),
        *(["partial"] if "partialFilterExpression" in spec else []),
        *(["TTL"] if "expireAfterSeconds" in spec else []),
    ]
    kind = " ".join([*words, "index"])
    return f"a {kind}" if kind.startswith("unique") else article(kind)


async def _room(found: preflight.Target) -> str:
    free = await preflight.free_disk(found)
    return f"; {size(free)} of disk are free" if free is not None else ""


# -- what it would do to documents


async def _expired(found: preflight.Target, spec: Document) -> int | None:
    """Documents that a TTL index would delete at once: a number, 0 without TTL, None when it cannot be told."""
    if "expireAfterSeconds" not in spec:
        return 0
    (field,) = spec["key"]
    past = datetime.now(UTC) - timedelta(seconds=spec["expireAfterSeconds"])
    rows = await _counted(found, [{"$match": {field: {"$lt": past}}}, {"$count": "n"}])
    return None if rows is None else rows[0]["n"] if rows else 0


async def _counted(found: preflight.Target, pipeline: list[Document], **more: Any) -> list[Document] | None:
    """What an aggregation finds; None when it may not read, takes too long or needs too much memory."""
    if not found.rights.may("find", found.collection.database, found.collection.name):
        return None
    look = {"aggregate": found.collection.name, "pipeline": pipeline, "cursor": {}, **more}
    try:
        return await found.at.batch(found.collection.database, look, seconds=COUNT_SECONDS)
    except (DeadlineExceeded, DatabaseError, Cancelled):
        return None


async def _equal(found: preflight.Target, spec: Document) -> tuple[int, int] | None:
    """(groups of equal values, documents in them) that a unique index would refuse; None when it cannot be told."""
    match = spec.get("partialFilterExpression") or {}
    if spec.get("sparse"):
        match = {"$or": [{field: {"$exists": True}} for field in spec["key"]]}
    values = {f"k{place}": {"$ifNull": [f"${field}", None]} for place, field in enumerate(spec["key"])}
    pipeline: list[Document] = [
        {"$match": match},
        {"$group": {"_id": values, "n": {"$sum": 1}}},
        {"$match": {"n": {"$gt": 1}}},
        {"$group": {"_id": None, "groups": {"$sum": 1}, "documents": {"$sum": "$n"}}},
    ]
    more = {"collation": spec["collation"]} if "collation" in spec else {}
    rows = await _counted(found, pipeline, **more)
    return None if rows is None else (rows[0]["groups"], rows[0]["documents"]) if rows else (0, 0)


async def _absent(found: preflight.Target, spec: Document) -> list[str]:
    """Fields that none of the first documents has."""
    plain = [field for field in spec["key"] if not index_spec.is_wildcard([field])]
    if not plain or not found.documents:
        return []
    facets = {f"f{n}": [{"$match": {field: {"$exists": True}}}, {"$limit": 1}] for n, field in enumerate(plain)}
    counted = {f"f{n}": {"$size": f"$f{n}"} for n in range(len(plain))}
    rows = await _counted(found, [{"$limit": SAMPLE}, {"$facet": facets}, {"$project": counted}])
    return [field for n, field in enumerate(plain) if rows and not rows[0][f"f{n}"]]


def _risk(
    spec: Document, found: preflight.Target, doomed: int | None, members: preflight.Members
) -> tuple[Risk, tuple[str, ...]]:
    raising = []
    if spec.get("unique"):
        raising.append("unique, so documents with equal values are refused from then on")
    if "expireAfterSeconds" in spec:
        raising.append("TTL, so the server deletes documents from then on, again and again")
    if index_spec.is_wildcard(spec["key"]):
        raising.append("a wildcard index, so it grows with every field")
    raising += [*preflight.large(found), *members.reasons]
    if doomed != 0:
        deleted = "it is not known how many" if doomed is None else f"{count(doomed)} documents"
        raising.insert(0, f"what has expired is deleted at once and for good: {deleted}")
        return Risk.CRITICAL, tuple(raising)
    plain = "it changes the structure of the database; reads and writes go on meanwhile"
    return (Risk.HIGH if raising else Risk.MEDIUM), (*raising, plain)


async def _cautions(found: preflight.Target, spec: Document, doomed: int | None) -> list[str]:
    cautions = []
    if absent := await _absent(found, spec):
        cautions.append(
            f"None of the first {count(min(SAMPLE, found.documents))} documents has {listing(absent)}: check the spelling."
        )
    if spec.get("unique"):
        cautions.append(_about_equals(await _equal(found, spec)))
    if doomed:
        cautions.append(f"{plural(doomed, 'document')} will be deleted within a minute or two of the build's end.")
    if "expireAfterSeconds" in spec:
        cautions.append("Documents whose field holds no date never expire.")
    cautions += _overlaps(found, spec)
    if len(found.indexes) >= 16:
        cautions.append(f"There are {len(found.indexes)} indexes already; each costs every write.")
    return cautions


def _about_equals(equal: tuple[int, int] | None) -> str:
    if equal is None:
        return "Whether there are equal values could not be counted; if there are, the build fails (11000) and leaves nothing."
    groups, documents = equal
    if groups:
        return (
            f"{count(documents)} documents share {plural(groups, 'value')} now, so the build would fail (11000): remove the "
            "double ones first."
        )
    return "There are no equal values now (arrays were compared whole); new ones may come until the build is done."


def _overlaps(found: preflight.Target, spec: Document) -> list[str]:
    cautions = []
    wanted = [*spec["key"].items()]
    for index in found.indexes:
        listed = [(field, kind) for field, kind in index.key]
        plain = not any(option in index.spec for option in ("partialFilterExpression", "sparse", "collation"))
        if index.name == "_id_" or not plain:
            continue
        if len(listed) > len(wanted) and listed[: len(wanted)] == wanted:
            cautions.append(f"{index.name} ({index.written}) begins with the same fields and may serve as well.")
        elif len(listed) < len(wanted) and wanted[: len(listed)] == listed and not index.spec.get("unique"):
            cautions.append(
                f"{index.name} ({index.written}) may become redundant: the new index begins with its fields."
            )
    return cautions


def _member_cautions(members: preflight.Members, quorum: Quorum) -> list[str]:
    if members.down and quorum == "votingMembers":
        down = listing(members.down)
        return [f"The build does not end before {down} is back; commit_quorum=majority would not wait for all."]
    return [] if members.seen else ["The members of the set cannot be seen with these rights (grant clusterMonitor)."]


# -- what came of it


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Look the index up: whole and as approved is success, whatever the driver saw; half built is not over yet."""
    database, command = statements.read(plan.statements[0])
    (spec,) = command["indexes"]
    index, building = await _state(reader, database, command["createIndexes"], spec["name"])
    for _ in range(LEAVING if not ending.clean else 0):
        if not building:
            break
        await asyncio.sleep(PAUSE)  # a build that was given up is still listed for a moment
        index, building = await _state(reader, database, command["createIndexes"], spec["name"])
    if building:
        return Effect(state="unknown", summary=f"{spec['name']} is still being built on {plan.before['shown']}.")
    if index is None:
        return _nothing(plan, ending)
    if not index_spec.same(spec, index):
        return Effect(
            state="failed",
            summary=f"An index {index.name} is there, but not as approved ({listing(index_spec.differing(spec, index))}); "
            f"it was not touched: {reported(ending)}.",
            error_code=code_of(ending, EffectMissing.code),
        )
    return await _there(reader, plan, ending, command)


async def _state(reader: Reader, database: str, collection: str, name: str) -> tuple[names.Index | None, bool]:
    listed = await preflight.indexes_of(reader, database, collection)
    building = (await preflight.stats_of(reader, database, collection)).get("indexBuilds", ())
    return next((each for each in listed if each.name == name), None), name in building


def _nothing(plan: Plan, ending: Ending) -> Effect:
    name = plan.before["name"]
    if ending.clean:
        summary = f"{name} is not there, though the server reported success."
        return Effect(state="failed", summary=summary, error_code=EffectMissing.code)
    return Effect(
        state="failed",
        summary=f"The index was not built and nothing is left behind: {reported(ending)}.",
        error_code=code_of(ending),
    )


async def _there(reader: Reader, plan: Plan, ending: Ending, command: Document) -> Effect:
    name, shown = plan.before["name"], plan.before["shown"]
    made_by_us = "already exist" not in str(ending.reply.get("note", ""))
    database, _ = statements.read(plan.statements[0])
    stats = await preflight.stats_of(reader, database, command["createIndexes"])
    took = f" in {duration(ending.seconds)}" if ending.clean and ending.seconds else ""
    held = int(stats.get("indexSizes", {}).get(name, 0))
    if not made_by_us:
        return Effect(state="succeeded", summary=f"{name} is on {shown}; somebody else had built it meanwhile.")
    return Effect(
        state="succeeded",
        summary=f"{name} is built on {shown}{f', {size(held)}' if held else ''}{took}.{unacknowledged(ending)}",
        figures={"bytes": held, "seconds": round(ending.seconds, 3), "indexes": int(stats.get("nindexes", 0))},
    )
