"""What EXPLAIN answers: plans with and without parameters, read as a tree, and failures that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest
from psycopg import pq

from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import (
    Cancelled,
    DatabaseError,
    DeadlineExceeded,
    InvalidArguments,
    MissingRight,
    PreconditionFailed,
    StatementRefused,
    TargetUnreachable,
)
from opsagent_jupyter.plugins.postgresql.explain import explain, hypothetical, read_plan, render_tree
from tests.postgres import new_database

SCHEMA = """
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN required AS text NOT NULL CHECK (VALUE <> '');
CREATE TABLE customers (id int PRIMARY KEY, name text, region text, secret text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, amount positive, note required);
INSERT INTO customers SELECT n, 'name ' || n, (ARRAY['eu', 'us'])[1 + n % 2], 'hunter2-' || n FROM generate_series(1, 20000) n;
INSERT INTO orders SELECT n, 1 + n % 20000, 1 + n % 9, 'x' FROM generate_series(1, 60000) n;
CREATE TABLE grown (id int, kind int);
INSERT INTO grown SELECT 0, 0;
ANALYZE;
ALTER TABLE grown SET (autovacuum_enabled = false);
INSERT INTO grown SELECT n, 0 FROM generate_series(1, 5000) n;
CREATE SCHEMA hidden;
CREATE TABLE hidden.things (id int);
"""


@pytest.fixture(scope="module")
def shop(pg: EmbeddedPostgres) -> Iterator[str]:
    """A database with a small shop; its superuser DSN."""
    with new_database(pg) as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(SCHEMA)
            conn.execute("DROP ROLE IF EXISTS nobody")
            conn.execute("CREATE ROLE nobody LOGIN")
        yield dsn
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("DROP ROLE nobody")


def run(dsn: str, scene: Callable[[psycopg.AsyncConnection], Awaitable]):
    """Play a scene on a connection of its own."""

    async def play():
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            return await scene(conn)

    return asyncio.run(play())


def explained(dsn: str, text: str, **options):
    return run(dsn, lambda conn: explain(conn, text, **options))


# --- plans -----------------------------------------------------------------------------------------------------------


def test_plain_explain_executes_nothing(shop):
    """A plain plan has estimates only, and says what was explained."""
    answer = explained(shop, "SELECT * FROM customers WHERE id = 1")
    assert answer.plan["Node Type"] == "Index Scan"
    assert (answer.analyzed, answer.generic, answer.execution_ms) == (False, False, None)
    assert answer.planning_ms > 0
    assert answer.statement.relations == ((None, "customers"),)


def test_analyze_measures(shop):
    """ANALYZE brings actual rows, times and buffers."""
    answer = explained(shop, "SELECT count(*) FROM orders", analyze=True)
    assert answer.analyzed
    assert answer.execution_ms > 0
    assert answer.plan["Actual Rows"] == 1
    assert "Shared Hit Blocks" in answer.plan


def test_parameters_give_a_generic_plan(shop):
    """$1 is planned for any value, not for NULL, whose plan would be empty."""
    answer = explained(shop, "SELECT * FROM orders WHERE id = $1 AND customer_id = ANY ($2) LIMIT $3")
    assert answer.generic
    assert "$1" in str(answer.plan)
    assert answer.plan["Plan Rows"] >= 1
    assert "plan_cache_mode" not in answer.settings


def test_parameter_of_a_domain_runs_no_check(shop):
    """A NULL stands for the parameter without being tested against the domain that the server gives it."""
    answer = explained(shop, "INSERT INTO orders VALUES ($1, $2, $3, $4)")
    assert (answer.generic, answer.plan["Node Type"]) == (True, "ModifyTable")


def test_parameter_without_a_type_is_asked_for(shop):
    """The server cannot tell what $1 is here; the answer says how to."""
    with pytest.raises(InvalidArguments, match="cast"):
        explained(shop, "SELECT $1 IS NULL")


def test_settings_off_their_defaults_are_told(shop):
    """A plan under unusual settings says so, and the search path of the session is the statement's."""

    async def scene(conn):
        await conn.execute("SET enable_seqscan = off")
        await conn.execute("SET search_path = hidden")
        return await explain(conn, "SELECT * FROM things")

    answer = run(shop, scene)
    assert answer.settings["enable_seqscan"] == "off"
    assert answer.plan["Schema"] == "hidden"


