"""Each read finds what is wrong in a sick database, says it in plain words, and offers the ready next call."""

from __future__ import annotations

import time

import psycopg
import pytest

from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import InvalidArguments, MissingRight, PreconditionFailed, StatementRefused
from opsagent_jupyter.models import Result, Risk
from opsagent_jupyter.plugin import Limits
from opsagent_jupyter.plugins.postgresql import plugin
from opsagent_jupyter.plugins.postgresql.queries import query
from tests.integration.postgresql_stage import (
    OBSERVER,
    attached,
    eventually,
    execute,
    leave_invalid_index,
    on_loop,
    read,
    role,
    seed,
    transaction,
    value,
    waiting,
)
from tests.postgres import MAJORS, PIXELTABLE_MAJOR, new_database

READS = [name for name, tool in plugin.toolbox.tools.items() if not tool.changes and name != "explain_query"]


def column(result: Result, table: str, name: str) -> list:
    """One column of one of a result's tables."""
    found = next(each for each in result.tables if each.name == table)
    place = found.columns.index(name)
    return [row[place] for row in found.rows]


def line(result: Result, table: str, key: str, wanted) -> dict:
    """The row of a table where a column has a value."""
    found = next(each for each in result.tables if each.name == table)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    return next(row for row in rows if row[key] == wanted)


def offered(result: Result, tool: str) -> list[dict]:
    """The arguments of the calls of one tool that a result suggests."""
    return [each.arguments for each in result.suggestions if each.tool == f"postgresql.{tool}"]


@pytest.fixture(params=[major for major in MAJORS if major != PIXELTABLE_MAJOR], ids=lambda major: f"pg{major}")
def recorded(request, pg_servers):
    """A seeded database on each server that records statements."""
    with new_database(pg_servers.get(request.param)) as dsn:
        seed(dsn)
        execute(dsn, "CREATE EXTENSION pg_stat_statements")
        yield dsn


@pytest.fixture
def unrecorded(pg_servers):
    """A seeded database on the server without pg_stat_statements."""
    with new_database(pg_servers.get(PIXELTABLE_MAJOR)) as dsn:
        seed(dsn)
        yield dsn


@pytest.fixture(scope="module")
def preparing_server():
    """A server that allows prepared transactions."""
    with EmbeddedPostgres(settings={"max_prepared_transactions": 4}) as server:
        yield server


@pytest.fixture
def preparing(preparing_server):
    """A seeded database where transactions can be prepared."""
    with new_database(preparing_server) as dsn:
        seed(dsn)
        yield dsn


@pytest.fixture(scope="module")
def pair():
    """A primary with a standby, and the standby."""
    with EmbeddedPostgres() as primary:
        yield primary, primary.add_standby("stage_standby")


# -- every read


