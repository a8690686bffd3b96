"""An index as it is asked for: its keys with their order, resolved against the table and compared with what exists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opsagent_jupyter.errors import InvalidArguments
from opsagent_jupyter.models import Json
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.changes import predicates
from opsagent_jupyter.plugins.postgresql.connection import Database
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.indexes import Index

#: Access methods that keep an order, so that ASC, DESC and NULLS mean something; that take several columns; INCLUDE.
_ORDERED, _SINGLE, _INCLUDING = ("btree",), ("hash", "spgist"), ("btree", "gist", "spgist")
_KEY = re.compile(
    r"(?P<name>.+?)(?:\s+(?P<order>asc|desc))?(?:\s+nulls\s+(?P<nulls>first|last))?", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True)
class Key:
    """One key column with its order."""

    column: names.Column
    descending: bool = False
    nulls_first: bool = False

    @property
    def option(self) -> int:
        """As pg_index.indoption: 1 descending, 2 nulls first."""
        return int(self.descending) + 2 * int(self.nulls_first)

    @property
    def suffix(self) -> str:
        """What follows the column in SQL; nothing for the defaults."""
        order = " DESC" if self.descending else ""
        if self.nulls_first != self.descending:
            order += " NULLS FIRST" if self.nulls_first else " NULLS LAST"
        return order


@dataclass(frozen=True)
class IndexSpec:
    """An index that does not exist yet."""

    relation: names.Relation
    keys: tuple[Key, ...]
    include: tuple[names.Column, ...] = ()
    where: tuple[predicates.Term, ...] = ()
    method: str = "btree"
    unique: bool = False
    concurrently: bool = True
    name: str = ""
    written: str = ""
    """The name as a statement has it."""

    @property
    def numbers(self) -> list[int]:
        """As pg_index.indkey: keys, then INCLUDE."""
        return [*(key.column.number for key in self.keys), *(column.number for column in self.include)]

    @property
    def facts(self) -> dict[str, Json]:
        """What the finished index must look like in the catalog."""
        return {
            "keys": list(self.numbers),
            "key_count": len(self.keys),
            "options": [key.option for key in self.keys],
            "unique": self.unique,
            "method": self.method,
            "partial": bool(self.where),
        }

    def statement(self, *, concurrently: bool | None = None) -> str:
        """CREATE INDEX, schema-qualified; names are quoted by the server's rule, values by the driver's."""
        with_concurrently = self.concurrently if concurrently is None else concurrently
        words = ["CREATE", "UNIQUE" if self.unique else "", "INDEX", "CONCURRENTLY" if with_concurrently else ""]
        keys = ", ".join(key.column.written + key.suffix for key in self.keys)
        text = f"{' '.join(filter(None, words))} {self.written} ON {self.relation.written} USING {self.method} ({keys})"
        if self.include:
            text += f" INCLUDE ({', '.join(column.written for column in self.include)})"
        return f"{text} WHERE {predicates.written(self.where)}" if self.where else text

    def same_as(self, index: Index) -> bool:
        """Whether an existing index does the same job: same keys in the same order, and unique if this one is."""
        if self.where or index.predicate or index.expressions or index.method != self.method:
            return False
        same = index.keys == self.numbers and index.key_count == len(self.keys) and _options(index) == self._options()
        return bool(same and (index.is_unique or not self.unique))

    def begins(self, index: Index) -> bool:
        """Whether an existing btree begins with these keys, or these keys with it."""
        if "btree" not in (self.method, index.method) or self.method != index.method or index.predicate or self.where:
            return False
        n = min(index.key_count, len(self.keys))
        return bool(index.keys[:n] == self.numbers[:n] and _options(index)[:n] == self._options()[:n])

    def _options(self) -> list[int]:
        return [key.option for key in self.keys]


def _options(index: Index) -> list[int]:
    return [int(option) for option in index.options.split()][: index.key_count]


async def resolve(
    db: Database, spec: IndexSpec, columns: Sequence[str], include: Sequence[str], where: str
) -> IndexSpec:
    """Resolve the columns of an index in the catalog; ``InvalidArguments`` for what is not there or does not fit."""
    parsed = [_key(text) for text in columns]
    resolved = await names.columns(db, spec.relation, [name for name, _, _ in parsed])
    keys = tuple(
        Key(column, descending, nulls_first)
        for column, (_, descending, nulls_first) in zip(resolved, parsed, strict=True)
    )
    terms = await _terms(db, spec.relation, where)
    included = tuple(await names.columns(db, spec.relation, include, "include"))
    spec = replace(spec, keys=keys, include=included, where=terms)
    _check(spec)
    await _check_types(db, spec)
    return spec


async def _check_types(db: Database, spec: IndexSpec) -> None:
    """Refuse columns whose type this access method cannot index."""
    values = {"table": spec.relation.oid, "numbers": [key.column.number for key in spec.keys], "method": spec.method}
    for row in await db.rows(query("unindexable_columns"), values):
        raise InvalidArguments(
            f"An index of method {spec.method} cannot hold column {row['name']} of type {row['type']}.",
            hint="Choose another method: gin for arrays, jsonb and text search, gist for ranges and geometry.",
            path="columns",
        )


def _key(text: str) -> tuple[str, bool, bool]:
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise InvalidArguments("A column has no name.", path="columns")
    descending = (match["order"] or "").lower() == "desc"
    nulls_first = match["nulls"].lower() == "first" if match["nulls"] else descending
    return match["name"], descending, nulls_first


async def _terms(db: Database, relation: names.Relation, where: str) -> tuple[predicates.Term, ...]:
    if not where.strip():
        return ()
    terms = predicates.parse(where)
    columns = await names.columns(db, relation, [term.column for term in terms], "where")
    return tuple(replace(term, column=column.written) for term, column in zip(terms, columns, strict=True))


def _check(spec: IndexSpec) -> None:
    if not spec.keys:
        raise InvalidArguments("An index needs at least one column.", path="columns")
    if len(spec.numbers) > 32:
        raise InvalidArguments("An index takes 32 columns at most.", path="columns")
    if len({key.column.number for key in spec.keys}) < len(spec.keys):
        raise InvalidArguments("A column is named twice.", path="columns")
    if spec.method not in _ORDERED and any(key.option for key in spec.keys):
        raise InvalidArguments(
            f"An index of method {spec.method} has no order: leave ASC and DESC out.", path="columns"
        )
    if spec.method in _SINGLE and len(spec.keys) > 1:
        raise InvalidArguments(f"An index of method {spec.method} takes one column.", path="columns")
    if spec.include and spec.method not in _INCLUDING:
        raise InvalidArguments(f"An index of method {spec.method} takes no INCLUDE.", path="include")
    if spec.unique and spec.method != "btree":
        raise InvalidArguments("Only a btree can be unique.", path="method")
