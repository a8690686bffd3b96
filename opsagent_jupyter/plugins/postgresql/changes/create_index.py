"""create_index: builds an index, concurrently unless told otherwise, and sees to it that it is valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from opsagent_jupyter.errors import EffectMissing, InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk, Suggestion
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.changes import preflight, what_if
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader, carry_out, found_out, reported, session
from opsagent_jupyter.plugins.postgresql.changes.index_spec import IndexSpec, resolve
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending, Row
from opsagent_jupyter.plugins.postgresql.failures import DUPLICATE_TABLE
from opsagent_jupyter.plugins.postgresql.lock_modes import WRITERS
from opsagent_jupyter.plugins.postgresql.measures import measured
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.indexes import Index, entry_bytes
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import article, duration, listing, size

Method = Literal["btree", "hash", "gin", "gist", "spgist", "brin"]

#: Bytes of table that one pass of a build reads in a second, for the estimate on the card.
RATE = 40 * 1024**2
#: How long a build that blocks writers waits for its lock.
PATIENCE = "3s"


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Columns = Annotated[list[str], BeforeValidator(_split)]


@tools.change(
    Risk.MEDIUM,
    phrases=(
        "create an index on {table} for {columns}",
        "add an index on {table} ({columns})",
        "index {columns} of {table}",
        "build an index for {table} on {columns}",
        "create index on {table}({columns})",
        "make a unique index on {table} {columns}",
        "please add an index on {table} for {columns}",
    ),
    keywords=("create", "add", "build", "make", "index"),
    patterns=(
        r"create\s+(an?\s+)?(unique\s+)?index\b",
        r"(add|build|make)\s+(an?\s+|the\s+)?(missing\s+|unique\s+|new\s+)?index\b",
    ),
)
async def create_index(
    db: Database,
    table: Annotated[str, Arg("the table", slot="table", example="orders")],
    columns: Annotated[
        Columns, Arg("the columns in order, each may say DESC or NULLS FIRST", slot="columns", example="customer_id")
    ],
    name: Annotated[str, Arg("a name; one is made from table and columns without it")] = "",
    method: Annotated[Method, Arg("the access method")] = "btree",
    include: Annotated[Columns, Arg("columns to carry along for index-only scans")] = [],  # noqa: B006  # never changed
    where: Annotated[str, Arg("a condition for a partial index, such as status = 'open'")] = "",
    *,
    unique: Annotated[bool, Arg("refuse equal values from then on")] = False,
    concurrently: Annotated[bool, Arg("build without blocking writers")] = True,
) -> Plan:
    """Create an index on a table, without blocking its writers unless told otherwise."""
    relation = await names.table(db, table)
    await _permit(db, relation, concurrently=concurrently)
    spec = IndexSpec(relation, (), method=method, unique=unique, concurrently=concurrently)
    spec = await resolve(db, spec, columns, include, where)
    existing = [Index(row) for row in await measured(db, "indexes", {"table": relation.oid})]
    existing = [index for index in existing if index.table_oid == relation.oid]
    _refuse_twins(spec, existing)
    spec, qualified = await _named(db, spec, name)
    measure = await preflight.target(db, relation)
    # a concurrent build waits for writers of the table and for every older snapshot, a plain one for writers only
    waiting = await preflight.waits(db, relation, WRITERS, snapshots=concurrently)
    risk, reasons = _risk(spec, (*preflight.large(measure), *await preflight.lagging(db)))
    return Plan(
        title=f"Create {article('unique index' if unique else 'index')} on {relation.shown}",
        statements=(spec.statement(),),
        risk=risk,
        reasons=reasons,
        lock=_lock(relation, concurrently=concurrently),
        size=f"{measure.measures}; the index {await _index_size(db, spec, measure)}",
        waits=waiting,
        duration=preflight.estimated(measure.heap * (2 if concurrently else 1) / RATE, size(measure.heap), waiting),
        undo=f"DROP INDEX {'CONCURRENTLY ' if concurrently else ''}{qualified}",
        cautions=(*_cautions(spec, existing), *await preflight.blind_spots(db)),
        comparison=await what_if.comparison(db, spec),
        preconditions={
            "table_oid": relation.oid,
            "table": relation.written,
            "columns": {column.name: column.type for column in (*(key.column for key in spec.keys), *spec.include)},
            "free_name": spec.name,
        },
        before={
            "session": session(db, "0" if concurrently else PATIENCE),
            "table_oid": relation.oid,
            "name": spec.name,
            "qualified": qualified,
            "concurrently": concurrently,
            "facts": spec.facts,
        },
        execution="probeable",
    )


@create_index.assesses
def _(arguments: Any) -> Assessment:
    reasons = []
    if arguments.unique:
        reasons.append("a unique index refuses rows from then on")
    if not arguments.concurrently:
        reasons.append("the build is not concurrent, so writers wait until it is done")
    return Assessment(risk=Risk.HIGH if reasons else Risk.MEDIUM, reasons=tuple(reasons))


@create_index.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@create_index.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


async def _permit(db: Database, relation: names.Relation, *, concurrently: bool) -> None:
    found = await preflight.rights(db, relation)
    preflight.must_not_be_system(relation, "CREATE INDEX")
    if relation.kind == "f":
        raise PreconditionFailed(f"{relation.shown} is a foreign table, which has no indexes here.")
    preflight.must_own(db, relation, found)
    if not found["creates"]:
        raise MissingRight(
            f"Role {db.server.role} may not create anything in schema {relation.schema}.",
            hint=f"GRANT CREATE ON SCHEMA {relation.schema} TO {db.server.role}.",
            right=f"CREATE on schema {relation.schema}",
        )
    if relation.kind == "p" and concurrently:
        parts = await db.rows(query("leaf_partitions"), {"table": relation.oid})
        raise PreconditionFailed(
            f"{relation.shown} is partitioned, and PostgreSQL cannot build its index concurrently as a whole.",
            hint=f"Build it concurrently on each partition ({listing([row['shown'] for row in parts])}), then once on the "
            "parent with concurrently=false, which takes those over at once; or with concurrently=false right away, "
            "which blocks writers.",
        )


def _refuse_twins(spec: IndexSpec, existing: list[Index]) -> None:
    for index in existing:
        if not spec.same_as(index):
            continue
        if index.phase:
            raise PreconditionFailed(f"{index.index} with the same columns is being built by pid {index.builder}.")
        if not (index.valid and index.ready):
            raise PreconditionFailed(
                f"{index.index} has the same columns and is invalid: a build of it failed.",
                hint=f"Drop it first: drop_index with index={index.index}.",
            )
        raise PreconditionFailed(f"{index.index} on {index.table} has the same columns already.")


async def _named(db: Database, spec: IndexSpec, name: str) -> tuple[IndexSpec, str]:
    """Choose the name: the one that was asked for if it is free, else the first free one made from the columns."""
    wanted = [_bare(name)] if name.strip() else list(_made_names(spec))
    names.check_length(wanted[0], "name")
    rows = await db.rows(query("free_index_name"), {"names": wanted, "schema": spec.relation.schema})
    for row in rows:
        if row["taken_by"] is None:
            return replace(spec, name=row["name"], written=row["written"]), str(row["qualified"])
    raise PreconditionFailed(
        f"The name {rows[0]['qualified']} is taken by {article(names.noun(rows[0]['taken_by']))}.",
        hint="Give another name, or none: one is made from table and columns.",
    )


def _bare(name: str) -> str:
    name = name.strip()
    if name.startswith('"') and name.endswith('"') and len(name) > 2:
        return name[1:-1].replace('""', '"')
    if "." in name:
        raise InvalidArguments("Give the name alone: an index lives in the schema of its table.", path="name")
    return name


def _made_names(spec: IndexSpec) -> list[str]:
    stem = "_".join([spec.relation.name, *(key.column.name for key in spec.keys)])
    made = []
    for suffix in ("_idx", *(f"_idx{number}" for number in range(1, 50))):
        room = names.LONGEST - len(suffix)
        made.append(stem.encode()[:room].decode(errors="ignore") + suffix)
    return made


def _risk(spec: IndexSpec, raising: tuple[str, ...]) -> tuple[Risk, tuple[str, ...]]:
    unique = "unique, so equal values are refused from then on" if spec.unique else "not unique"
    built = "concurrent, so reads and writes go on" if spec.concurrently else "not concurrent, so writers wait"
    reasons = ("it changes the structure of the database", built, unique, *raising)
    raised = spec.unique or not spec.concurrently or bool(raising)
    return (Risk.HIGH if raised else Risk.MEDIUM), reasons


def _lock(relation: names.Relation, *, concurrently: bool) -> str:
    if concurrently:
        return (
            f"SHARE UPDATE EXCLUSIVE on {relation.shown}: reads and writes go on, no other DDL or VACUUM; "
            "it waits without a limit and can be cancelled at any time"
        )
    return f"SHARE on {relation.shown}: reads go on, writes wait until the build is done; it gives up after {PATIENCE} of waiting"


async def _index_size(db: Database, spec: IndexSpec, measure: preflight.Target) -> str:
    """Estimate the size of the index from the planner's statistics."""
    if spec.where or spec.method != "btree" or measure.rows < 0:
        return "of unknown size"
    columns = [column.name for column in (*(key.column for key in spec.keys), *spec.include)]
    (found,) = await db.rows(query("columns_width"), {"table": spec.relation.oid, "columns": columns})
    if found["known"] < len(columns):
        return "of unknown size"
    block = db.server.block_size
    return f"about {size(max(measure.rows * entry_bytes(measure.rows, found) / 0.9 * block / (block - 40), 2 * block))}"