@pytest.mark.parametrize("tool", READS)
@on_loop
async def test_a_read_answers_for_an_observer_while_a_table_is_locked_exclusively(database, tool):
    """With one table held in ACCESS EXCLUSIVE mode every read answers at once, for a role that only observes."""
    seed(database)
    with transaction(database, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"), role(database, *OBSERVER) as dsn:
        async with attached(dsn) as db:
            started = time.monotonic()
            result = await read(db, tool)
            took = time.monotonic() - started
    assert took < 2
    assert result.summary.endswith((".", "!"))
    assert "<insufficient" not in result.model_dump_json()


@pytest.mark.parametrize("tool", READS)
@on_loop
async def test_a_read_answers_for_a_role_without_rights(database, tool):
    """A role that may only log in gets an answer, and is told what it does not see."""
    seed(database)
    with transaction(database, "UPDATE orders SET status = 'hold' WHERE id = 1"), role(database) as dsn:
        async with attached(dsn) as db:
            result = await read(db, tool)
    assert result.summary
    assert "<insufficient" not in result.model_dump_json()


@pytest.mark.parametrize("tool", READS)
@on_loop
async def test_a_read_answers_in_an_empty_database(database, tool):
    """No tables, no sessions, no statements: still a sentence."""
    async with attached(database) as db:
        result = await read(db, tool)
    assert result.summary


@on_loop
async def test_rows_are_cut_at_the_limit_and_it_is_said(database18):
    """A table of a result holds no more rows than the limit, counts them all, and says so."""
    execute(database18, *(f"CREATE TABLE t{n} (a int PRIMARY KEY)" for n in range(8)))
    async with attached(database18, Limits(rows=5)) as db:
        result = await read(db, "list_indexes")
    assert len(result.tables[0].rows) == 5
    assert result.tables[0].total == 8
    assert any("5 of 8" in note for note in result.notes)


# -- list_indexes


@on_loop
async def test_invalid_duplicate_redundant_and_unused_indexes_are_found(database):
    """Each kind is named with its reason, and the first three are offered for removal."""
    seed(database)
    leave_invalid_index(database)
    async with attached(database) as db:
        result = await read(db, "list_indexes")
    findings = dict(zip(column(result, "indexes", "index"), column(result, "indexes", "finding"), strict=True))
    assert findings["customers_name_uq"] == "invalid"
    assert {findings["orders_created_at_idx"], findings["orders_created_at_dup"]} == {"duplicate", "unused"}
    assert findings["orders_status_idx"] == "redundant"
    assert findings["orders_pkey"] == findings["customers_pkey"] == ""
    assert "1 is invalid, 1 is a duplicate, 1 is redundant" in result.summary
    dropped = {arguments["index"] for arguments in offered(result, "drop_index")}
    assert {"customers_name_uq", "orders_status_idx"} <= dropped
    assert len(dropped & {"orders_created_at_idx", "orders_created_at_dup"}) == 1


@on_loop
async def test_an_index_that_enforces_something_is_never_superfluous(database):
    """Primary keys, constraints, unique indexes and replica identities are not called duplicate, redundant or unused."""
    execute(
        database,
        "CREATE TABLE t (a int NOT NULL, b int, c int, CONSTRAINT tu UNIQUE (a), EXCLUDE USING btree (c WITH =))",
        "CREATE UNIQUE INDEX t_identity ON t (a)",
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_identity",
        "CREATE UNIQUE INDEX t_b ON t (b)",
        "CREATE INDEX t_bc ON t (b, c)",
        "CREATE TABLE child (a int REFERENCES t (a))",
    )
    async with attached(database) as db:
        result = await read(db, "list_indexes")
    findings = dict(zip(column(result, "indexes", "index"), column(result, "indexes", "finding"), strict=True))
    assert findings["tu"] == findings["t_identity"] == findings["t_b"] == findings["t_c_excl"] == ""
    assert findings["t_bc"] == "unused"


@on_loop
async def test_indexes_that_differ_are_no_duplicates(database18):
    """Order, condition, operator class, expression and INCLUDE make an index another one."""
    execute(
        database18,
        "CREATE TABLE t (a text, b int, c int)",
        "CREATE INDEX i1 ON t (a)",
        "CREATE INDEX i2 ON t (a DESC)",
        "CREATE INDEX i3 ON t (a text_pattern_ops)",
        "CREATE INDEX i4 ON t (a) WHERE b > 0",
        "CREATE INDEX i5 ON t (lower(a))",
        "CREATE INDEX i6 ON t (upper(a))",
        "CREATE INDEX i7 ON t USING hash (a)",
        'CREATE INDEX i8 ON t (a COLLATE "C")',
    )
    async with attached(database18) as db:
        result = await read(db, "list_indexes", table="t")
    assert set(column(result, "indexes", "finding")) <= {"unused"}
    assert line(result, "indexes", "index", "i5")["columns"] == "(lower(a))"
    assert line(result, "indexes", "index", "i4")["columns"] == "a WHERE (b > 0)"


@on_loop
async def test_an_index_that_is_being_built_is_not_called_invalid(database):
    """A concurrent build that still waits is named with its builder, and no removal is offered."""
    seed(database)
    with (
        transaction(database, "UPDATE orders SET status = 'hold' WHERE id = 1"),
        waiting(database, "CREATE INDEX CONCURRENTLY slow_build ON orders (total)"),
    ):
        async with attached(database) as db:
            eventually(lambda: value(database, "SELECT to_regclass('slow_build')") is not None)
            result = await read(db, "list_indexes", table="orders")
    assert line(result, "indexes", "index", "slow_build")["finding"] == "being built"
    assert {"index": "slow_build"} not in offered(result, "drop_index")


@on_loop
async def test_a_bloated_index_is_estimated(database):
    """An index that is mostly empty after a mass delete is found."""
    execute(
        database,
        "CREATE TABLE b (a bigint, t text)",
        "INSERT INTO b SELECT i, i FROM generate_series(1, 150000) AS i",
        "CREATE INDEX b_a ON b (a)",
        "DELETE FROM b WHERE a % 10 < 8",
        "VACUUM ANALYZE b",
    )
    async with attached(database) as db:
        result = await read(db, "list_indexes", table="b")
    assert "free space (estimate)" in str(line(result, "indexes", "index", "b_a")["why"])
    assert result.figures["bloated"] == 1


@on_loop
async def test_an_index_that_grew_since_the_last_analyze_is_not_called_bloated(database):
    """Rows that the planner has not counted yet are no free space."""
    execute(
        database,
        "CREATE TABLE g (a bigint PRIMARY KEY) WITH (autovacuum_enabled = false)",
        "INSERT INTO g VALUES (0)",
        "ANALYZE g",
        "INSERT INTO g SELECT generate_series(1, 100000)",
    )
    eventually(lambda: value(database, "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'g'") > 100000)
    async with attached(database) as db:
        result = await read(db, "list_indexes", table="g")
    assert result.figures["bloated"] == 0


# -- get_table_stats


@on_loop
async def test_dead_rows_and_stale_statistics_are_found_with_their_remedy(database):
    """Dead rows call for VACUUM, a table that was never analysed for ANALYZE."""
    seed(database)
    execute(
        database,
        "ALTER TABLE orders SET (autovacuum_enabled = false)",
        "DELETE FROM orders WHERE id % 10 < 6",
        "CREATE TABLE fresh (a int)",
        "ALTER TABLE fresh SET (autovacuum_enabled = false)",
        "INSERT INTO fresh SELECT generate_series(1, 1000)",
    )
    eventually(lambda: value(database, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'orders'") >= 12000)
    async with attached(database) as db:
        result = await read(db, "get_table_stats")
    assert "12,000 dead rows" in str(line(result, "tables", "table", "orders")["findings"])
    assert "autovacuum is switched off" in result.summary
    assert {"table": "orders", "analyze": True} in offered(result, "vacuum_table")
    assert {"table": "fresh"} in offered(result, "analyze_table")


@on_loop
async def test_one_table_is_told_with_its_measures(database):
    """Rows, sizes and last VACUUM of one table read as a sentence."""
    seed(database)
    async with attached(database) as db:
        result = await read(db, "get_table_stats", table="orders")
    assert result.summary.startswith("orders: about 20,000 rows, table ")
    assert result.tables[0].total == 1


@on_loop
async def test_a_partitioned_table_is_the_sum_of_its_partitions(database):
    """Rows and bytes of partitions add up."""
    seed(database)
    execute(
        database,
        "INSERT INTO parts SELECT i, date '2026-01-01' + i % 300 FROM generate_series(1, 3000) AS i",
        "ANALYZE parts",
    )
    async with attached(database) as db:
        result = await read(db, "get_table_stats", table="parts")
    assert "parts has 2 partitions with about 3,000 rows" in result.summary


@on_loop
async def test_an_old_snapshot_that_keeps_dead_rows_is_named(database):
    """VACUUM could not help while a transaction still sees the rows: its pid is in the notes."""
    seed(database)
    with transaction(
        database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM customers"
    ) as old:
        execute(database, "DELETE FROM orders WHERE id % 2 = 0", "DELETE FROM customers WHERE id = -1")
        eventually(lambda: value(database, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'orders'") > 0)
        async with attached(database) as db:
            result = await read(db, "get_table_stats")
        pid = old.info.backend_pid
    assert any(f"session pid {pid}" in note for note in result.notes)


@on_loop
async def test_locked_sizes_are_the_planners_and_it_is_said(database):
    """A locked table is listed with its planner's size, and a note says so."""
    seed(database)
    with transaction(database, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"):
        async with attached(database) as db:
            result = await read(db, "get_table_stats", table="orders")
    assert line(result, "tables", "table", "orders")["table bytes"] > 1_000_000
    assert any("locked exclusively" in note for note in result.notes)


# -- get_locks, get_connection_stats


@on_loop
async def test_a_chain_of_locks_leads_to_its_root(database):
    """The session at the root is named with what it holds, the tree shows who waits below it, and its end is offered."""
    seed(database)
    with (
        transaction(database, "UPDATE orders SET status = 'hold' WHERE id = 1") as root,
        transaction(database, "UPDATE customers SET name = 'x' WHERE id = 1", application="middle") as middle,
        waiting(database, "UPDATE customers SET name = 'y' WHERE id = 1", application="last"),
    ):
        pid, between = root.info.backend_pid, middle.info.backend_pid
        with waiting(database, "UPDATE orders SET status = 'secret literal' WHERE id = 1", application="first"):
            async with attached(database) as db:
                result = await read(db, "get_locks")
    assert result.figures["waiting"] == 2
    assert sorted(result.figures["roots"]) == sorted([pid, between])
    assert f"Root blocker pid {pid} (checkout, role postgres), idle in transaction" in " ".join(result.highlights)
    assert "ROW EXCLUSIVE on orders" in " ".join(result.highlights)
    assert "a row of orders" in result.tree
    assert {"pid": pid, "mode": "terminate"} in offered(result, "kill_connection")
    assert "secret" not in result.model_dump_json()


@on_loop
async def test_a_waiter_that_blocks_others_is_not_the_root(database):
    """In a chain of three only the first is the root, and everybody below it counts as held up."""
    seed(database)
    with (
        transaction(database, "LOCK TABLE orders IN SHARE MODE") as root,
        waiting(database, "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE", application="ddl"),
        waiting(database, "SELECT count(*) FROM orders", application="reader"),
    ):
        async with attached(database) as db:
            result = await read(db, "get_locks")
        pid = root.info.backend_pid
    assert result.figures == {"waiting": 2, "roots": [pid]}
    assert "it holds up 2 sessions on orders" in result.summary


@on_loop
async def test_a_prepared_transaction_at_the_root_is_named_and_cannot_be_killed(preparing):
    """A prepared transaction that blocks is named with its identifier; no kill is offered."""
    execute(preparing, "BEGIN; UPDATE orders SET status = 'x' WHERE id = 1; PREPARE TRANSACTION 'left over'")
    try:
        with waiting(preparing, "UPDATE orders SET status = 'y' WHERE id = 1"):
            async with attached(preparing) as db:
                result = await read(db, "get_locks")
                connections = await read(db, "get_connection_stats")
    finally:
        execute(preparing, "ROLLBACK PREPARED 'left over'")
    assert "left over" in " ".join(result.highlights)
    assert "left over" in " ".join(connections.highlights)
    assert not offered(result, "kill_connection")


@on_loop
async def test_idle_transactions_and_runaways_are_found(database):
    """Idle transactions and long statements are named without literals; who blocks others is offered to be ended."""
    seed(database)
    with (
        transaction(database, "UPDATE orders SET status = 'hold' WHERE id = 1") as idle,
        waiting(database, "UPDATE orders SET status = 'x' WHERE id = 1"),
        waiting(database, "SELECT pg_sleep(60), 'secret literal'", application="report") as runaway,
    ):
        async with attached(database) as db:
            result = await read(db, "get_connection_stats", older_than=0)
        pid = idle.info.backend_pid
    said = " ".join(result.highlights)
    assert f"pid {pid} (checkout, role postgres): idle in transaction for" in said
    assert f"pid {runaway} (report, role postgres): active" in said
    assert "1 session waits for a lock" in result.summary
    assert offered(result, "kill_connection") == [{"pid": pid, "mode": "terminate"}]
    assert "secret" not in result.model_dump_json()
    assert result.figures["usable"] == 57


@on_loop
async def test_connections_are_counted_without_rights_too(database):
    """A role that sees no details still gets the right number of connections."""
    with transaction(database, "SELECT 1"), transaction(database, "SELECT 1"), role(database) as dsn:
        async with attached(dsn) as db:
            result = await read(db, "get_connection_stats")
            expected = (
                value(database, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") - 1
            )
    assert abs(result.figures["used"] - expected) <= 2
    assert any("GRANT pg_read_all_stats" in note for note in result.notes)


# -- get_replication_status


@on_loop
async def test_a_primary_alone_says_so_and_an_unused_slot_is_named(database, pg):
    """Without standbys the answer is a sentence; a slot that nobody uses is named with what it retains."""
    execute(database, "SELECT pg_create_physical_replication_slot('left_over', true)")
    try:
        async with attached(database) as db:
            result = await read(db, "get_replication_status")
    finally:
        execute(database, "SELECT pg_drop_replication_slot('left_over')")
    assert "This server is a primary and no standby is connected" in result.summary
    assert any("left_over" in text for text in result.highlights)
    assert result.figures["inactive_slots"] == 1


@on_loop
async def test_a_lagging_standby_is_found_from_both_sides(pair):
    """With replay paused, the primary says how far the standby is behind, and the standby that its replay is paused."""
    primary, standby = pair
    execute(standby.dsn, "SELECT pg_wal_replay_pause()")
    try:
        execute(
            primary.dsn, "CREATE TABLE ballast AS SELECT i, repeat('x', 100) AS t FROM generate_series(1, 100000) AS i"
        )
        lag = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) > 9000000 FROM pg_stat_replication"
        eventually(lambda: value(primary.dsn, lag))
        async with attached(primary.dsn) as db:
            above = await read(db, "get_replication_status")
        async with attached(standby.dsn) as db:
            below = await read(db, "get_replication_status")
            others = [await read(db, tool) for tool in READS]
    finally:
        execute(standby.dsn, "SELECT pg_wal_replay_resume()")
        execute(primary.dsn, "DROP TABLE ballast")
    assert "with 1 standby: stage_standby lags, " in above.summary
    assert "behind in replay" in above.summary
    assert above.figures["lagging"] == 1
    assert "This server is a standby, streaming" in below.summary
    assert "PAUSED" in below.summary
    assert all(each.summary for each in others)


@on_loop
async def test_a_standby_that_keeps_up_is_said_to(pair):
    """Without lag both sides say so."""
    primary, standby = pair
    eventually(lambda: value(primary.dsn, "SELECT pg_current_wal_lsn() = replay_lsn FROM pg_stat_replication"))
    async with attached(primary.dsn) as db:
        above = await read(db, "get_replication_status")
    async with attached(standby.dsn) as db:
        below = await read(db, "get_replication_status")
        health = await db.health()
    assert "it keeps up" in above.summary
    assert "everything received is applied" in below.summary
    assert "standby, read only" in health.summary


# -- get_slow_queries, explain_query


@on_loop
async def test_slow_statements_are_ranked(recorded):
    """The statement that takes the time is there with its calls and is offered to be explained; ours are left out."""
    for number in range(6):
        execute(recorded, f"SELECT count(*) FROM orders WHERE customer_id = {number}")
    async with attached(recorded) as db:
        await read(db, "get_slow_queries", limit=5)
        result = await read(db, "get_slow_queries", order="mean", limit=100)
    row = line(result, "statements", "query", "SELECT count(*) FROM orders WHERE customer_id = $1")
    assert row["calls"] == 6
    assert row["mean"] > 0
    assert not any("opsagent" in text for text in column(result, "statements", "query"))
    assert column(result, "statements", "mean") == sorted(column(result, "statements", "mean"), reverse=True)
    assert all(set(arguments) == {"query_id"} for arguments in offered(result, "explain_query"))


@on_loop
async def test_without_the_extension_the_answer_says_how_to_get_it(unrecorded, pg18):
    """A server without pg_stat_statements, and a database where it was not created, are both explained."""
    async with attached(unrecorded) as db:
        result = await read(db, "get_slow_queries")
        with pytest.raises(PreconditionFailed, match="pg_stat_statements"):
            await read(db, "explain_query", query_id="123456789")
    async with attached(pg18.dsn) as db:
        other = await read(db, "get_slow_queries")
    for each in (result, other):
        assert "There is no record of slow queries" in each.summary
        assert any("CREATE EXTENSION" in note for note in each.notes)


@on_loop
async def test_an_extension_that_was_not_preloaded_is_explained():
    """CREATE EXTENSION succeeds without the preload, and every call fails: that is said, not crashed on."""
    with EmbeddedPostgres(settings={"shared_preload_libraries": ""}) as server:
        execute(server.dsn, "CREATE EXTENSION pg_stat_statements")
        async with attached(server.dsn) as db:
            result = await read(db, "get_slow_queries")
    assert "must be loaded via" in result.summary
    assert any("shared_preload_libraries" in note for note in result.notes)


@on_loop
async def test_a_password_in_a_statement_is_never_shown(recorded):
    """CREATE ROLE … PASSWORD is recorded in clear by the server, and left out by us."""
    execute(recorded, "CREATE ROLE leaking LOGIN PASSWORD 'hunter22'", "DROP ROLE leaking")
    kept = "SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%hunter22%' AND query LIKE 'CREATE%'"
    assert value(recorded, kept) == 1
    async with attached(recorded) as db:
        result = await read(db, "get_slow_queries", limit=100)
    assert "hunter22" not in result.model_dump_json()


@on_loop
async def test_a_running_statement_is_shown_without_any_record(database):
    """What runs long right now is part of the answer, with or without pg_stat_statements."""
    with waiting(database, "SELECT pg_sleep(60), 'secret literal'", application="report") as pid:
        eventually(
            lambda: value(database, "SELECT now() - query_start > '1.2 s' FROM pg_stat_activity WHERE pid = %s", (pid,))
        )
        async with attached(database) as db:
            result = await read(db, "get_slow_queries")
    assert result.figures["running"] == 1
    assert f"pid {pid} (report, role postgres)" in " ".join(result.highlights)
    assert "secret" not in result.model_dump_json()


@on_loop
async def test_a_role_without_statistics_rights_is_told_the_grant(recorded):
    """Statements of other roles are hidden from a small role, and the answer says which right shows them."""
    execute(recorded, "SELECT count(*) FROM orders")
    with role(recorded) as dsn:
        async with attached(dsn) as db:
            result = await read(db, "get_slow_queries")
            with pytest.raises(MissingRight, match="GRANT pg_read_all_stats") as refusal:
                await read(db, "explain_query", query_id="1234567890123")
    assert any("GRANT pg_read_all_stats" in note for note in result.notes)
    assert refusal.value.facts["right"] == "pg_read_all_stats"


@on_loop
async def test_explain_names_the_costly_scan_and_offers_the_index(database):
    """A scan that keeps few of many rows is named, and the index that would help is a ready call."""
    seed(database)
    async with attached(database) as db:
        result = await read(db, "explain_query", sql="SELECT * FROM orders WHERE customer_id = 7")
    assert "Seq Scan on public.orders" in result.tree
    assert "An index on orders (customer_id) would help" in result.summary
    assert offered(result, "create_index") == [{"table": "orders", "columns": ["customer_id"]}]


@on_loop
async def test_explain_offers_no_index_that_exists(database):
    """Where an index begins with the column already, none is offered; the settings that kept it away are named."""
    seed(database)
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    execute(
        database,
        "CREATE INDEX orders_customer_id_idx ON orders (customer_id)",
        f"ALTER DATABASE {name} SET enable_indexscan = off",
        f"ALTER DATABASE {name} SET enable_bitmapscan = off",
    )
    async with attached(database) as db:
        result = await read(db, "explain_query", sql="SELECT * FROM orders WHERE customer_id = 7")
    assert not offered(result, "create_index")
    assert any("orders_customer_id_idx begins with customer_id" in text for text in result.highlights)
    assert any("enable_indexscan = off" in note for note in result.notes)


@on_loop
async def test_explain_by_query_id_plans_the_recorded_statement(recorded):
    """A recorded statement with $1 is planned for any value; no SQL comes from the caller."""
    execute(recorded, "SELECT count(*) FROM orders WHERE customer_id = 3")
    recorded_id = (
        "SELECT queryid FROM pg_stat_statements WHERE query LIKE 'SELECT count(*) FROM orders WHERE c%' "
        "AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    found = value(recorded, recorded_id)
    with role(recorded, *OBSERVER) as dsn:
        async with attached(dsn) as db:
            result = await read(db, "explain_query", query_id=str(found))
            same = await read(db, "explain_query", query_id=found)
            with pytest.raises(InvalidArguments):
                await read(db, "explain_query", query_id=str(found), analyze=True)
            with pytest.raises(InvalidArguments, match="No statement with id 5"):
                await read(db, "explain_query", query_id="5")
    assert result.figures["generic"] is True
    assert result.tree == same.tree
    assert offered(result, "create_index")


@on_loop
async def test_explain_refuses_what_writes_and_what_is_unclear(database):
    """Two statements, both arguments or none, and ANALYZE of a write are refused."""
    seed(database)
    async with attached(database) as db:
        with pytest.raises(StatementRefused):
            await read(db, "explain_query", sql="SELECT 1; DELETE FROM orders")
        with pytest.raises(StatementRefused):
            await read(db, "explain_query", sql="DELETE FROM orders", analyze=True)
        with pytest.raises(InvalidArguments):
            await read(db, "explain_query")
        with pytest.raises(InvalidArguments):
            await read(db, "explain_query", sql="SELECT 1", query_id="5")
        with pytest.raises(InvalidArguments):
            await read(db, "explain_query", query_id="5; DROP TABLE orders")
    assert value(database, "SELECT count(*) FROM orders") == 20000


@on_loop
async def test_explain_analyze_measures_and_is_medium(database):
    """With analyze the plan has times, and the call is one that a person is asked about."""
    seed(database)
    tool = plugin.toolbox.tools["explain_query"]
    assert tool.assess(tool.parse({"sql": "SELECT 1"})).risk is Risk.LOW
    assert tool.assess(tool.parse({"sql": "SELECT 1", "analyze": True})).risk is Risk.MEDIUM
    async with attached(database) as db:
        result = await read(db, "explain_query", sql="SELECT * FROM orders WHERE customer_id = 7", analyze=True)
    assert result.figures["execution_ms"] > 0
    assert "The statement took" in result.summary


@on_loop
async def test_a_table_without_select_is_a_missing_right(database):
    """EXPLAIN for a role that may not read names the right and the GRANT."""
    seed(database)
    with role(database) as dsn:
        async with attached(dsn) as db:
            with pytest.raises(MissingRight, match=r"GRANT SELECT ON public\.orders") as refusal:
                await read(db, "explain_query", sql="SELECT * FROM orders")
    assert "SELECT" in refusal.value.facts["right"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("table_widths", {"oids": "SELECT array_agg(oid) FROM pg_class WHERE relname = 't7'"}),
        ("index_widths", {"oids": "SELECT array_agg(indexrelid) FROM pg_index WHERE indrelid = 't7'::regclass"}),
        ("columns_width", {"table": "SELECT 't7'::regclass::oid", "columns": "SELECT ARRAY['a', 'b']"}),
    ],
)
def test_statistics_of_one_table_do_not_cost_those_of_all(database, name, values):
    """The planner's statistics are found by their index: a database with thousands of tables must not be walked for one."""
    make = "CREATE TABLE t{0} (a int PRIMARY KEY, b int); INSERT INTO t{0} VALUES (1, 1), (2, 2);"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("".join(make.format(number) for number in range(60)))
        connection.execute("ANALYZE")
        given = {key: connection.execute(question).fetchone()[0] for key, question in values.items()}
        found = connection.execute(query(name), given).fetchall()
        plan = [line for (line,) in connection.execute(f"EXPLAIN {query(name)}", given)]
    assert found
    assert not [line for line in plan if "Seq Scan on pg_statistic" in line]
