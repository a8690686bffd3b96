"""Names as a person or a model writes them, resolved to the one object they mean; what is not found is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from opsagent_jupyter.errors import DatabaseError, InvalidArguments
from opsagent_jupyter.names import near
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.wording import article

#: Bytes of an identifier; the server cuts longer ones without a word.
LONGEST = 63
#: A name that means itself, whether it is quoted or not.
PLAIN = re.compile("[a-z_][a-z0-9_]{0,62}")
TABLES, INDEXES = ("r", "p", "m", "f"), ("i", "I")

_NOUNS = {
    "r": "table", "p": "partitioned table", "m": "materialized view", "f": "foreign table", "v": "view",
    "i": "index", "I": "partitioned index", "S": "sequence", "c": "type", "t": "TOAST table",
}  # fmt: skip


def noun(kind: str) -> str:
    """What a relkind is called."""
    return _NOUNS.get(kind, "object")


@dataclass(frozen=True)
class Relation:
    """A table or index that exists."""

    oid: int
    schema: str
    name: str
    kind: str
    """As relkind: r, p, m, f, i, I."""
    written: str
    """As a statement names it: schema-qualified, quoted where needed."""
    shown: str
    """As a person writes it on this search path."""
    owner: str
    owned: bool
    """Whether our role has the owner's rights."""
    persistence: str
    rows: float
    """The planner's count, -1 when it was never counted."""
    pages: int
    filenode: int
    is_partition: bool

    @property
    def noun(self) -> str:
        return noun(self.kind)

    @property
    def is_system(self) -> bool:
        return self.schema in ("pg_catalog", "information_schema", "pg_toast")


async def table(db: Database, text: str, *, kinds: Sequence[str] = TABLES) -> Relation:
    """Resolve the name of a table; ``InvalidArguments`` with near matches when there is none."""
    return await _resolve(db, text, "table", kinds)


async def index(db: Database, text: str) -> Relation:
    """Resolve the name of an index; ``InvalidArguments`` with near matches when there is none."""
    return await _resolve(db, text, "index", INDEXES)


async def relation(db: Database, text: str, what: str, kinds: Sequence[str], *, argument: str) -> Relation:
    """Resolve the name of anything that is kept like a table: a view or a sequence too, as ``kinds`` says."""
    return await _resolve(db, text, what, kinds, argument)


async def _resolve(db: Database, text: str, what: str, kinds: Sequence[str], argument: str = "") -> Relation:
    argument = argument or what
    found = await db.rows(query("relation"), await _candidates(db, text, argument))
    if not found:
        raise InvalidArguments(
            f"There is no {what} {text!r} in database {db.server.database}{await _alike(db, text, kinds)}.",
            hint='Names are looked up on the role\'s search path; write schema.name for others, "Quoted" where case matters.',
            path=argument,
        )
    relation = Relation(**found[0])
    if relation.kind not in kinds:
        raise InvalidArguments(f"{relation.shown} is {article(relation.noun)}, not {article(what)}.", path=argument)
    return relation


async def _candidates(db: Database, text: str, argument: str) -> dict[str, str | None]:
    """The name as SQL reads it (None when SQL cannot), and the name letter by letter."""
    if PLAIN.fullmatch(text):  # SQL reads it as it is: no need to ask
        return {"text": text, "quoted": f'"{text}"'}
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in text.split("."))
    try:
        parts = (await db.one(query("identifier"), {"text": text}))["parts"]
    except DatabaseError:
        return {"text": None, "quoted": quoted if 0 < text.count(".") + 1 <= 2 and text.strip(" .") else None}
    for part in parts:
        check_length(part, argument)
    if len(parts) > 2:
        raise InvalidArguments(f"{text!r} has too many parts: write name or schema.name.", path=argument)
    return {"text": text, "quoted": quoted if text.count(".") < 2 else None}


def check_length(name: str, argument: str) -> None:
    """Refuse a name that the server would cut."""
    if (length := len(name.encode())) > LONGEST:
        raise InvalidArguments(
            f"The name {name[:20]}… has {length} bytes; PostgreSQL takes {LONGEST} and would cut it.", path=argument
        )


async def _alike(db: Database, text: str, kinds: Sequence[str]) -> str:
    known = await db.rows(query("relation_names"), {"kinds": list(kinds), "limit": 5_000})
    names = [row["name"] for row in known]
    bare = {name.rpartition(".")[2].strip('"').lower(): name for name in names}
    wanted = text.rpartition(".")[2].strip('"').lower()
    if wanted in bare:
        return f" (did you mean {bare[wanted]}?)"
    return near(text, names)


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    written: str
    """As a statement names it: quoted where needed, by the server's own rule."""
    number: int
    type: str


async def columns(db: Database, relation: Relation, names: Sequence[str], argument: str = "columns") -> list[Column]:
    """Resolve columns of a table, each exactly as written or folded to lower case; order is kept."""
    rows: list[Row] = await db.rows(query("columns"), {"table": relation.oid})
    known = {row["name"]: Column(**row) for row in rows}
    found = []
    for text in names:
        bare = text[1:-1].replace('""', '"') if text.startswith('"') and text.endswith('"') and len(text) > 2 else text
        column = known.get(bare) or known.get(bare.lower()) or None
        if column is None:
            raise InvalidArguments(
                f"{relation.shown} has no column {text!r}{near(bare, known)}.",
                hint="Columns only; expressions are not offered.",
                path=argument,
            )
        found.append(column)
    return found