def _cautions(spec: IndexSpec, existing: list[Index]) -> tuple[str, ...]:
    cautions = []
    for index in existing:
        if not spec.begins(index) or not (index.valid and index.ready):
            continue
        if index.key_count > len(spec.keys):
            cautions.append(f"{index.index} ({index.definition}) begins with the same columns and may serve as well.")
        elif index.key_count < len(spec.keys) and not index.enforces:
            cautions.append(
                f"{index.index} ({index.definition}) becomes redundant: the new index begins with its columns."
            )
    if len(existing) >= 8:
        cautions.append(f"{spec.relation.shown} has {len(existing)} indexes already; each costs every write.")
    if spec.concurrently:
        cautions.append("If it is cancelled or fails, an invalid index is left behind and has to be dropped.")
    return tuple(cautions)


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Look the index up: valid and as approved is success, whatever the driver saw; invalid is a residue."""
    before: Any = plan.before
    rows = await reader.rows(query("index_state"), {"table": before["table_oid"], "name": before["name"]})
    said, code = reported(ending), ending.sqlstate
    if not rows:
        if ending.clean:
            return Effect(
                state="failed",
                summary=f"{before['qualified']} is not there, though {said}.",
                error_code=EffectMissing.code,
            )
        return Effect(
            state="failed", summary=f"The index was not built and nothing is left behind: {said}.", error_code=code
        )
    (row,) = rows
    if code == DUPLICATE_TABLE or _facts(row) != before["facts"]:
        return Effect(
            state="failed",
            summary=f"Another index has taken the name {before['qualified']} meanwhile; it was not touched.",
            error_code=code or EffectMissing.code,
        )
    if row["valid"] and row["ready"]:
        took = f" in {duration(ending.seconds)}" if ending.seconds else ""
        return Effect(
            state="succeeded",
            summary=f"{before['qualified']} is built and valid{_sized(row)}{took}.",
            figures={"index_oid": row["oid"], "bytes": row["size"], "seconds": round(ending.seconds, 3)},
        )
    return _left_behind(plan, row, said, code)


def _sized(row: Row) -> str:
    return f", {size(row['size'])}" if row["size"] else ""


def _facts(row: Row) -> dict[str, Json]:
    return {
        "keys": row["keys"],
        "key_count": row["key_count"],
        "options": row["options"],
        "unique": row["is_unique"],
        "method": row["method"],
        "partial": row["partial"],
    }


def _left_behind(plan: Plan, row: Row, said: str, code: str) -> Effect:
    name = str(plan.before["qualified"])
    harm = "it is not used by queries"
    if row["ready"]:
        harm += ", but costs every write" + (" and refuses equal values" if row["is_unique"] else "")
    return Effect(
        state="failed",
        summary=f"The index was not built: {said}. {name} is left behind invalid; {harm}.",
        error_code=code or EffectMissing.code,
        residue=(f"invalid index {name} (oid {row['oid']})",),
        suggestions=(
            Suggestion(
                tool="postgresql.drop_index", arguments={"index": name}, why="it is the rest of a build that failed"
            ),
        ),
        figures={"index_oid": row["oid"]},
    )
