"""diagnose finds what is wrong, ranks it, offers the fix, raises no false alarm, and never waits for a lock."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from opsagent_jupyter.demo.postgres import EmbeddedPostgres, Setting
from opsagent_jupyter.demo.sessions import run_round
from opsagent_jupyter.demo.workload import PLANTED, Demo, Planted, sql_file
from opsagent_jupyter.errors import TargetUnreachable
from opsagent_jupyter.models import Plan, Result
from opsagent_jupyter.plugins.findings import Severity
from opsagent_jupyter.plugins.postgresql import diagnosis
from tests.integration.postgresql_stage import (
    OBSERVER,
    attached,
    call,
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
from tests.postgres import new_database

HEALTHY = Path(__file__).with_name("healthy_shop.sql").read_bytes()
#: The embedded servers of the tests do without these on purpose.
UNSAFE = {("dangerous_setting", "fsync"), ("dangerous_setting", "full_page_writes")}
#: A word that tells the statement, table or session of each planted problem.
SIGNS = {
    "orders.customer_id": "orders (customer_id)",
    "orders of a customer": "FROM orders WHERE customer_id",
    "customer by e-mail": "lower(email)",
    "revenue by category": "SELECT p.category",
}


def lines(result: Result) -> list[dict[str, Any]]:
    """The findings of a diagnosis, in their order."""
    return [dict(zip(table.columns, row, strict=True)) for table in result.tables for row in table.rows]


def sick(result: Result) -> set[tuple[str, str]]:
    """Kind and subject of what is above info, but for what the tests' servers lack on purpose."""
    return {(line["kind"], line["subject"]) for line in lines(result) if line["severity"] != "info"} - UNSAFE


def line(result: Result, kind: str, subject: str = "") -> dict[str, Any]:
    return next(each for each in lines(result) if each["kind"] == kind and subject in each["subject"])


def kinds(result: Result) -> set[str]:
    return {each["kind"] for each in lines(result)}


async def looked_at(dsn: str) -> Result:
    async with attached(dsn) as db:
        return await read(db, "diagnose")


def diagnosed(dsn: str) -> Result:
    return asyncio.run(looked_at(dsn))


def until(dsn: str, condition: Callable[[Result], bool]) -> Result:
    """Diagnose until the statistics, which are counted with a delay, show it."""
    found = [diagnosed(dsn)]

    def holds() -> bool:
        found[0] = diagnosed(dsn)
        return condition(found[0])

    eventually(holds)
    return found[0]


# -- the demo


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """The sick shop with its sessions and its standby."""
    with Demo() as demo:
        demo.wait_for_standby()
        yield demo


def is_found(result: Result, planted: Planted) -> bool:
    sign = SIGNS.get(planted.object, planted.object)
    return any(
        each["kind"] == planted.kind and sign in f"{each['subject']} {each['finding']}" for each in lines(result)
    )


def test_every_planted_problem_of_the_demo_is_found(demo: Demo) -> None:
    """All sixteen, by the observer, each with figures, a reason and what to do."""
    result = until(demo.observer_dsn, lambda result: all(is_found(result, planted) for planted in PLANTED))
    for each in lines(result):
        assert each["why"].endswith(".")
        assert each["advice"].endswith(".")
        assert each["finding"]
        assert each["confidence"] in ("certain", "likely", "possible")
    assert len({planted.kind for planted in PLANTED} & kinds(result)) >= 12
    assert result.summary.startswith(f"{len(sick(result) | UNSAFE) - 1} problems in database shop: ")


def test_the_demo_is_diagnosed_in_under_two_seconds(demo: Demo) -> None:
    """Connection included."""
    started = time.monotonic()
    result = diagnosed(demo.observer_dsn)
    assert time.monotonic() - started < 2
    assert len(kinds(result)) >= 12


