"""What can be granted on what: a closed vocabulary, and the objects that a request names, resolved to OIDs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from opsagent_jupyter.errors import DatabaseError, InvalidArguments, PreconditionFailed
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.roles import Role, role, spellings
from opsagent_jupyter.plugins.wording import article, listing

Kind = Literal["table", "view", "sequence", "schema", "database", "function", "role", "all_tables", "future_tables"]
#: Arguments are in small letters, as people write them; statements and answers are in capitals.
Privilege = Literal[
    "select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain",
    "usage", "create", "connect", "temporary", "execute", "all",
]  # fmt: skip

MEMBER = "MEMBER"
_RELATION = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
ON_COLUMNS = ("SELECT", "INSERT", "UPDATE", "REFERENCES")
VOCABULARY: Mapping[str, tuple[str, ...]] = {
    "table": _RELATION,
    "view": _RELATION,
    "all_tables": _RELATION,
    "future_tables": _RELATION,
    "sequence": ("USAGE", "SELECT", "UPDATE"),
    "schema": ("USAGE", "CREATE"),
    "database": ("CONNECT", "CREATE", "TEMPORARY"),
    "function": ("EXECUTE",),
    "role": (),
}
#: The privilege that came with release 17.
_SINCE_17 = "MAINTAIN"

_TABLES, _VIEWS = ("r", "p", "m", "f"), ("v", "m")


def _several(value: Any) -> Any:
    """``select, insert`` as a person writes it, as the list that it is."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return value
    words = [part.strip().lower() if isinstance(part, str) else part for part in parts]
    return ["temporary" if word == "temp" else "all" if word == "all privileges" else word for word in words]


Privileges = Annotated[list[Privilege] | Privilege, BeforeValidator(_several)]


@dataclass(frozen=True)
class Item:
    """One object on which a right is held; a column of a table has its number as ``sub``."""

    oid: int
    written: str
    owner: int
    sub: int = 0