def test_repr_shows_no_statement(shop):
    """An answer can be printed without its literals."""
    answer = explained(shop, "SELECT * FROM customers WHERE secret = 'hunter2-7'")
    assert "hunter2" not in repr(answer)


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("SELECT * FROM no_such_table", InvalidArguments, "no_such_table"),
        ("SELECT no_such_column FROM orders", InvalidArguments, "no_such_column"),
        ("SELECT no_such_function(1)", InvalidArguments, "no_such_function"),
        ("SELECT * FROM nowhere.orders", InvalidArguments, "nowhere"),
        ("SELEC 1", StatementRefused, "SELEC"),
        ("SELECT 1; SELECT 2", StatementRefused, "2 statements"),
        ("SELECT sum(id), region FROM customers", InvalidArguments, "region"),
    ],
)
def test_a_wrong_statement_is_named(shop, text, error, words):
    """What the server cannot read is said in its words, which quote the statement only."""
    with pytest.raises(error, match=words):
        explained(shop, text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT secret::int FROM customers",
        "SELECT secret::date FROM customers",
        "SELECT secret::jsonb FROM customers",
        "SELECT secret::regclass FROM customers",
        "SELECT (SELECT secret FROM customers WHERE id = 7)::inet",
        "SELECT to_timestamp(secret, 'YYYY') FROM customers",
        "SELECT secret::required::positive FROM customers",
        "SELECT decode(secret, 'hex') FROM customers",
    ],
)
def test_failed_conversion_tells_no_data(shop, text):
    """A row that does not convert is quoted by the server; the error keeps its fixed words and the code."""
    with pytest.raises((DatabaseError, InvalidArguments)) as caught:
        explained(shop, text, analyze=True)
    assert "hunter" not in f"{caught.value} {caught.value.facts} {caught.value.__cause__}"
    assert caught.value.__suppress_context__


def as_nobody(dsn: str, text: str):
    async def scene(conn):
        await conn.execute("SET ROLE nobody")
        return await explain(conn, text)

    return run(dsn, scene)


@pytest.mark.parametrize(
    ("text", "right", "grant"),
    [
        ("SELECT * FROM customers", "SELECT on public.customers", "GRANT SELECT ON public.customers TO nobody;"),
        ("SELECT * FROM hidden.things", "USAGE on schema hidden", "GRANT USAGE ON SCHEMA hidden TO nobody;"),
    ],
)
def test_missing_right_is_named_with_its_grant(shop, text, right, grant):
    """A role that may not read hears which right it lacks, and the statement that gives it."""
    with pytest.raises(MissingRight) as caught:
        as_nobody(shop, text)
    assert caught.value.right == right
    assert grant in caught.value.hint


def test_missing_right_to_write_is_named(shop):
    """Planning a write needs the right to write."""
    with psycopg.connect(shop, autocommit=True) as conn:
        conn.execute("GRANT SELECT ON customers TO nobody")
        try:
            with pytest.raises(MissingRight, match="customers"):
                as_nobody(shop, "DELETE FROM customers")
        finally:
            conn.execute("REVOKE SELECT ON customers FROM nobody")


def test_locked_table_ends_soon(shop):
    """A table under ACCESS EXCLUSIVE gives an answer after the lock time-out, not after the migration."""
    with psycopg.connect(shop) as conn:
        conn.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DeadlineExceeded, match="locked") as caught:
            explained(shop, "SELECT * FROM orders", lock_timeout_ms=100)
    assert "get_locks" in caught.value.hint


def test_endless_statement_is_cut(shop):
    """A statement that would run for hours is cancelled in the database at its limit."""
    with pytest.raises(DeadlineExceeded, match="300 ms"):
        explained(shop, "SELECT count(*) FROM generate_series(1, 1e10)", analyze=True, statement_timeout_ms=300)


def test_cancelled_by_another_session_is_no_deadline(shop):
    """A person who cancels the statement in the database is told apart from the clock."""

    async def scene(conn):
        running = asyncio.create_task(explain(conn, "SELECT count(*) FROM generate_series(1, 1e10)", analyze=True))
        async with await psycopg.AsyncConnection.connect(shop, autocommit=True) as other:
            await cancel(other, conn.info.backend_pid)
        await running

    with pytest.raises(Cancelled):
        run(shop, scene)


async def cancel(conn: psycopg.AsyncConnection, pid: int) -> None:
    """Cancel a backend as soon as it explains."""
    cursor = None
    while cursor is None or await cursor.fetchone() is None:
        cursor = await conn.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity, pg_sleep(0.02)"
            " WHERE pid = %s AND state = 'active' AND query ~ '^EXPLAIN'",
            [pid],
        )


