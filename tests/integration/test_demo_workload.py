"""The demo's shop: every problem that it promises is there, can be seen by the observer and cured by the operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.demo.sessions import LiveSessions
from opsagent_jupyter.demo.workload import OLD_SLOT, PLANTED, Demo, Planted, Shop, seed
from opsagent_jupyter.errors import DemoError

KINDS = {
    "missing_index",
    "slow_statement",
    "duplicate_index",
    "redundant_index",
    "unused_index",
    "invalid_index",
    "bloat",
    "stale_statistics",
    "sequence_near_end",
    "idle_in_transaction",
    "blocked_session",
    "runaway_query",
    "inactive_slot",
    "lagging_standby",
}
ORDERS_OF_A_CUSTOMER = "SELECT id, status, total_cents, created_at FROM orders WHERE customer_id = 7"


@dataclass(frozen=True)
class Running:
    """A seeded server of its own with open sessions; the databases and roles of the shop are not for shared servers."""

    server: EmbeddedPostgres
    shop: Shop
    sessions: LiveSessions


@pytest.fixture(scope="module")
def running(pg: EmbeddedPostgres) -> Iterator[Running]:
    with EmbeddedPostgres(pg.binaries) as server:
        shop = seed(server.dsn)
        sessions = LiveSessions(shop.application_dsn, shop.reports_dsn)
        sessions.start()
        yield Running(server, shop, sessions)
        sessions.stop()


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def demo(steps: list[str]) -> Iterator[Demo]:
    with Demo(on_step=steps.append) as demo:
        yield demo


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def assert_soon(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Statistics are counted with a delay, so a condition may need a moment."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def name_of(planted: Planted) -> str:
    return f"{planted.kind}-{planted.object}".replace(" ", "-")


class TestPlanted:
    def test_list_holds_every_kind(self) -> None:
        """The tour and its check rely on this list."""
        assert {each.kind for each in PLANTED} == KINDS
        assert all(each.tool.startswith("postgresql.") and each.sign.endswith(".") for each in PLANTED)

    @pytest.mark.parametrize("planted", [each for each in PLANTED if each.needs != "standby"], ids=name_of)
    def test_observer_sees_it(self, running: Running, planted: Planted) -> None:
        """On every release; without pg_stat_statements only the slow statements are out of sight."""
        if planted.needs == "pg_stat_statements" and not running.server.has_stat_statements:
            assert (
                rows(running.shop.observer_dsn, "SELECT FROM pg_extension WHERE extname = 'pg_stat_statements'") == []
            )
        else:
            assert_soon(lambda: rows(running.shop.observer_dsn, planted.evidence))

    def test_customers_orders_are_found_by_reading_them_all(self, running: Running) -> None:
        """The plan of the planted slow statement is one sequential scan."""
        plan = rows(running.shop.observer_dsn, f"EXPLAIN {ORDERS_OF_A_CUSTOMER}")
        assert plan[0][0].startswith("Seq Scan on orders")

    def test_runaway_query_sleeps(self, running: Running) -> None:
        """It must not cost a core of the machine that shows the demo."""
        query = "SELECT wait_event FROM pg_stat_activity WHERE application_name = 'nightly-report'"
        assert_soon(lambda: rows(running.shop.observer_dsn, query) == [("PgSleep",)])

    def test_only_the_planted_indexes_look_useless(self, running: Running) -> None:
        """An index that is neither planted, unique nor used would be a false find of the demo itself."""
        unused = (
            "SELECT indexrelname FROM pg_stat_user_indexes JOIN pg_index USING (indexrelid)"
            " WHERE idx_scan = 0 AND NOT indisunique ORDER BY 1"
        )
        expected = [("customers_region_unused",), ("orders_created_at_dup",), ("orders_status_idx",)]
        assert_soon(lambda: rows(running.shop.observer_dsn, unused) == expected)

    def test_load_goes_on(self, running: Running) -> None:
        """New orders keep coming in while the demo is open."""
        query = "SELECT count(*) FROM orders"
        before = rows(running.shop.observer_dsn, query)
        assert_soon(lambda: rows(running.shop.observer_dsn, query) > before)


class TestLogins:
    @pytest.mark.parametrize("login", ["observer_dsn", "operator_dsn"])
    def test_have_no_attribute_of_power(self, running: Running, login: str) -> None:
        """Neither is superuser, makes roles or databases, replicates or passes row security; both are limited."""
        query = (
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls, rolconnlimit"
            " FROM pg_roles WHERE rolname = current_user"
        )
        assert rows(getattr(running.shop, login), query) == [(False, 15)]

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM orders",
            "CREATE TABLE mine (id integer)",
            "CREATE INDEX ON orders (customer_id)",
            "COPY orders TO PROGRAM 'true'",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'checkout'",
        ],
    )
    def test_observer_only_reads(self, running: Running, statement: str) -> None:
        """Every change is refused by the server itself."""
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(running.shop.observer_dsn, statement)

    def test_passwords_are_in_no_repr_and_no_statistics(self, running: Running) -> None:
        """CREATE ROLE is given verifiers only, and the shop shows no connection string."""
        shop = running.shop
        texts = [repr(shop), repr(running.sessions), running.server.log_tail()]
        if running.server.has_stat_statements:
            texts += [query for (query,) in rows(shop.superuser_dsn, "SELECT query FROM pg_stat_statements")]
            assert not [text for text in texts if "SCRAM-SHA-256$" in text]
        for dsn in (shop.superuser_dsn, shop.observer_dsn, shop.operator_dsn, shop.application_dsn):
            password = str(psycopg.conninfo.conninfo_to_dict(dsn)["password"])
            assert not [text for text in texts if password in text]


def test_operator_cures_the_shop(pg: EmbeddedPostgres) -> None:
    """While all sessions are open: index, vacuum, analyze, drop and terminate work, and none has to wait long."""
    with EmbeddedPostgres(pg.binaries) as server:
        shop = seed(server.dsn)
        sessions = LiveSessions(shop.application_dsn, shop.reports_dsn)
        sessions.start()
        try:
            cure(shop, sessions)
        finally:
            sessions.stop()


def cure(shop: Shop, sessions: LiveSessions) -> None:
    with psycopg.connect(shop.operator_dsn, autocommit=True) as operator:
        operator.execute("SET statement_timeout = '10s'")
        operator.execute("CREATE INDEX CONCURRENTLY orders_customer_id_idx ON orders (customer_id)")
        operator.execute("DROP INDEX CONCURRENTLY customers_name_uq")
        operator.execute("VACUUM order_items")
        operator.execute("ANALYZE shipments")
        operator.execute("SELECT pg_terminate_backend(%s)", [sessions.pids["checkout"]])
        operator.execute("SELECT pg_terminate_backend(%s)", [sessions.pids["nightly-report"]])
        plan = operator.execute(f"EXPLAIN {ORDERS_OF_A_CUSTOMER}").fetchall()
    assert "Seq Scan" not in str(plan)
    cured = {"missing_index", "bloat", "stale_statistics", "idle_in_transaction", "blocked_session", "runaway_query"}
    for planted in PLANTED:
        if planted.kind in cured:
            assert_soon(partial(is_gone, shop, planted))


def is_gone(shop: Shop, planted: Planted) -> bool:
    return not rows(shop.observer_dsn, planted.evidence)


class TestSessions:
    def test_blocked_writer_holds_no_snapshot(self, running: Running) -> None:
        """With one, every concurrent index build in the shop would wait until somebody frees the writer."""
        query = "SELECT backend_xmin FROM pg_stat_activity WHERE application_name = 'stock-sync'"
        assert rows(running.shop.observer_dsn, query) == [(None,)]

    def test_load_comes_back_after_it_was_terminated(self, running: Running) -> None:
        """The shop's own application reconnects, as a real one does."""
        before = running.sessions.pids["orders-api"]
        rows(running.shop.operator_dsn, f"SELECT pg_terminate_backend({before})")
        assert_soon(lambda: running.sessions.pids.get("orders-api", before) != before)

    def test_stop_is_quick_and_closes_all(self, pg18: EmbeddedPostgres) -> None:
        """Running and waiting statements are cancelled in the server, not left behind."""
        with EmbeddedPostgres(pg18.binaries) as server:
            shop = seed(server.dsn)
            sessions = LiveSessions(shop.application_dsn, shop.reports_dsn)
            sessions.start()
            began = time.monotonic()
            sessions.stop()
            assert time.monotonic() - began < 5
            assert_soon(
                lambda: rows(shop.superuser_dsn, "SELECT FROM pg_stat_activity WHERE usename = 'shop_app'") == []
            )


