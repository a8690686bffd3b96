"""Rows of the audit by the column: the database joins each column into one text, so that no row passes through Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Integer, LargeBinary, Text, and_, cast, func, literal_column, select, type_coerce

from opsagent_jupyter.stores.ledger import line_of
from opsagent_jupyter.stores.tables import plugin_audit_log

#: What of a row is joined; the widths of all but the body tell where one ends and the next begins.
JOINED = ("event_id", "body", "prev_hash", "hash")
FIXED = ("event_id", "prev_hash", "hash")
_NOTHING: Any = literal_column("''")
_COMMA: Any = literal_column("','")
_END: Any = literal_column("'\n'")


def block_after(connection: Connection, after: int, limit: int, *, beside: bool) -> Mapping[str, Any]:
    """The rows with seq > after in order, as one row: ``count``, ``first``, ``last``; ``plain``, how many of them are
    text throughout; each of JOINED without anything between the rows, as bytes; ``lengths`` of the bodies in bytes, with
    commas; the shortest and longest of FIXED in characters. With ``beside`` also ``lines``, the filter columns, each row
    ended by a line feed. It is for readers who check everything: a row that is not as rows are can shift its neighbours."""
    join = _joined_by_postgresql if connection.dialect.name == "postgresql" else _joined_by_sqlite
    table = plugin_audit_log.c
    columns = [table.seq, *(table[name] for name in JOINED)]
    if beside:
        columns.append(line_of(connection.dialect.name).label("line"))
    rows = select(*columns).where(table.seq > after).order_by(table.seq).limit(limit).subquery()
    found = connection.execute(select(*join(rows.c), *_measures(rows.c))).mappings().one()
    return {name: value.encode() if isinstance(value, str) else value for name, value in found.items()}


def _measures(rows: Any) -> list[Any]:
    ends = [
        bound(func.length(rows[name])).label(f"{kind}_{name}")
        for name in FIXED
        for kind, bound in (("least", func.min), ("most", func.max))
    ]
    return [func.count().label("count"), func.min(rows.seq).label("first"), func.max(rows.seq).label("last"), *ends]


def _joined_by_sqlite(rows: Any) -> list[Any]:
    """As bytes: they need not be decoded. A column may hold a value of any type there."""

    def joined(text: Any, between: Any) -> Any:
        return cast(func.group_concat(text, between), LargeBinary)

    texts = and_(*(func.typeof(rows[name]) == literal_column("'text'") for name in JOINED))
    found = [joined(rows[name], _NOTHING).label(name) for name in JOINED]
    found.append(joined(func.length(cast(rows.body, LargeBinary)), _COMMA).label("lengths"))
    found.append(func.sum(type_coerce(texts, Integer)).label("plain"))
    if "line" in rows:
        found.append(joined(rows.line.op("||")(_END), _NOTHING).label("lines"))
    return found


def _joined_by_postgresql(rows: Any) -> list[Any]:
    found = [func.string_agg(rows[name], _NOTHING).label(name) for name in JOINED]
    found.append(func.string_agg(cast(func.octet_length(rows.body), Text), _COMMA).label("lengths"))
    found.append(func.count().label("plain"))
    if "line" in rows:
        found.append(func.string_agg(rows.line.op("||")(_END), _NOTHING).label("lines"))
    return found
