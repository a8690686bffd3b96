"""What a screen asks of the whole audit: a search, counts over time, a file. The filters are those of the store's pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import duckdb

from opsagent_jupyter.audit.queries import sql
from opsagent_jupyter.audit.query import FILTERS, AuditReader, OpenAudit, aside
from opsagent_jupyter.errors import AuditQueryError
from opsagent_jupyter.models import AuditRow

__all__ = ["AuditSelection", "Span", "Written"]

T = TypeVar("T")

#: Seconds of one question, and of a file.
SECONDS, SECONDS_OF_A_FILE = 10.0, 60.0
#: Unlike a command's words, a screen's choices are whole values.
WHOLE = ("status", "server", "instance", "tool", "session", "approval")
CONDITIONS = {
    **{name: FILTERS[name] for name in ("since", "until", "risk", "actor")},
    **{name: f"{name} = ?" for name in WHOLE},
    "risk_exactly": "risk = CAST(? AS risk_level)",
    "search": sql("search"),
}
#: What stands in a file: everything but the hashed text and the link, which `export` of the command line keeps.
COLUMNS = "* EXCLUDE (body, prev_hash)"
WORDS = (
    "type", "status", "tool", "plugin", "server", "instance", "environment", "actor", "actor_name", "via", "session", "call",
    "approval", "reason", "summary", "error_code", "host", "setup",
)  # fmt: skip


class Span(NamedTuple):
    """Records of one status and risk in one span of time; times in milliseconds, the first since 1970."""

    first: int
    width: int
    span: int
    status: str
    risk: str
    events: int


@dataclass(frozen=True)
class Written:
    """Rows of a file; ``cut`` when there were more, and the newest were kept."""

    rows: int
    cut: bool


class AuditSelection(AuditReader):
    """Answers from the copy in DuckDB and what follows it: only there are all texts of a record columns."""

    def rows(self, filters: Mapping[str, str], before: int | None, limit: int) -> Sequence[AuditRow]:
        """The newest rows that match, before a seq."""
        where, values = _condition(filters)
        newest = "" if before is None else f" AND seq < {int(before)}"
        text = (
            f"SELECT {', '.join(AuditRow._fields)} FROM audit WHERE {where}{newest}"  # noqa: S608 - ours
            f" ORDER BY seq DESC LIMIT {int(limit)}"
        )
        found = self._read(lambda audit: _fetched(audit, text, values), unverified=False)
        return [AuditRow._make(row) for row in found]

    def timeline(self, filters: Mapping[str, str], spans: int) -> Sequence[Span]:
        """How many match in each span of time, by status and risk; spans without any are left out."""
        where, values = _condition(filters)
        text = sql("timeline").format(where=where, spans=int(spans))
        return [Span._make(row) for row in self._read(lambda audit: _fetched(audit, text, values), unverified=False)]

    def write(self, target: Path, kind: Literal["csv", "parquet"], filters: Mapping[str, str], most: int) -> Written:
        """Write what matches to a file, the newest last; of more than ``most`` the newest."""
        where, values = _condition(filters)
        choice = f"SELECT seq FROM audit WHERE {where} ORDER BY seq DESC LIMIT {most + 1}"  # noqa: S608 - ours

        def write(audit: OpenAudit) -> Written:
            _within(audit, lambda: audit.database.execute(f"CREATE TEMP TABLE chosen AS {choice}", values), SECONDS)
            matched = audit.database.execute("SELECT count(*) FROM chosen").fetchall()[0][0]
            _within(audit, lambda: _put(audit.database, target, kind, most), SECONDS_OF_A_FILE)
            return Written(min(matched, most), cut=matched > most)

        return self._read(write, unverified=False)


def _condition(filters: Mapping[str, str]) -> tuple[str, list[str]]:
    return " AND ".join(CONDITIONS[name] for name in filters) or "true", [*filters.values()]


def _fetched(audit: OpenAudit, text: str, values: Sequence[str]) -> list[Any]:
    return _within(audit, lambda: audit.database.execute(text, values).fetchall(), SECONDS)


def _within(audit: OpenAudit, work: Callable[[], T], seconds: float) -> T:
    try:
        return aside(audit.database, work, seconds)
    except TimeoutError:
        raise AuditQueryError(
            f"The audit was read for {seconds:g} s without an end.", hint="Narrow the filters, for example by time."
        ) from None


def _put(database: duckdb.DuckDBPyConnection, target: Path, kind: str, most: int) -> None:
    columns = COLUMNS
    if kind == "csv":
        database.execute(sql("harmless"))
        columns += f" REPLACE ({', '.join(f'harmless({name}) AS {name}' for name in WORDS)}, to_json(statements) AS statements)"
    newest = f"(FROM chosen ORDER BY seq DESC LIMIT {most})"
    rows = database.sql(f"SELECT {columns} FROM audit SEMI JOIN {newest} USING (seq) ORDER BY seq")  # noqa: S608 - ours
    write = rows.write_parquet if kind == "parquet" else rows.write_csv
    write(str(target))