class TestDemo:
    def test_tells_its_steps(self, demo: Demo, steps: list[str]) -> None:
        """Progress is told in the order of events, in words for a person."""
        assert [step.split()[0] for step in steps] == ["Starting", "Filling", "Opening", "Adding"]
        assert demo.server.version in steps[0]

    def test_standby_lags(self, demo: Demo) -> None:
        """The standby comes up in the background, and replays seconds late."""
        standby = demo.wait_for_standby()
        assert standby is demo.standby
        (lag,) = [each for each in PLANTED if each.kind == "lagging_standby"]
        assert_soon(lambda: rows(demo.observer_dsn, lag.evidence))
        assert rows(standby.dsn_for("shop"), "SELECT count(*) > 0 FROM orders") == [(True,)]

    def test_old_slot_cannot_fill_the_disk(self, demo: Demo) -> None:
        """A demo that is left open for days keeps at most a gigabyte of WAL for the slot."""
        query = f"SELECT safe_wal_size < 1.5 * 1024^3 FROM pg_replication_slots WHERE slot_name = '{OLD_SLOT}'"
        assert rows(demo.observer_dsn, query) == [(True,)]

    def test_repr_holds_no_password(self, demo: Demo) -> None:
        """A demo printed in a notebook is saved with it."""
        for dsn in (demo.superuser_dsn, demo.observer_dsn, demo.operator_dsn):
            password = str(psycopg.conninfo.conninfo_to_dict(dsn)["password"])
            assert password not in repr(demo) + repr(demo.shop) + repr(demo.standby) + repr(vars(demo))

    def test_stop_removes_both_servers(self) -> None:
        """Even when the standby is still being made."""
        demo = Demo().start()
        home = demo.server.data_dir.parent
        demo.stop()
        demo.stop()
        assert not home.exists()
        assert demo.standby is None
        with pytest.raises(DemoError, match="not running"):
            _ = demo.observer_dsn

    def test_second_seed_is_refused(self, demo: Demo) -> None:
        """The seed is for an empty server; it never touches a database that exists."""
        with pytest.raises(DemoError, match="already exists"):
            seed(demo.server.dsn)

    def test_sql_files_are_beside_the_module(self) -> None:
        """A wheel without them could not seed."""
        import opsagent_jupyter.demo as package

        present = {each.name for each in Path(package.__path__[0]).glob("*.sql")}
        assert {"planted.sql", "nightly_report.sql", "shop_rows.sql"} <= present
