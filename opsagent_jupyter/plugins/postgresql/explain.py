"""EXPLAIN that changes nothing: four layers between a statement and the server, all of them for every call.

1. The text goes to the server alone, as one protocol-level Parse, so it can be only one statement; EXPLAIN then names
   the prepared statement, so no text stands next to EXPLAIN.
2. It happens in a READ ONLY transaction with short time limits, which always ends in ROLLBACK.
3. `statement.examine` reads the text with PostgreSQL's own parser before anything is sent.
4. `purity.reach` follows every name through the catalog, for plain EXPLAIN too, because planning runs functions.

Plain EXPLAIN plans reads and writes, with parameters ($1) as a generic plan. ANALYZE executes: SELECTs only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, LiteralString

import psycopg
from psycopg import generators, pq, sql

from opsagent_jupyter.errors import OpsAgentError, PreconditionFailed, StatementRefused
from opsagent_jupyter.plugins.postgresql.explain_failures import Circumstances, translated
from opsagent_jupyter.plugins.postgresql.explain_plan import PlanNode, PlanTree, read_plan, render_tree
from opsagent_jupyter.plugins.postgresql.purity import reach
from opsagent_jupyter.plugins.postgresql.statement import Names, Statement, examine, examine_index

__all__ = ["ExplainedPlan", "PlanNode", "PlanTree", "explain", "hypothetical", "read_plan", "render_tree"]

Connection = psycopg.AsyncConnection[Any]

_PREPARED = b"opsagent_explain"

_LEAVE_SECONDS = 5.0
"""A connection that cannot be put in order within this time is closed."""


@dataclass(frozen=True)
class ExplainedPlan:
    """A plan as the server gave it, and how it came about. Times in milliseconds."""

    plan: dict[str, Any] = field(repr=False)
    """The top node of FORMAT JSON. It quotes literals of the statement."""
    settings: dict[str, str]
    """Planner settings that are not at their defaults."""
    planning_ms: float
    execution_ms: float | None
    generic: bool
    """Planned for any parameter values, because the statement has $1."""
    analyzed: bool
    statement: Statement = field(repr=False)


async def explain(
    conn: Connection,
    text: str,
    *,
    analyze: bool = False,
    statement_timeout_ms: int = 5000,
    lock_timeout_ms: int = 200,
) -> ExplainedPlan:
    """Return the plan of one statement; with ``analyze`` execute it, if it is a SELECT that only reads.

    ``conn`` is in autocommit, idle, and ours alone for the call. It can be used afterwards, unless it could not be put
    in order: then it is closed. Advisory locks that its session held are released.
    Errors: StatementRefused (``reason``), InvalidArguments, MissingRight, DeadlineExceeded, Cancelled, DatabaseError.
    """
    statement = examine(text, analyze=analyze)
    async with _transaction(conn, statement, statement_timeout_ms, lock_timeout_ms) as inside:
        await inside.check(analyze=analyze)
        return await inside.plan(analyze=analyze)


async def hypothetical(
    conn: Connection, text: str, index_sql: str, *, statement_timeout_ms: int = 5000, lock_timeout_ms: int = 200
) -> ExplainedPlan | None:
    """Return the plan as if the index were there, or None where the extension hypopg is not installed."""
    statement, index = examine(text, analyze=False), examine_index(index_sql)
    async with _transaction(conn, statement, statement_timeout_ms, lock_timeout_ms) as inside:
        schema = await _hypopg_schema(conn)
        if schema is None:
            return None
        await inside.check(analyze=False, index=index)
        try:
            await inside.imagine(schema, index_sql)
            return await inside.plan(analyze=False)
        finally:
            inside.forget = sql.SQL("SELECT {}.hypopg_reset()").format(sql.Identifier(schema)).as_bytes(conn)


async def _hypopg_schema(conn: Connection) -> str | None:
    cursor = await conn.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'hypopg'"
    )
    row = await cursor.fetchone()
    return str(row[0]) if row else None


@dataclass
class _Inside:
    """The one transaction of a call, from its first query to its ROLLBACK."""

    conn: Connection
    circumstances: Circumstances
    schemas: Sequence[str]
    search_path: str
    jit: str
    prepared: bool = False
    forget: bytes = b""

    @property
    def statement(self) -> Statement:
        return self.circumstances.statement

    async def check(self, *, analyze: bool, index: Names | None = None) -> None:
        """Ask the catalog about every name, and go back to the settings that the statement is meant for."""
        self.circumstances.relations = await reach(
            self.conn, self.statement.names, analyze=analyze, schemas=self.schemas
        )
        if index is not None:
            await reach(self.conn, index, analyze=True, schemas=self.schemas)
        await self.conn.execute(
            "SELECT set_config('search_path', %s, true), set_config('jit', %s, true),"
            " set_config('statement_timeout', %s, true)",
            [self.search_path, self.jit, str(self.circumstances.statement_timeout_ms)],
        )
        self.circumstances.enter("parse")

    async def imagine(self, schema: str, index_sql: str) -> None:
        create = sql.SQL("SELECT {}.hypopg_create_index(%s)").format(sql.Identifier(schema))
        await self.conn.execute(create, [index_sql])

    async def plan(self, *, analyze: bool) -> ExplainedPlan:
        parameters = await self._prepare()
        self.circumstances.enter("evaluate")
        row = await (await self.conn.execute(_explaining(parameters, analyze=analyze))).fetchone()
        top = row[0][0] if row and isinstance(row[0], list) and row[0] else None
        if not isinstance(top, dict) or "Plan" not in top:
            raise StatementRefused("This statement has no plan.", hint="Give a SELECT.", reason="utility")
        settings = {name: value for name, value in top.get("Settings", {}).items() if name != "plan_cache_mode"}
        return ExplainedPlan(
            plan=top["Plan"],
            settings=settings,
            planning_ms=float(top.get("Planning Time", 0.0)),
            execution_ms=float(top["Execution Time"]) if analyze else None,
            generic=parameters > 0,
            analyzed=analyze,
            statement=self.statement,
        )

    async def _prepare(self) -> int:
        """Send the bare text as one Parse message; return the number of parameters that the server found."""
        types = await self._parse([])
        if any(each >= 16384 for each in types):
            cursor = await self.conn.execute(_text("explain_base_types.sql"), [types])
            below = dict(await cursor.fetchall())
            plain = [below.get(each, each) for each in types]
            if plain != types:  # a NULL for a domain would run its checks
                await _simple(self.conn, b"DEALLOCATE " + _PREPARED)
                self.prepared = False
                await self._parse(plain)
        return len(types)

    async def _parse(self, types: Sequence[int]) -> list[int]:
        """Send one Parse message; return the types of the parameters."""
        text = self.statement.text.encode(self.conn.info.encoding)
        async with self.conn.lock:
            self.conn.pgconn.send_prepare(_PREPARED, text, types or None)
            await _results(self.conn)
            self.prepared = True
            if not self.statement.parameters:
                return []
            self.conn.pgconn.send_describe_prepared(_PREPARED)
            described = (await _results(self.conn))[0]
        return [described.param_type(number) for number in range(described.nparams)]


@asynccontextmanager
async def _transaction(
    conn: Connection, statement: Statement, statement_timeout_ms: int, lock_timeout_ms: int
) -> AsyncIterator[_Inside]:
    if not conn.autocommit or conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        raise PreconditionFailed("EXPLAIN needs an idle connection in autocommit.", hint="Use one of its own.")
    circumstances = Circumstances(statement, statement_timeout_ms, lock_timeout_ms)
    inside = _Inside(conn, circumstances, (), "", "")
    try:
        await _begin(inside)
        yield inside
    except psycopg.Error as error:
        raise translated(error, circumstances) from None  # the driver's text may quote data
    finally:
        await _leave(inside)


@lru_cache(maxsize=64)
def _explaining(parameters: int, *, analyze: bool) -> bytes:
    """The EXPLAIN of the prepared statement with so many parameters, all of them NULL."""
    options = "ANALYZE, BUFFERS, VERBOSE, SETTINGS, SUMMARY, FORMAT JSON"
    command = sql.SQL("EXPLAIN ({}) EXECUTE {}").format(
        sql.SQL(options if analyze else options.removeprefix("ANALYZE, BUFFERS, ")),
        sql.Identifier(_PREPARED.decode()),
    )
    if parameters:
        command += sql.SQL(" ({})").format(sql.SQL(", ").join([sql.NULL] * parameters))
    return command.as_bytes(None)


@lru_cache(maxsize=64)
def _beginning(limit_ms: int, lock_timeout_ms: int, statement_timeout_ms: int) -> bytes:
    """What opens the transaction, with its limits in milliseconds."""
    command = sql.SQL(_text("explain_begin.sql")).format(
        statement_timeout=sql.Literal(limit_ms),
        lock_timeout=sql.Literal(lock_timeout_ms),
        idle_timeout=sql.Literal(2 * statement_timeout_ms + 10_000),
    )
    return command.as_bytes(None)


async def _begin(inside: _Inside) -> None:
    limits = inside.circumstances
    command = _beginning(limits.limit_ms, limits.lock_timeout_ms, limits.statement_timeout_ms)
    cursor = await inside.conn.execute(command)
    while cursor.nextset():
        pass
    row = await cursor.fetchone()
    assert row is not None
    inside.schemas, inside.search_path, inside.jit, limits.role = row[:4]


async def _leave(inside: _Inside) -> None:
    """Roll back and leave no trace in the session; a connection that does not obey is closed."""
    conn = inside.conn
    if conn.closed:
        return
    command = b"ROLLBACK; SELECT pg_catalog.pg_advisory_unlock_all()"
    command += b"; DEALLOCATE " + _PREPARED if inside.prepared else b""
    command += b"; " + inside.forget if inside.forget else b""
    try:
        async with asyncio.timeout(_LEAVE_SECONDS):
            await _simple(conn, command)
    except (psycopg.Error, TimeoutError, OpsAgentError):
        await conn.close()
    if conn.info.transaction_status != pq.TransactionStatus.IDLE:
        await conn.close()


async def _simple(conn: Connection, command: bytes) -> None:
    """Send our own words past psycopg, which would forget its prepared statements at a ROLLBACK."""
    async with conn.lock:
        conn.pgconn.send_query(command)
        await _results(conn)


async def _results(conn: Connection) -> Sequence[pq.abc.PGresult]:
    results: Sequence[pq.abc.PGresult] = await conn.wait(generators.execute(conn.pgconn))
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding=conn.info.encoding)
    return results


@cache
def _text(name: str) -> LiteralString:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