def test_it_answers_while_a_table_is_locked_exclusively_and_says_what_it_could_not_see(demo: Demo) -> None:
    """The statements on the locked table have no plan then, and its sizes are the planner's; the rest is as before."""
    lock = (
        "LOCK TABLE orders, order_items, order_events IN ACCESS EXCLUSIVE MODE",
        "ALTER SEQUENCE order_events_id_seq RENAME TO renamed",
    )
    with transaction(demo.superuser_dsn, *lock):
        started = time.monotonic()
        result = diagnosed(demo.observer_dsn)
        assert time.monotonic() - started < 2
    assert {"duplicate_index", "invalid_index", "bloat", "idle_in_transaction", "inactive_slot"} <= kinds(result)
    assert any("locked exclusively" in note for note in result.notes)
    assert any("order_events_id_seq" in note for note in result.notes)
    assert any(note.startswith("The plans of ") for note in result.notes)


def test_every_fix_is_a_call_that_can_be_planned_as_it_is(demo: Demo) -> None:
    """Its arguments fit the tool's schema, and a change plans with them on the real database."""

    async def plan_all() -> None:
        async with attached(demo.operator_dsn) as db:
            result = await read(db, "diagnose")
            for number, fix in enumerate(result.suggestions, 1):
                name = fix.tool.removeprefix("postgresql.")
                planned = await call(db, name, **fix.arguments)
                assert isinstance(planned, Plan | Result)
                assert [each for each in lines(result) if each["fix"] == number]

    asyncio.run(plan_all())


def test_the_root_blocker_is_named_and_its_end_is_offered_first(demo: Demo) -> None:
    """The session at the top of the chain, not the one that waits."""
    blocker = demo.sessions.pids["checkout"]
    end = {"pid": blocker, "mode": "terminate"}
    result = until(demo.observer_dsn, lambda result: result.suggestions[0].arguments == end)
    assert f"pid {blocker} (checkout" in line(result, "blocked_session", "stock-sync")["finding"]


def test_findings_are_ranked_and_the_fixes_stand_in_the_same_order(demo: Demo) -> None:
    """By severity, then confidence; a fix for the first finding that has one is the first fix."""
    result = diagnosed(demo.observer_dsn)
    order = [(Severity(each["severity"]).rank, each["confidence"]) for each in lines(result)]
    confidences = ["certain", "likely", "possible"]
    assert [(rank, confidences.index(sure)) for rank, sure in order] == sorted(
        (rank, confidences.index(sure)) for rank, sure in order
    )
    numbers = [each["fix"] for each in lines(result) if each["fix"]]
    assert list(dict.fromkeys(numbers)) == sorted(set(numbers)) == list(range(1, len(result.suggestions) + 1))
    assert any(note.startswith("Ranked by severity") for note in result.notes)


# -- the healthy twin


@pytest.fixture(scope="module")
def healthy(pg: EmbeddedPostgres) -> Iterator[str]:
    """The same shop, of the same size and under the same load, as it should be; the observer's DSN."""
    safe = {"fsync": True, "full_page_writes": True, "synchronous_commit": True}
    with EmbeddedPostgres(pg.binaries, safe) as server, new_database(server) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for script in ("shop_tables", "shop_rows"):
                connection.execute(sql_file(script))
            connection.execute(HEALTHY)
            connection.execute("VACUUM (ANALYZE)")
            if server.has_stat_statements:
                connection.execute("CREATE EXTENSION pg_stat_statements")
                connection.execute("SELECT pg_stat_statements_reset()")
            for number in range(60):
                run_round(connection, number)
        with role(dsn, *OBSERVER) as observer:
            yield observer


def test_a_healthy_database_of_the_same_size_raises_no_alarm(healthy: str) -> None:
    """Nothing above info, also after it was looked at several times, and the summary says so."""
    result = [diagnosed(healthy) for _ in range(5)][-1]
    assert [each for each in lines(result) if each["severity"] != "info"] == []
    assert result.summary.startswith("Nothing is wrong with database test_")
    assert result.highlights == ()
    assert not [note for note in result.notes if "Could not" in note or "Not looked at" in note]


# -- each area: exactly what is planted is found, and what only looks like it is not