@dataclass(frozen=True)
class Subject:
    """What a request is about: objects of one class, and how a statement names them."""

    kind: Kind
    klass: str
    """relation, schema, database, function, role or future: where the server keeps their rights."""
    items: tuple[Item, ...]
    privileges: tuple[str, ...]
    on: str
    """As it stands in GRANT after ON."""
    shown: str
    columns: tuple[names.Column, ...] = ()
    table: int = 0
    """OID of the table, view or sequence; 0 for other objects."""
    relation: names.Relation | None = None
    schema: Row | None = None
    maker: Role | None = None
    granted: Role | None = None
    """The role whose membership this is about."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def oids(self) -> list[int]:
        """The objects, each once."""
        return list(dict.fromkeys(item.oid for item in self.items))

    @property
    def clause(self) -> str:
        """The privileges as a statement has them, with the columns when they are for columns only."""
        if not self.columns:
            return ", ".join(self.privileges)
        columns = ", ".join(column.written for column in self.columns)
        return ", ".join(f"{privilege} ({columns})" for privilege in self.privileges)


def chosen(db: Database, kind: Kind, asked: Sequence[str] | str, *, columns: bool) -> tuple[str, ...]:
    """The privileges that were asked for, in the order of the vocabulary; ``InvalidArguments`` for what the kind has not."""
    wanted = [word.upper() for word in ([asked] if isinstance(asked, str) else asked)]
    if kind == "role":
        if wanted:
            raise InvalidArguments("Membership in a role has no privileges of its own.", path="privileges")
        return (MEMBER,)
    held = ON_COLUMNS if columns else VOCABULARY[kind]
    offered = tuple(each for each in held if each != _SINCE_17 or db.server.major >= 17)
    if not wanted:
        raise InvalidArguments(f"Say which privileges: {listing(offered, 9)}, or ALL.", path="privileges")
    if wrong := [each for each in wanted if each not in (*offered, "ALL")]:
        raise InvalidArguments(_not_offered(db, kind, wrong, offered, columns=columns), path="privileges")
    return offered if "ALL" in wanted else tuple(each for each in offered if each in wanted)


def _not_offered(db: Database, kind: str, wrong: list[str], offered: Sequence[str], *, columns: bool) -> str:
    if _SINCE_17 in wrong and not columns and _SINCE_17 in VOCABULARY[kind]:
        return f"MAINTAIN came with PostgreSQL 17; this server is {db.server.version}."
    noun = "columns" if columns else kind.replace("_", " ")
    return f"{listing(wrong)} cannot be granted on {noun}: there {'are' if len(offered) > 1 else 'is'} {listing(offered, 9)}."


async def subject(
    db: Database, kind: Kind, text: str, asked: Sequence[str] | str, columns: Sequence[str], made_by: str
) -> Subject:
    """Resolve what a request names; ``InvalidArguments`` when there is no such object or no such privilege on it."""
    if columns and kind not in ("table", "view"):
        raise InvalidArguments("Columns go with a table or a view only.", path="columns")
    if made_by and kind != "future_tables":
        raise InvalidArguments("made_by goes with kind=future_tables only.", path="made_by")
    privileges = chosen(db, kind, asked, columns=bool(columns))
    if kind in ("table", "view", "sequence"):
        return await _relation(db, kind, text, privileges, columns)
    if kind == "function":
        return await _function(db, text, privileges)
    if kind == "role":
        return await _membership(db, text)
    if kind == "database":
        row = await _named(db, "database_by_name", text, "database")
        item = Item(row["oid"], row["written"], row["owner"])
        return Subject(
            kind, "database", (item,), privileges, f"DATABASE {row['written']}", f"database {row['written']}"
        )
    return await _schema(db, kind, text, privileges, made_by)


async def _relation(
    db: Database, kind: Kind, text: str, privileges: tuple[str, ...], columns: Sequence[str]
) -> Subject:
    kinds = {"table": (*_TABLES, "v"), "view": _VIEWS, "sequence": ("S",)}[kind]
    relation = await names.relation(db, text, kind, kinds, argument="object")
    owner = (await role(db, f'"{_doubled(relation.owner)}"', "object")).oid
    if relation.persistence == "t":
        raise PreconditionFailed(f"{relation.shown} is a temporary table: it ends with its session.")
    found = tuple(await names.columns(db, relation, columns)) if columns else ()
    items = tuple(Item(relation.oid, f"{relation.written} ({each.written})", owner, each.number) for each in found)
    word = "SEQUENCE" if kind == "sequence" else "TABLE"
    shown = f"{relation.shown} ({', '.join(each.written for each in found)})" if found else relation.shown
    return Subject(
        kind,
        "relation",
        items or (Item(relation.oid, relation.written, owner),),
        privileges,
        f"{word} {relation.written}",
        f"{relation.noun} {shown}",
        columns=found,
        table=relation.oid,
        relation=relation,
    )


def _doubled(name: str) -> str:
    return name.replace('"', '""')


async def _function(db: Database, text: str, privileges: tuple[str, ...]) -> Subject:
    signature = text if "(" in text else None
    try:
        bare = None if signature else (await db.one(query("identifier"), {"text": text}))["parts"]
        rows = await db.rows(query("function_by_name"), {"signature": signature, "bare": bare})
    except DatabaseError:
        rows = []
    if not rows:
        raise InvalidArguments(
            f"There is no function {text!r} in database {db.server.database}.",
            hint="Write its name, or name(types) where there are several: shop.total(bigint).",
            path="object",
        )
    if len(rows) > 1:
        raise InvalidArguments(
            f"There are {len(rows)} functions {text!r}.",
            hint=f"Say which: {listing([row['shown'] for row in rows], 5)}.",
            path="object",
        )
    (row,) = rows
    word = "PROCEDURE" if row["kind"] == "p" else "FUNCTION"
    return Subject(
        "function",
        "function",
        (Item(row["oid"], row["written"], row["owner"]),),
        privileges,
        f"{word} {row['written']}",
        f"{word.lower()} {row['shown']}",
        schema={"oid": row["schema"], "name": row["schema_name"]},
        facts=row,
    )


async def _membership(db: Database, text: str) -> Subject:
    granted = await role(db, text, "object")
    item = Item(granted.oid, granted.written, 0)
    return Subject("role", "role", (item,), (MEMBER,), granted.written, f"role {granted.written}", granted=granted)


async def _named(db: Database, name: str, text: str, noun: str) -> Row:
    rows = await db.rows(query(name), {"names": spellings(text, "object")})
    if not rows:
        raise InvalidArguments(f"There is no {noun} {text!r} on this server.", path="object")
    return rows[0]


async def _schema(db: Database, kind: Kind, text: str, privileges: tuple[str, ...], made_by: str) -> Subject:
    row = await _named(db, "schema_by_name", text, "schema")
    if row["name"].startswith("pg_") or row["name"] == "information_schema":
        raise PreconditionFailed(f"{row['written']} is {article('schema of the system')}: its rights are left alone.")
    if kind == "schema":
        item = Item(row["oid"], row["written"], row["owner"])
        return Subject(kind, "schema", (item,), privileges, f"SCHEMA {row['written']}", f"schema {row['written']}")
    if kind == "future_tables":
        maker = await role(db, made_by or f'"{_doubled(db.server.role)}"', "made_by")
        item = Item(row["oid"], row["written"], maker.oid)
        shown = f"the tables that {maker.name} will make in {row['written']}"
        return Subject(kind, "future", (item,), privileges, "TABLES", shown, schema=row, maker=maker)
    found = await db.rows(query("relations_in_schema"), {"schema": row["oid"]})
    if not found:
        raise PreconditionFailed(
            f"There is no table in schema {row['written']}.", hint="For those to come: kind=future_tables."
        )
    items = tuple(Item(each["oid"], each["written"], each["owner"]) for each in found)
    on = f"ALL TABLES IN SCHEMA {row['written']}"
    return Subject(kind, "relation", items, privileges, on, f"all {len(items)} tables of {row['written']}", schema=row)
