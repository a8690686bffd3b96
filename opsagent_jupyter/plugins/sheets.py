"""Rows of a driver as tables of a result: JSON values only, capped in rows and in cell size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from opsagent_jupyter.models import Json, Table
from opsagent_jupyter.plugin import Limits

#: Types whose values are JSON as they are.
_PLAIN = frozenset((int, bool, type(None)))


def sheet(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    limits: Limits,
    units: Mapping[str, str] | None = None,
    *,
    zone: tzinfo | None = None,
) -> Table:
    """Make a table of these columns; a column is looked up in a row with its spaces as underscores.

    ``zone`` is where a time without a zone is meant; None leaves it without one.
    """
    keys = [column.replace(" ", "_") for column in columns]
    longest = limits.cell_bytes
    short = longest // 4  # characters that fit in any case
    # Most cells are plain, and a call for each of them would cost more than all the rest.
    shown = tuple(
        tuple(
            [
                value
                if type(value) in _PLAIN or (type(value) is str and len(value) <= short)
                else cell(value, longest, zone)
                for value in map(row.get, keys)
            ]
        )
        for row in rows[: limits.rows]
    )
    known = {column: unit for column, unit in (units or {}).items() if column in columns}
    return Table(name=name, columns=tuple(columns), rows=shown, total=len(rows), units=known)


def cell(value: Any, longest: int = 2_000, zone: tzinfo | None = None) -> Json:
    """A value as JSON: times as ISO text, intervals as seconds, 64-bit numbers that fit as they are, the rest as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float | Decimal):
        return _number(float(value))
    if isinstance(value, timedelta):
        return round(value.total_seconds(), 3)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=zone)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [cell(item, longest, zone) for item in value]
    return _cut(str(value), longest)


def _number(value: float) -> Json:
    return round(value, 3) if math.isfinite(value) else None


def _cut(text: str, longest: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= longest:
        return text
    return encoded[: longest - 3].decode(errors="ignore") + "…"


def cut_note(table: Table) -> tuple[str, ...]:
    """A note when a table shows fewer rows than there were."""
    left = table.total - len(table.rows)
    return (f"The table {table.name} shows {len(table.rows)} of {table.total} rows.",) if left > 0 else ()
