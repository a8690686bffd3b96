"""drop_index: removes an index, concurrently unless told otherwise, and keeps what is needed to build it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from opsagent_jupyter.errors import DatabaseError, EffectMissing, PreconditionFailed
from opsagent_jupyter.models import Effect, Json, Plan, Risk, Suggestion
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.changes import preflight
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader, carry_out, found_out, reported, session
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending, Row
from opsagent_jupyter.plugins.postgresql.failures import LOCK_NOT_AVAILABLE
from opsagent_jupyter.plugins.postgresql.lock_modes import ANY
from opsagent_jupyter.plugins.postgresql.measures import measured
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.indexes import Index
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import duration, listing, plural, size

#: How long a plain DROP INDEX waits for its lock, before which every query on the table has to queue.
PATIENCE = "2s"


@tools.change(
    Risk.HIGH,
    phrases=(
        "drop index {index}",
        "remove the index {index}",
        "delete the index {index}",
        "drop the unused index {index}",
        "get rid of the duplicate index {index}",
        "drop the invalid index {index}",
        "clean up index {index}",
    ),
    keywords=("drop", "remove", "delete", "index"),
    patterns=(r"(drop|remove|delete)\s+(the\s+)?((unused|duplicate|invalid|redundant)\s+)?index\b",),
)
async def drop_index(
    db: Database,
    index: Annotated[str, Arg("the index", slot="index", example="orders_created_at_dup")],
    *,
    concurrently: Annotated[bool, Arg("drop without blocking the table")] = True,
) -> Plan:
    """Drop an index, without blocking its table unless told otherwise."""
    relation = await names.index(db, index)
    owner = await db.one(query("index_table"), {"index": relation.oid})
    table = await names.table(db, str(owner["table"]), kinds=(*names.TABLES, "t"))
    found = [Index(row) for row in await measured(db, "indexes", {"table": table.oid})]
    own = next(each for each in found if each.oid == relation.oid)
    if own.valid or table.kind != "t":  # a TOAST table's index goes only when a REINDEX has left it behind
        preflight.must_not_be_system(table, "DROP INDEX")
    preflight.must_own(db, table, await preflight.rights(db, table))
    _refuse_bound(own, concurrently=concurrently)
    described = await _description(db, relation)
    # concurrent or not, the drop has to wait for every transaction that has touched the table
    waiting = await preflight.waits(db, table, ANY)
    risk, reasons = _risk(own)
    return Plan(
        title=f"Drop {_adjective(own)}index {relation.shown} of {table.shown}",
        statements=(f"DROP INDEX {'CONCURRENTLY ' if concurrently else ''}{described['qualified']}",),
        risk=risk,
        reasons=reasons,
        lock=_lock(table, relation, concurrently=concurrently),
        size=f"the index {size(own.size)}; the table {(await preflight.target(db, table)).measures}",
        waits=waiting,
        duration=preflight.estimated(0, "the catalog, nothing is read", waiting),
        undo=_undo(described, concurrently=concurrently),
        undo_note="" if own.valid else "It is invalid now: there is nothing to get back.",
        cautions=(*_cautions(own, await db.one(query("statistics_age"))), *await preflight.blind_spots(db)),
        preconditions={
            "index_oid": relation.oid,
            "index": described["qualified"],
            "table_oid": table.oid,
            "filenode": relation.filenode,
            "valid": own.valid,
            "definition": described["definition"],
        },
        before={
            "session": session(db, "0" if concurrently else PATIENCE),
            "index_oid": relation.oid,
            "qualified": described["qualified"],
            "valid": own.valid,
            "bytes": own.size,
        },
        execution="probeable",
    )


@drop_index.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@drop_index.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


def _refuse_bound(index: Index, *, concurrently: bool) -> None:
    """Refuse what something else depends on."""
    if index.constraint or index.is_primary or index.is_exclusion:
        raise PreconditionFailed(
            f"{index.index} belongs to the constraint {index.constraint or 'of the primary key'}.",
            hint=f"Only ALTER TABLE {index.table} DROP CONSTRAINT removes it, and with it the rule that it enforces.",
        )
    if index.referenced_by:
        raise PreconditionFailed(
            f"The foreign key {listing(index.referenced_by)} refers to {index.index}.", hint="Drop that first."
        )
    if index.is_identity:
        raise PreconditionFailed(
            f"{index.index} is the replica identity of {index.table}: logical replication needs it.",
            hint=f"Choose another first: ALTER TABLE {index.table} REPLICA IDENTITY.",
        )
    if index.attached:
        raise PreconditionFailed(
            f"{index.index} is the part of a partitioned table's index.", hint="Drop the index of the parent instead."
        )
    if index.kind == "I" and concurrently:
        raise PreconditionFailed(
            f"{index.index} is the index of a partitioned table, which PostgreSQL cannot drop concurrently.",
            hint="Ask with concurrently=false at a quiet time: it blocks the table and all its partitions.",
        )
    if index.phase or (index.maintained and not index.valid):
        builder = f"pid {index.builder}" if index.builder else "another session"
        raise PreconditionFailed(
            f"{index.index} may still be being built by {builder}.", hint="Wait for it, or cancel it."
        )


async def _description(db: Database, relation: names.Relation) -> Row:
    try:
        return await db.one(query("index_definition"), {"index": relation.oid})
    except DatabaseError as error:
        if error.facts.get("native_code") != LOCK_NOT_AVAILABLE:
            raise
        raise PreconditionFailed(
            f"Another session holds the table of {relation.shown} locked exclusively.",
            hint="Run get_locks to see which, and ask again when it is done.",
        ) from error


def _adjective(index: Index) -> str:
    return "" if index.valid else "invalid "


def _risk(index: Index) -> tuple[Risk, tuple[str, ...]]:
    if not index.valid:
        return Risk.HIGH, ("it removes an index for good, but no query can use this one: it is invalid",)
    if index.is_unique:
        return Risk.CRITICAL, (
            "equal values are accepted from then on: the index is unique",
            "queries that use it get slower",
        )
    if index.scans:
        return Risk.HIGH, (f"queries that use it get slower: it was used {plural(index.scans, 'time')}",)
    return Risk.HIGH, ("it removes an index for good; no use of it is recorded on this server",)


def _lock(table: names.Relation, relation: names.Relation, *, concurrently: bool) -> str:
    if concurrently:
        return (
            f"SHARE UPDATE EXCLUSIVE on {table.shown}: reads and writes go on, no other DDL or VACUUM; "
            "it waits without a limit and can be cancelled at any time"
        )
    held = f"ACCESS EXCLUSIVE on {table.shown} and {relation.shown}: nothing reads or writes meanwhile"
    return f"{held}; it gives up after {PATIENCE} of waiting"


def _undo(described: Row, *, concurrently: bool) -> str:
    # of a partitioned index the server describes the parent's part alone
    definition = str(described["definition"]).replace(" ON ONLY ", " ON ", 1)
    if concurrently:
        definition = re.sub(r"^(CREATE (?:UNIQUE )?INDEX) ", r"\1 CONCURRENTLY ", definition)
    name, statements = described["qualified"], [definition]
    if described["tablespace"]:
        statements.append(f"ALTER INDEX {name} SET TABLESPACE {_quoted(described['tablespace'])}")
    if described["comment"]:
        statements.append(f"COMMENT ON INDEX {name} IS {_literal(described['comment'])}")
    statements += [
        f"ALTER INDEX {name} ALTER COLUMN {n} SET STATISTICS {target}" for n, target in described["targets"] or ()
    ]
    return ";\n".join(statements)


def _quoted(name: str) -> str:
    from psycopg.sql import Identifier

    return Identifier(name).as_string(None)


def _literal(text: str) -> str:
    from psycopg.sql import Literal

    return Literal(text).as_string(None).strip()


def _cautions(index: Index, age: Row) -> tuple[str, ...]:
    cautions = []
    if index.supports:
        cautions.append(
            f"It serves the foreign key {listing(index.supports)}: deletes in the table referred to may get slow."
        )
    if index.last_scan:
        cautions.append(f"It was last used {index.last_scan:%Y-%m-%d %H:%M} UTC.")
    if index.valid and (age["standbys"] or age["standby"]):
        cautions.append("Use on standbys is not counted here: look at get_table_stats and list_indexes there first.")
    if index.valid and not index.scans:
        cautions.append(f"Use is counted for {duration(age['seconds'])} so far.")
    return tuple(cautions)


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """The index is gone, or it is there: as before, or invalid because the drop was interrupted."""
    before: Any = plan.before
    rows = await reader.rows(query("index_by_oid"), {"index": before["index_oid"]})
    said, name = reported(ending), before["qualified"]
    if not rows:
        took = f" in {duration(ending.seconds)}" if ending.seconds else ""
        freed = f"; {size(before['bytes'])} are free again" if before["bytes"] else ""
        return Effect(
            state="succeeded",
            summary=f"{name} is gone{took}{freed}.",
            figures={"bytes": before["bytes"], "seconds": round(ending.seconds, 3), "undo": plan.undo},
        )
    code = ending.sqlstate or EffectMissing.code
    if rows[0]["valid"] or not before["valid"]:
        return Effect(state="failed", summary=f"{name} is still there, as it was: {said}.", error_code=code)
    return Effect(
        state="failed",
        summary=f"The drop of {name} was interrupted: {said}. The index is still there, but invalid: no query uses it.",
        error_code=code,
        residue=(f"invalid index {name} (oid {before['index_oid']})",),
        suggestions=(
            Suggestion(
                tool="postgresql.drop_index", arguments={"index": name}, why="the same command again finishes the drop"
            ),
        ),
    )
