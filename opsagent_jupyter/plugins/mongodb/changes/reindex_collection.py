"""reindex_collection: builds all indexes of a collection anew, on a standalone only, as MongoDB itself has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from opsagent_jupyter.errors import EffectMissing, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk, Suggestion
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import statements
from opsagent_jupyter.plugins.mongodb.changes import index_spec, preflight
from opsagent_jupyter.plugins.mongodb.changes.execution import Reader, carry_out, code_of, found_out, reported
from opsagent_jupyter.plugins.mongodb.connection import STANDALONE, Database, Document, Ending
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import duration, listing, plural, size, verb

#: Bytes of data from which a rebuild that locks the collection is critical, and up to which it is validated afterwards.
LOCKED_FOR_LONG, VALIDATED = 1024**3, 256 * 1024**2
VALIDATE_SECONDS = 15.0


@tools.change(
    Risk.HIGH,
    phrases=(
        "reindex {collection}",
        "reindex collection {collection}",
        "rebuild the indexes of {collection}",
        "rebuild all indexes on {collection}",
    ),
    keywords=("reindex", "rebuild", "repair", "indexes"),
    patterns=(r"reindex\b", r"rebuild\s+(the\s+|all\s+)*index(es)?\b"),
)
async def reindex_collection(
    db: Database,
    collection: Annotated[str, Arg("the collection", slot="collection", example="orders")],
    database: Annotated[str, Arg("its database, when it is not the connection's", slot="database")] = "",
) -> Plan:
    """Rebuild all indexes of a collection; only a standalone server does that, and locks the collection meanwhile."""
    if db.server.topology != STANDALONE:
        raise PreconditionFailed(
            f"This is a {db.server.topology}: MongoDB reindexes only on a standalone server.",
            hint="Replace single indexes: drop_index, then create_index with the same fields (the card of the drop shows how).",
        )
    found = await preflight.target(db, collection, database, "reIndex")
    preflight.refuse_while_building(found)
    held = sum(found.stats.get("indexSizes", {}).values())
    specs = [index_spec.recreated(each) for each in found.indexes]
    secondary = [spec for spec in specs if spec["name"] != "_id_"]
    again = {"createIndexes": found.collection.name, "indexes": secondary}
    long = found.bytes >= LOCKED_FOR_LONG
    locks = "nobody reads or writes the collection until it is done"
    return Plan(
        title=f"Rebuild {plural(len(specs), 'index', 'indexes')} of {found.collection.shown}",
        statements=(statements.written(found.collection.database, {"reIndex": found.collection.name}),),
        risk=Risk.CRITICAL if long else Risk.HIGH,
        reasons=(*([f"it locks the collection for long: {size(found.bytes)}"] if long else []), locks),
        lock=f"exclusive on {found.collection.shown} until it is done: reads and writes wait",
        size=f"{found.measures}; {plural(len(specs), 'index', 'indexes')}, {size(held)}",
        duration=preflight.estimated(found.bytes * len(specs)),
        undo=statements.written(found.collection.database, again) if secondary else "",
        undo_note="There is nothing to take back; that builds the indexes again if a crash should lose them.",
        cautions=(
            "The command is deprecated since MongoDB 6.0; ordinary use never needs it.",
            "If the server dies meanwhile, indexes may be missing afterwards.",
        ),
        preconditions={**found.bound, "indexes": [preflight.jsonable(spec) for spec in specs]},
        before={
            "member": "",
            "shown": found.collection.shown,
            "specs": [preflight.jsonable(spec) for spec in specs],
            "bytes": found.bytes,
        },
        execution="probeable",
    )  # fmt: skip


@reindex_collection.assesses
def _(arguments: Any) -> Assessment:  # noqa: ARG001  # no argument makes it better or worse
    return Assessment(risk=Risk.HIGH, reasons=("it locks the collection until it is done",))


@reindex_collection.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@reindex_collection.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """The indexes have to be there as they were, and to fit the documents; that a rebuild took place only the reply says."""
    before: Any = plan.before
    database, command = statements.read(plan.statements[0])
    listed = await preflight.indexes_of(reader, database, command["reIndex"])
    now = [preflight.jsonable(index_spec.recreated(each)) for each in listed]
    missing = [spec for spec in before["specs"] if spec not in now]
    if missing:
        return _lost(plan, ending, missing)
    if ending.lost:
        summary = f"The indexes of {before['shown']} are all there; whether they were rebuilt cannot be told."
        return Effect(state="unknown", summary=summary)
    if not ending.clean:
        return Effect(
            state="failed",
            summary=f"{before['shown']} was not reindexed: {reported(ending)}; its indexes are as they were.",
            error_code=code_of(ending),
        )
    valid = await _validated(reader, database, command["reIndex"], before["bytes"])
    if valid is False:
        return Effect(
            state="failed",
            summary=f"{before['shown']} is reindexed, but validate finds errors in it.",
            error_code=EffectMissing.code,
        )
    checked = "and validated" if valid else "(too large to be validated as well)"
    return Effect(
        state="succeeded",
        summary=f"{plural(len(now), 'index', 'indexes')} of {before['shown']} {verb(len(now), 'is', 'are')} rebuilt {checked} "
        f"in {duration(ending.seconds)}.",
        figures={"indexes": len(now), "seconds": round(ending.seconds, 3)},
    )


async def _validated(reader: Reader, database: str, collection: str, data: int) -> bool | None:
    """Whether the indexes fit the documents; None when the collection is too large to be locked for that."""
    if data > VALIDATED:
        return None
    reply: Document = await reader.read(database, {"validate": collection}, seconds=VALIDATE_SECONDS)
    return bool(reply.get("valid"))


def _lost(plan: Plan, ending: Ending, missing: Sequence[Any]) -> Effect:
    shown = str(plan.before["shown"])
    named = [spec["name"] for spec in missing]
    offers = tuple(
        Suggestion(
            tool="mongodb.create_index",
            arguments={
                "collection": shown,
                "fields": [f"{field}: {kind}" for field, kind in spec["key"].items()],
                "name": spec["name"],
                "unique": bool(spec.get("unique")),
            },
            why="the rebuild that did not end has lost it",
        )
        for spec in missing
        if not {"weights", "partialFilterExpression", "expireAfterSeconds", "collation"} & {*spec}
    )
    return Effect(
        state="failed",
        summary=f"The rebuild did not end: {reported(ending)}; {listing(named, 9)} of {shown} "
        f"{verb(len(named), 'is', 'are')} missing or changed.",
        error_code=code_of(ending, EffectMissing.code),
        residue=tuple(f"missing index {name} of {shown}" for name in named),
        suggestions=offers,
    )
