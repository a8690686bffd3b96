"""What the views would gather from millions of rows, kept beside them: one row a call, one a request, one a day's changes.

Kept rows are made in the transaction that carries the rows which they are made of. A row that continues an old story (a
decision, a late end) finds what is kept of it by its key, and takes its place.
"""

from __future__ import annotations

import duckdb

from opsagent_jupyter.audit.queries import sql

#: The tables, each made by the query in the file of its name, and which events they are made of.
KEPT = {
    "kept_outcomes": "type IN ('call.outcome', 'approval.succeeded', 'approval.failed', 'approval.unknown')",
    "kept_approvals": "approval <> '' AND starts_with(type, 'approval.')",
    "kept_changes": "type = 'approval.succeeded'",
}
#: Rows that are gathered at a time, which bounds the memory.
STEP = 1_000_000


def gather(database: duckdb.DuckDBPyConnection, after: int, last: int) -> None:
    """Bring the kept tables of a file up from one row to another."""
    for start in range(after, last, STEP):
        source = f"(FROM audit WHERE seq > {start} AND seq <= {min(start + STEP, last)})"
        for name in _concerned(database, source):
            database.execute(f"CREATE TEMP TABLE gathered AS {_gathered(name, source, name)}")
            database.execute(f"DELETE FROM {name} WHERE key IN (SELECT key FROM gathered)")  # noqa: S608 - ours
            database.execute(f"INSERT INTO {name} BY NAME FROM gathered")
            database.execute("DROP TABLE gathered")


def _concerned(database: duckdb.DuckDBPyConnection, source: str) -> list[str]:
    """The tables that some rows have anything for: a catch-up of a few rows rarely has for all."""
    questions = ", ".join(f"coalesce(bool_or({condition}), false)" for condition in KEPT.values())
    (found,) = database.execute(f"SELECT {questions} FROM {source}").fetchall()  # noqa: S608 - ours
    return [name for name, concerned in zip(KEPT, found, strict=True) if concerned]


def gather_anew(database: duckdb.DuckDBPyConnection) -> None:
    """Make the kept tables of a file from all its rows."""
    for name in KEPT:
        database.execute(f"TRUNCATE {name}")
    first, last = database.execute("SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM audit").fetchall()[0]
    gather(database, first - 1, last)


def define(database: duckdb.DuckDBPyConnection, *, carried: bool, source: str) -> None:
    """Make the kept tables of an answer: those of the carried file, and what the rows of a source add to them."""
    for name in KEPT:
        risk = "" if name == "kept_changes" else "REPLACE (CAST(risk AS risk_level) AS risk)"
        older = f"(SELECT * {risk} FROM carried.{name})" if carried else "(FROM fresh WHERE false)"  # noqa: S608 - ours
        if not source:
            database.execute(f"CREATE VIEW {name} AS FROM {older}")
            continue
        database.execute(f"CREATE TABLE newer_{name} AS {_gathered(name, source, older)}")
        rest = f"FROM {older} ANTI JOIN newer_{name} USING (key) UNION ALL BY NAME" if carried else ""
        database.execute(f"CREATE VIEW {name} AS {rest} FROM newer_{name}")


def _gathered(name: str, source: str, kept: str) -> str:
    return sql(name).replace("{condition}", KEPT[name]).replace("{source}", source).replace("{kept}", kept)
