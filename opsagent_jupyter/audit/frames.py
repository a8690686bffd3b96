"""From DuckDB to pandas: every type as an analyst expects it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, get_args

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import CallStatus, Environment, Risk

RISKS = [str(risk) for risk in Risk]
RISK_TYPE = f"ENUM({', '.join(repr(risk) for risk in RISKS)})"
#: What these columns can hold besides nothing; whatever else is found is added behind.
CATEGORIES = {
    "status": sorted({*get_args(CallStatus), *map(str, ApprovalState), "denied", "planning"}),
    "environment": list(get_args(Environment)),
    "via": ["kernel", "cli", "server", "worker", "api"],
}
_NANOSECONDS_PER_DAY = 86_400_000_000_000


def frame_of(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """The rows of a relation. Risk levels become ordered categories, JSON becomes Python values, intervals Timedelta
    (a month counts 30 days), wide integers and decimals int64 or float64."""
    table = relation.to_arrow_table()
    if not table.num_columns:
        return pd.DataFrame()
    columns = [
        _series(column, str(kind)).rename(name)
        for name, column, kind in zip(table.column_names, table.columns, relation.types, strict=True)
    ]
    return pd.concat(columns, axis="columns")


def audit_frame(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Rows of the view ``audit``: as above, and columns of few values are categories, the same in every frame."""
    frame = frame_of(relation)
    for name, known in CATEGORIES.items():
        found = frame[name].replace("", None)
        others = sorted({*found.dropna().unique()} - {*known})
        frame[name] = pd.Categorical(found, categories=[*known, *others])
    return frame


def _series(column: pa.ChunkedArray, kind: str) -> pd.Series[Any]:
    if kind == "JSON":
        return _objects(column, _json)
    if kind == RISK_TYPE:
        return pd.Series(pd.Categorical(column.cast(pa.string()).to_pandas(), categories=RISKS, ordered=True))
    if kind == "INTERVAL":
        return pd.Series([_timedelta(value) for value in column.to_pylist()], dtype="timedelta64[us]")
    if pa.types.is_nested(column.type):
        return _objects(column, lambda value: value)
    if pa.types.is_decimal(column.type):
        column = _number(column)
    plain: pd.Series[Any] = column.to_pandas(date_as_object=False)
    return plain


def _objects(column: pa.ChunkedArray, convert: Callable[[Any], Any]) -> pd.Series[Any]:
    values = [None if value is None else convert(value) for value in column.to_pylist()]
    return pd.Series(values, dtype=object)


def _json(text: str) -> Any:
    return {} if text == "{}" else json.loads(text)


def _number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Sums of integers come as 38 digits, which pandas would keep as slow objects."""
    if column.type.scale == 0 and not column.null_count:
        try:
            return pc.cast(column, pa.int64())
        except pa.ArrowInvalid:
            pass
    return pc.cast(column, pa.float64())


def _timedelta(value: Sequence[int] | None) -> pd.Timedelta | None:
    if value is None:
        return None
    months, days, nanoseconds = value
    return pd.Timedelta((months * 30 + days) * _NANOSECONDS_PER_DAY + nanoseconds, unit="ns")