BIG = ("INSERT INTO t SELECT i, i FROM generate_series(1, 20000) AS i", "ANALYZE t")
PLANT = {
    "duplicate_index": (
        ("CREATE TABLE t (a int PRIMARY KEY, b int)", *BIG, "CREATE INDEX t_b ON t (b)", "CREATE INDEX t_b_dup ON t (b)"),
        {("duplicate_index", "t_b_dup")},
    ),
    "redundant_index": (
        ("CREATE TABLE t (a int PRIMARY KEY, b int)", *BIG, "CREATE INDEX t_b ON t (b)", "CREATE INDEX t_ba ON t (b, a)"),
        {("redundant_index", "t_b")},
    ),
    "missing_index": (
        ("CREATE TABLE t (a int PRIMARY KEY, b int)", *BIG, "ALTER TABLE t ADD FOREIGN KEY (b) REFERENCES t"),
        {("missing_index", "t.b")},
    ),
    "bloat": (
        ("CREATE TABLE t (a int PRIMARY KEY, b int)", "ALTER TABLE t SET (autovacuum_enabled = off)", *BIG,
         "DELETE FROM t WHERE a % 5 > 0"),
        {("bloat", "t")},
    ),
    "stale_statistics": (
        ("CREATE TABLE t (a int PRIMARY KEY, b int)", "INSERT INTO t VALUES (0, 0)", "ANALYZE t", BIG[0]),
        {("stale_statistics", "t")},
    ),
    "sequence_near_end": (
        ("CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY, b int)", "ALTER SEQUENCE t_a_seq RESTART 2000000000",
         "INSERT INTO t (b) VALUES (1)"),
        {("sequence_near_end", "t_a_seq")},
    ),
    "sequence_wider_than_its_column": (
        ("CREATE SEQUENCE s AS bigint START 30000", "CREATE TABLE t (a smallint DEFAULT nextval('s'), b int)",
         "INSERT INTO t (b) VALUES (1)"),
        {("sequence_near_end", "s")},
    ),
    "incomplete_index": (
        ("CREATE TABLE t (a int) PARTITION BY RANGE (a)", "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)",
         "CREATE INDEX t_a ON ONLY t (a)"),
        {("incomplete_index", "t_a")},
    ),
    "autovacuum_off_for_table": (
        ("CREATE TABLE t (a int, b int, c text DEFAULT repeat('x', 200)) WITH (autovacuum_enabled = false)",
         "INSERT INTO t SELECT i, i FROM generate_series(1, 20000) AS i", "ANALYZE t"),
        {("autovacuum_off_for_table", "t")},
    ),
    "published_without_identity": (
        ("CREATE TABLE t (a int)", "CREATE PUBLICATION p FOR TABLE t"),
        {("published_without_identity", "t")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANT)
def test_exactly_what_is_planted_is_found(database18: str, name: str) -> None:
    """One problem in an otherwise sound database."""
    statements, expected = PLANT[name]
    execute(database18, *statements)
    result = until(database18, lambda result: sick(result) == expected)
    assert all(each["evidence"] for each in lines(result) if each["severity"] != "info")


SOUND = {
    "indexes that resemble each other": (
        "CREATE TABLE t (a int PRIMARY KEY, b int)", *BIG, "CREATE INDEX t_b ON t (b)", "CREATE INDEX t_bd ON t (b DESC)",
        "CREATE UNIQUE INDEX t_ba ON t (a, b)", "CREATE INDEX t_bh ON t USING hash (b)", "CREATE INDEX t_bp ON t (b) WHERE a > 5",
    ),
    "a foreign key with its columns in another order, and one of a small table": (
        "CREATE TABLE p (a int, b int, PRIMARY KEY (a, b))", "INSERT INTO p SELECT i, i FROM generate_series(1, 20000) AS i",
        "ANALYZE p",
        "CREATE TABLE t (a int, b int, FOREIGN KEY (a, b) REFERENCES p)", *BIG, "CREATE INDEX t_ba ON t (b, a)",
        "CREATE TABLE few (a int, b int, FOREIGN KEY (a, b) REFERENCES p)", "ANALYZE t",
    ),
    "rows that autovacuum will come for": (
        "CREATE TABLE t (a int PRIMARY KEY, b int)", *BIG, "DELETE FROM t WHERE a % 10 = 0",
    ),
    "a small table that changes all the time": (
        "CREATE TABLE t (a int PRIMARY KEY, b int)", "INSERT INTO t VALUES (1, 1)", "ANALYZE t",
        *["UPDATE t SET b = b + 1"] * 200,
    ),
    "sequences far from their end, and one that begins anew": (
        "CREATE SEQUENCE s AS int START 1000000000", "SELECT nextval('s')",
        "CREATE SEQUENCE c AS smallint START 32767 CYCLE", "SELECT nextval('c')",
        "CREATE SEQUENCE d AS bigint INCREMENT -1", "SELECT nextval('d')", "CREATE SEQUENCE never_used",
    ),
    "published tables with an identity": (
        "CREATE TABLE t (a int PRIMARY KEY)", "CREATE TABLE u (a int)", "ALTER TABLE u REPLICA IDENTITY FULL",
        "CREATE TABLE logged (a int)",
        "CREATE PUBLICATION p FOR TABLE t, u", "CREATE PUBLICATION q FOR TABLE logged WITH (publish = 'insert')",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_what_only_looks_like_a_problem_is_none(database18: str, name: str) -> None:
    """Nothing above info."""
    execute(database18, *SOUND[name])
    assert sick(until(database18, lambda result: not sick(result))) == set()


def test_an_invalid_index_is_found_and_its_removal_offered(database18: str) -> None:
    """The rest of a concurrent build that failed."""
    seed(database18)
    leave_invalid_index(database18)
    result = diagnosed(database18)
    assert ("invalid_index", "customers_name_uq") in sick(result)
    fix = line(result, "invalid_index")["fix"]
    assert result.suggestions[fix - 1].arguments == {"index": "customers_name_uq"}
    execute(database18, "DROP INDEX customers_name_uq")
    assert "invalid_index" not in kinds(diagnosed(database18))


def test_an_unused_index_is_a_remark_as_long_as_use_was_counted_for_a_short_time(database18: str) -> None:
    """Young statistics prove nothing; one that was used is not told at all."""
    execute(
        database18,
        "CREATE TABLE t (a int PRIMARY KEY, b int, c int)",
        "INSERT INTO t SELECT i, i, i FROM generate_series(1, 20000) AS i",
        "CREATE INDEX t_b ON t (b)",
        "CREATE INDEX t_c ON t (c)",
        "ANALYZE t",
        "SELECT * FROM t WHERE c = 7",
    )
    result = until(database18, lambda result: "t_c" not in str(lines(result)))
    found = line(result, "unused_index", "t_b")
    assert (found["severity"], found["confidence"]) == ("info", "possible")
    assert "only" in found["evidence"]


# -- statements


@pytest.fixture
def recorded(database18: str) -> str:
    """A database whose statements are recorded."""
    execute(
        database18,
        "CREATE EXTENSION pg_stat_statements",
        "CREATE TABLE t (a int PRIMARY KEY, b int, c text)",
        "INSERT INTO t SELECT i, i % 5000, repeat('x', 100) FROM generate_series(1, 60000) AS i",
        "VACUUM ANALYZE t",
    )
    return database18


def ask(dsn: str, statement: str, times: int = 8) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(times):
            connection.execute(statement.encode(), (number,) if "%s" in statement else None)


def test_a_statement_that_reads_in_vain_is_found_with_the_index_that_it_misses(recorded: str) -> None:
    """The index comes from its plan; built, the alarm is over."""
    ask(recorded, "SELECT c FROM t WHERE b = %s", 12)
    result = diagnosed(recorded)
    assert {kind for kind, _ in sick(result)} == {"slow_statement", "missing_index"}
    fix = line(result, "missing_index", "t.b")["fix"]
    assert result.suggestions[fix - 1].arguments == {"table": "t", "columns": ["b"]}
    execute(recorded, "CREATE INDEX t_b ON t (b)", "SELECT pg_stat_statements_reset()")
    ask(recorded, "SELECT c FROM t WHERE b = %s", 12)
    assert sick(diagnosed(recorded)) == set()


def test_a_statement_that_sums_a_sound_table_up_is_only_a_remark(recorded: str) -> None:
    """It has to read what it sums up."""
    ask(recorded, "SELECT count(*), sum(b) FROM t")
    result = diagnosed(recorded)
    assert line(result, "slow_statement")["severity"] == "info"
    assert sick(result) == set()


def test_a_statement_that_spills_to_disk_is_found(recorded: str) -> None:
    """With the bytes of a call; with enough memory it is none."""
    ask(recorded, "SELECT a, c FROM t ORDER BY c, b OFFSET 59999")
    result = diagnosed(recorded)
    assert "of temporary files a call" in line(result, "spill_to_disk")["finding"]
    with psycopg.connect(recorded, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        connection.execute("SET work_mem = '64MB'")
        for _ in range(8):
            connection.execute("SELECT a, c FROM t ORDER BY c, b OFFSET 59999")
    assert "spill_to_disk" not in kinds(diagnosed(recorded))


def test_without_pg_stat_statements_it_says_how_to_get_it(database18: str) -> None:
    """A remark, and a note that slow statements were not looked at; no failure."""
    result = diagnosed(database18)
    assert line(result, "statements_not_recorded")["severity"] == "info"
    assert any("pg_stat_statements" in note for note in result.notes)


# -- sessions


def test_a_chain_of_waiting_sessions_leads_to_its_root(database18: str) -> None:
    """Both who wait are found, the root is named for both, and one fix ends it."""
    seed(database18)
    update = "UPDATE orders SET status = 'x' WHERE id = 1"
    with (
        transaction(database18, update) as root,
        waiting(database18, update, application="first"),
        waiting(database18, "ALTER TABLE orders ADD COLUMN z int", application="second"),
    ):
        result = until(
            database18,
            lambda result: (
                {"first", "second"}
                <= {s[5:].split("(")[1].split(",")[0] for k, s in sick(result) if k == "blocked_session"}
            ),
        )
        assert all(
            f"pid {root.info.backend_pid} (checkout" in each["finding"]
            for each in lines(result)
            if each["kind"] == "blocked_session"
        )
        assert line(result, "idle_in_transaction")["severity"] == "high"
        assert [fix.arguments for fix in result.suggestions if fix.tool.endswith("kill_connection")] == [
            {"pid": root.info.backend_pid, "mode": "terminate"}
        ]


def test_a_transaction_that_pauses_and_blocks_nobody_is_no_alarm(database18: str) -> None:
    """Applications do that all the time; a statement of a few seconds is a remark."""
    with (
        transaction(database18, "CREATE TABLE t (a int)"),
        waiting(database18, "SELECT pg_sleep(30)", application="report"),
    ):
        eventually(
            lambda: value(
                database18,
                "SELECT max(now() - query_start) > interval '1 s' FROM pg_stat_activity WHERE application_name = 'report'",
            )
        )
        result = diagnosed(database18)
    assert sick(result) == set()
    assert line(result, "runaway_query", "report")["severity"] == "info"


def test_a_prepared_transaction_that_blocks_is_found_and_cannot_be_killed(troubled_database: str) -> None:
    """It has no session: the advice is COMMIT or ROLLBACK PREPARED, and no call is offered."""
    execute(troubled_database, "CREATE TABLE t (a int)")
    with psycopg.connect(troubled_database) as connection:
        connection.execute("LOCK TABLE t")
        connection.execute("PREPARE TRANSACTION 'forgotten'")
    try:
        fresh = line(diagnosed(troubled_database), "prepared_transaction", "forgotten")
        assert fresh["severity"] == "info"
        with waiting(troubled_database, "SELECT * FROM t"):
            result = until(troubled_database, lambda result: ("prepared_transaction", "forgotten") in sick(result))
        assert "ROLLBACK PREPARED" in line(result, "prepared_transaction")["advice"]
        assert line(result, "prepared_transaction")["fix"] is None
    finally:
        execute(troubled_database, "ROLLBACK PREPARED 'forgotten'")


# -- the server


@pytest.fixture(scope="module")
def troubled() -> Iterator[EmbeddedPostgres]:
    """A server with everything set wrongly."""
    settings: dict[str, Setting] = {
        "autovacuum": False, "autovacuum_freeze_max_age": 100000, "shared_buffers": "1MB", "max_connections": 14,
        "work_mem": "3GB", "enable_indexscan": False, "max_prepared_transactions": 4, "synchronous_standby_names": "nobody",
        "archive_mode": True, "archive_command": "false", "max_wal_size": "32MB", "min_wal_size": "32MB",
    }  # fmt: skip
    with EmbeddedPostgres(settings=settings) as server:
        yield server


@pytest.fixture
def troubled_database(troubled: EmbeddedPostgres) -> Iterator[str]:
    with new_database(troubled) as dsn:
        yield dsn


def test_dangerous_settings_are_found_with_what_they_risk(troubled_database: str) -> None:
    """Data first, then what slows everything down."""
    result = diagnosed(troubled_database)
    found = {each["subject"]: each["severity"] for each in lines(result) if each["kind"] == "dangerous_setting"}
    assert found == {"fsync": "critical", "autovacuum": "high", "work_mem": "medium", "enable_indexscan": "medium"}
    assert line(result, "no_synchronous_standby")["severity"] == "critical"
    assert line(result, "dangerous_setting", "fsync")["rank"] <= 3


def test_archiving_that_fails_is_critical(troubled_database: str) -> None:
    """As soon as one segment could not be archived."""
    execute(troubled_database, "CREATE TABLE t (a int)", "SELECT pg_switch_wal()")
    result = until(troubled_database, lambda result: "archiving_fails" in kinds(result))
    assert line(result, "archiving_fails")["severity"] == "critical"


def test_a_setting_that_waits_for_a_restart_is_a_remark(troubled_database: str) -> None:
    """The server does not run as its configuration says."""
    assert "pending_restart" not in kinds(diagnosed(troubled_database))
    execute(troubled_database, "ALTER SYSTEM SET max_worker_processes = 9", "SELECT pg_reload_conf()")
    try:
        result = until(troubled_database, lambda result: "pending_restart" in kinds(result))
        assert line(result, "pending_restart")["evidence"] == "max_worker_processes"
    finally:
        execute(troubled_database, "ALTER SYSTEM RESET max_worker_processes", "SELECT pg_reload_conf()")


def test_damaged_pages_are_critical_and_come_first(troubled: EmbeddedPostgres, troubled_database: str) -> None:
    """A page that was changed on disk behind the server's back, once somebody has stumbled over it."""
    execute(troubled_database, "CREATE TABLE t AS SELECT 1 AS a", "CHECKPOINT")
    path = troubled.data_dir / str(value(troubled_database, "SELECT pg_relation_filepath('t')"))
    # many more pages than the cache has, so that the damaged one is read from disk again
    execute(troubled_database, "CREATE TABLE u AS SELECT i, repeat('x', 900) FROM generate_series(1, 9000) AS i")
    ask(troubled_database, "SELECT count(*) FROM u", 3)
    with path.open("r+b") as file:
        file.seek(8000)
        file.write(b"damaged")
    with pytest.raises(psycopg.errors.DataCorrupted):
        execute(troubled_database, "SELECT * FROM t")
    result = until(troubled_database, lambda result: "damaged_pages" in kinds(result))
    assert line(result, "damaged_pages")["rank"] == 1
    assert result.summary.endswith("First: 1 page of this database failed the checksum.")


def test_connections_near_their_limit_are_found(troubled_database: str) -> None:
    """Of the server, and of a role with a limit of its own; with room left there is nothing to tell."""
    assert "connections_near_limit" not in kinds(diagnosed(troubled_database))
    with role(troubled_database, attributes="CONNECTION LIMIT 5") as dsn, ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(psycopg.connect(dsn))
        for _ in range(4):
            stack.enter_context(psycopg.connect(troubled_database))
        result = diagnosed(troubled_database)
    subjects = {subject for kind, subject in sick(result) if kind == "connections_near_limit"}
    assert "server" in subjects
    assert len(subjects) == 2


def test_a_cache_that_is_too_small_is_found(troubled_database: str) -> None:
    """A table that never fits is read again and again; on the usual server it is not."""
    execute(
        troubled_database,
        "CREATE TABLE t (a int, b text)",
        "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) AS i",
    )
    ask(troubled_database, "SELECT count(*) FROM t", 40)
    result = until(troubled_database, lambda result: "cache_misses" in kinds(result))
    assert line(result, "cache_misses")["severity"] == "medium"


def test_transaction_ids_that_grow_old_are_found_with_what_holds_them_back(troubled_database: str) -> None:
    """Past the age at which autovacuum freezes by force, behind a snapshot that stays open."""
    execute(
        troubled_database,
        "CREATE TABLE t (a int)",
        "CREATE PROCEDURE burn() LANGUAGE plpgsql AS $$ BEGIN"
        " FOR i IN 1..125000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
    )
    assert "wraparound" not in kinds(diagnosed(troubled_database))
    with transaction(troubled_database, "SELECT pg_current_xact_id()", application="forgotten") as old:
        execute(troubled_database, "CALL burn()")
        result = diagnosed(troubled_database)
        pid = old.info.backend_pid
    mine = [each for each in lines(result) if each["kind"] == "wraparound"]
    assert {each["severity"] for each in mine} == {"high"}
    assert line(result, "vacuum_held_back")["subject"] == f"session pid {pid}"


def test_checkpoints_that_come_too_often_are_found(troubled_database: str) -> None:
    """Because WAL reaches its limit, again and again."""
    write = "SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 4000000))) FROM generate_series(1, 8)"

    def found(result: Result) -> bool:
        execute(troubled_database, write)
        return "checkpoints_too_often" in kinds(result)

    result = until(troubled_database, found)
    assert "max_wal_size" in line(result, "checkpoints_too_often")["advice"]


def test_deadlocks_are_counted(database18: str) -> None:
    """One is a remark."""
    execute(
        database18,
        "CREATE TABLE t (a int PRIMARY KEY, b int)",
        "INSERT INTO t VALUES (1, 0), (2, 0)",
    )
    assert "deadlocks" not in kinds(diagnosed(database18))
    first = "DO $$ BEGIN UPDATE t SET b = 1 WHERE a = 1; PERFORM pg_sleep(0.3); UPDATE t SET b = 1 WHERE a = 2; END $$"
    second = first.replace("a = 1", "a = 0").replace("a = 2", "a = 1").replace("a = 0", "a = 2")
    with waiting(database18, first), waiting(database18, second):
        result = until(database18, lambda result: "deadlocks" in kinds(result))
    assert line(result, "deadlocks")["severity"] == "info"


# -- replication


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A primary with a standby, and the standby's DSN."""
    with EmbeddedPostgres() as primary:
        yield primary, primary.add_standby("stage_standby").dsn_for("postgres")


def test_a_lagging_standby_is_found_on_the_primary_and_one_that_stands_still_on_itself(
    pair: tuple[EmbeddedPostgres, str],
) -> None:
    """With replay paused; going on, the alarm on the standby is over."""
    primary, standby = pair
    assert "standby_stands_still" not in kinds(diagnosed(standby))
    execute(standby, "SELECT pg_wal_replay_pause()")
    with new_database(primary) as dsn:
        execute(dsn, "CREATE TABLE t AS SELECT i, repeat('x', 1000) FROM generate_series(1, 80000) AS i")
        result = until(dsn, lambda result: ("lagging_standby", "stage_standby") in sick(result))
    assert "not replayed" in line(result, "lagging_standby")["evidence"]
    assert ("standby_stands_still", "standby") in sick(until(standby, lambda result: bool(sick(result))))
    execute(standby, "SELECT pg_wal_replay_resume()")
    assert sick(until(standby, lambda result: not sick(result))) == set()


def test_a_slot_that_retains_wal_is_found_and_a_fresh_one_is_a_remark(pair: tuple[EmbeddedPostgres, str]) -> None:
    """From 64 MB on."""
    primary, _ = pair
    execute(primary.dsn, "SELECT pg_create_physical_replication_slot('left_behind', true)")
    try:
        assert line(diagnosed(primary.dsn), "inactive_slot", "left_behind")["severity"] == "info"
        with new_database(primary) as dsn:
            execute(dsn, "CREATE TABLE t AS SELECT i, repeat('x', 1000) FROM generate_series(1, 80000) AS i")
        result = diagnosed(primary.dsn)
        assert ("inactive_slot", "left_behind") in sick(result)
        assert "pg_drop_replication_slot" in line(result, "inactive_slot", "left_behind")["advice"]
    finally:
        execute(primary.dsn, "SELECT pg_drop_replication_slot('left_behind')")


def test_a_subscription_without_a_worker_is_found(database18: str) -> None:
    """It is disabled here."""
    execute(
        database18,
        "CREATE SUBSCRIPTION idle CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p"
        " WITH (connect = false, slot_name = NONE, enabled = false)",
    )
    try:
        assert ("subscription_stopped", "idle") in sick(diagnosed(database18))
    finally:
        execute(database18, "DROP SUBSCRIPTION idle")
    assert "subscription_stopped" not in kinds(diagnosed(database18))


# -- rights, failures, versions


#: As OBSERVER, where pg_read_all_data does not exist yet.
OLD_OBSERVER = (
    "GRANT pg_monitor TO {}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}",
    "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {}",
)


def test_on_every_major_an_observer_gets_the_same_diagnosis(every_pg: EmbeddedPostgres) -> None:
    """The catalog problems of one small database, and no area that could not be looked at."""
    with new_database(every_pg) as dsn:
        execute(dsn, *PLANT["duplicate_index"][0], "CREATE SEQUENCE s AS bigint START 30000")
        execute(dsn, "CREATE TABLE u (a smallint DEFAULT nextval('s'), b int)", "INSERT INTO u (b) VALUES (1)")
        with role(dsn, *(OBSERVER if every_pg.major >= 14 else OLD_OBSERVER)) as observer:
            result = diagnosed(observer)
    assert sick(result) == {("duplicate_index", "t_b_dup"), ("sequence_near_end", "s")}
    assert not [note for note in result.notes if "Could not" in note or "Not looked at" in note]


def test_a_role_without_rights_is_told_what_it_cannot_see(database18: str) -> None:
    """The areas that it can see are told, the others become notes that name the right."""
    execute(database18, *PLANT["duplicate_index"][0], "CREATE SEQUENCE hidden")
    with role(database18) as dsn:
        result = diagnosed(dsn)
    assert ("duplicate_index", "t_b_dup") in sick(result)
    assert any("GRANT pg_read_all_stats" in note for note in result.notes)
    assert any("sequence" in note for note in result.notes)


def test_an_area_that_fails_is_a_note_and_the_others_go_on(recorded: str) -> None:
    """Here the catalog of sequences may not be read."""
    execute(
        recorded,
        "CREATE INDEX t_b ON t (b)",
        "CREATE INDEX t_b_dup ON t (b)",
        "REVOKE SELECT ON pg_catalog.pg_sequence FROM PUBLIC",
    )
    with role(recorded, "GRANT pg_monitor TO {}") as dsn:
        result = diagnosed(dsn)
    assert any(note.startswith("Could not look at sequences: The database role lacks a right") for note in result.notes)
    assert ("duplicate_index", "t_b_dup") in sick(result)


@on_loop
async def test_many_findings_of_a_kind_are_cut_and_counted(database18: str) -> None:
    """Ten are told one by one, and a note says how many there are beside."""
    execute(
        database18,
        "CREATE TABLE t (a int PRIMARY KEY, b int)",
        *BIG,
        *(f"CREATE INDEX d{n} ON t (b)" for n in range(15)),
    )
    result = await looked_at(database18)
    assert sum(each["kind"] == "duplicate_index" for each in lines(result)) == 10
    assert any("4 more of the kind duplicate index" in note for note in result.notes)
    assert result.figures["medium"] == 14


def test_every_kind_that_can_be_found_has_its_place_in_the_order() -> None:
    """A kind without a place would be ranked last in silence."""
    sources = [path.read_text() for path in Path(diagnosis.__path__[0]).glob("*.py")]
    told = {kind for source in sources for kind in re.findall(r'kind="(\w+)"', source)}
    assert told == set(diagnosis.KINDS)
    assert len(told) == len(diagnosis.KINDS)


def test_a_server_that_is_gone_is_an_error_and_no_diagnosis() -> None:
    """Nothing could be looked at, so nothing is said to be well."""

    async def outlive(server: EmbeddedPostgres) -> None:
        async with attached(server.dsn) as db:
            server.stop()
            await read(db, "diagnose")

    with EmbeddedPostgres() as server, pytest.raises(TargetUnreachable):
        asyncio.run(outlive(server))