def test_cancelled_task_cancels_the_statement(shop):
    """Cancelling the call reaches the database, and the connection can be used afterwards."""

    async def scene(conn):
        running = asyncio.create_task(explain(conn, "SELECT count(*) FROM generate_series(1, 1e10)", analyze=True))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert conn.info.transaction_status == pq.TransactionStatus.IDLE
        return (await explain(conn, "SELECT 1")).plan["Node Type"]

    assert run(shop, scene) == "Result"


def test_lost_connection_is_said(shop):
    """A backend that is gone is an unreachable target, and the connection is closed."""

    async def scene(conn):
        with psycopg.connect(shop, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
        with pytest.raises(TargetUnreachable):
            await explain(conn, "SELECT 1")
        assert conn.closed

    run(shop, scene)


def test_connection_in_use_is_refused(shop):
    """A connection inside a transaction is not ours, so nothing is sent on it."""

    async def scene(conn):
        await conn.execute("BEGIN")
        with pytest.raises(PreconditionFailed):
            await explain(conn, "SELECT 1")
        assert conn.info.transaction_status == pq.TransactionStatus.INTRANS

    run(shop, scene)


def test_hypothetical_index_needs_the_extension(shop):
    """Without hypopg there is no plan with an index that is not there."""
    answer = run(
        shop,
        lambda conn: hypothetical(
            conn, "SELECT * FROM orders WHERE customer_id = 1", "CREATE INDEX ON orders (customer_id)"
        ),
    )
    assert answer is None


@pytest.mark.parametrize("text", ["DROP INDEX x", "CREATE INDEX ON orders (id); DROP TABLE orders", "SELECT 1"])
def test_hypothetical_index_is_one_create_index(shop, text):
    """Nothing but one CREATE INDEX is taken for an index."""
    with pytest.raises(StatementRefused):
        run(shop, lambda conn: hypothetical(conn, "SELECT 1", text))


def test_standby_answers(pg18):
    """A hot standby plans and measures like its primary."""
    with new_database(pg18) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE small AS SELECT 1 AS id")
        standby = pg18.add_standby("explain_standby", "0")
        try:
            there = standby.dsn_for(dsn.rpartition("/")[2].partition("?")[0])
            assert explained(there, "SELECT * FROM small", analyze=True).plan["Actual Rows"] == 1
            assert explained(there, "DELETE FROM small").plan["Node Type"] == "ModifyTable"
        finally:
            standby.stop()


# --- the tree --------------------------------------------------------------------------------------------------------


def test_scan_that_throws_rows_away_is_marked_with_its_columns(shop):
    """The tree names the table and the columns that an index could serve, those compared by = first."""
    query = "SELECT * FROM orders WHERE amount < 100 AND customer_id = 77"
    for analyze in (False, True):
        tree = read_plan(explained(shop, query, analyze=analyze).plan)
        mark = next(mark for mark in tree.marks if mark.kind == "removes_most")
        assert mark.relation == "public.orders"
        assert mark.columns == ("customer_id", "amount")
        assert tree.costliest.relation == "public.orders"
        assert "<== costliest" in render_tree(tree)


def test_misestimate_is_marked(shop):
    """A table that grew since its last ANALYZE shows as rows far from the estimate."""
    tree = read_plan(explained(shop, "SELECT * FROM grown WHERE kind = 0 AND id > 0", analyze=True).plan)
    assert any(mark.kind == "misestimate" and "more rows" in mark.text for mark in tree.marks)


def test_spill_is_marked(shop):
    """A sort that does not fit in work_mem shows that it went to disk."""

    async def scene(conn):
        await conn.execute("SET work_mem = '64kB'")
        await conn.execute("SET max_parallel_workers_per_gather = 0")
        return await explain(conn, "SELECT * FROM orders ORDER BY note, customer_id", analyze=True)

    tree = read_plan(run(shop, scene).plan)
    assert any(mark.kind == "spill" and "disk" in mark.text for mark in tree.marks)


def test_join_tree_reads_top_down(shop):
    """Nodes come in the order of the plan with their depth, and own costs do not exceed the whole."""
    text = (
        "SELECT c.region, count(*) FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.region ORDER BY 2"
    )
    tree = read_plan(explained(shop, text, analyze=True).plan)
    assert tree.nodes[0].depth == 0
    assert all(after.depth <= before.depth + 1 for before, after in zip(tree.nodes, tree.nodes[1:], strict=False))
    assert {"public.customers", "public.orders"} <= {node.relation for node in tree.nodes}
    assert sum(node.own_cost for node in tree.nodes) == pytest.approx(tree.total_cost, rel=0.01)
    assert len([node for node in tree.nodes if node.mark("costliest")]) == 1
