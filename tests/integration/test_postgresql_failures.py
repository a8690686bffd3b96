"""What stops a change of the structure, for real: each time the state and what is left behind are told as the catalog has it."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.models import Effect, Plan
from opsagent_jupyter.plugins.postgresql.changes import kill_connection, maintenance
from opsagent_jupyter.plugins.postgresql.connection import Database
from tests.faults.executing_child import execute as be_a_host
from tests.integration.postgresql_child import perform
from tests.integration.postgresql_stage import (
    Run,
    attached,
    eventually,
    eventually_async,
    execute,
    on_loop,
    performed,
    planned,
    role,
    seed,
    transaction,
    value,
    waiting,
)
from tests.postgres import new_database

#: What is done CONCURRENTLY and stopped behaves differently up to 13, up to 16 and from 17 on.
MAJORS = (13, 15, 18)
NEWEST = MAJORS[-1:]

WRITER = ("UPDATE orders SET status = 'x' WHERE id = 1",)
READER = ("SELECT 1 FROM orders LIMIT 1",)
SNAPSHOT = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1 FROM customers")
MAINTENANCE = ("LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE",)


@dataclass(frozen=True)
class Situation:
    """A change, and another session's transaction that holds it up in the middle."""

    tool: str
    arguments: dict[str, Any]
    obstacle: tuple[str, ...]
    leaves: bool = False
    """Whether invalid indexes are left when it is stopped there."""


INDEX = {"table": "orders", "columns": ["customer_id"]}
UNIQUE = {"table": "orders", "columns": ["customer_id", "id"], "unique": True}
SITUATIONS = {
    "create": Situation("create_index", INDEX, WRITER, leaves=True),
    "create-unique-late": Situation("create_index", UNIQUE, SNAPSHOT, leaves=True),
    "create-blocking": Situation("create_index", {**INDEX, "concurrently": False}, WRITER),
    "drop": Situation("drop_index", {"index": "doomed"}, READER, leaves=True),
    "drop-blocking": Situation("drop_index", {"index": "doomed", "concurrently": False}, READER),
    "reindex": Situation("reindex_table", {"table": "orders"}, WRITER, leaves=True),
    "reindex-late": Situation("reindex_table", {"index": "orders_status_idx"}, READER, leaves=True),
    "reindex-blocking": Situation("reindex_table", {"table": "orders", "concurrently": False}, READER),
    "vacuum": Situation("vacuum_table", {"table": "orders"}, MAINTENANCE),
    "vacuum-full": Situation("vacuum_table", {"table": "orders", "full": True}, READER),
    "analyze": Situation("analyze_table", {"table": "orders"}, MAINTENANCE),
}
#: Each situation where it differs; what one transaction does is gone with it on every release.
EACH = pytest.mark.parametrize(
    ("seeded", "situation"),
    [
        pytest.param(major, name, id=f"pg{major}-{name}")
        for name, situation in SITUATIONS.items()
        for major in (MAJORS if situation.leaves else NEWEST)
    ],
    indirect=True,
)
EVENTS = {"lock timeout": "55P03", "statement timeout": "57014", "our cancel": "57014", "backend killed": "57P01"}


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"pg{major}")
def seeded(request: pytest.FixtureRequest, pg_servers) -> Iterator[str]:
    with new_database(pg_servers.get(request.param)) as dsn:
        seed(dsn)
        execute(dsn, "ALTER TABLE orders SET (autovacuum_enabled = false)")
        yield dsn


@pytest.fixture
def situation(request: pytest.FixtureRequest) -> Situation:
    return SITUATIONS[request.param]


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stopped is never counted, so nobody need wait for the server's statistics."""
    monkeypatch.setattr(maintenance, "COUNTED_WITHIN", 0.1)


@pytest.fixture
def shop(seeded: str) -> Iterator[str]:
    """The seeded database as it was: with the index that is dropped, without those that are made."""
    execute(seeded, "CREATE INDEX IF NOT EXISTS doomed ON orders (total)")
    yield seeded
    made = ("orders_customer_id_idx", "orders_customer_id_id_idx")
    execute(seeded, *(f"DROP INDEX IF EXISTS {name}" for name in made))


def with_session(plan: Plan, **settings: str) -> Plan:
    """The same plan with other time limits for its session."""
    session: Any = plan.before["session"]
    return plan.model_copy(update={"before": {**plan.before, "session": {**session, **settings}}})


def is_stuck(dsn: str, pid: object) -> bool:
    """Whether a backend waits for the obstacle."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock' AND state = 'active'"
    return bool(value(dsn, waits, (pid,)))


def invalid(dsn: str) -> set[int]:
    """The OIDs of all invalid indexes."""
    return set(value(dsn, "SELECT coalesce(array_agg(indexrelid::int8), '{}') FROM pg_index WHERE NOT indisvalid"))


def left(effect: Effect) -> set[int]:
    """The OIDs of the invalid indexes that a report names."""
    return {int(found) for text in effect.residue for found in re.findall(r"^invalid index .* \(oid (\d+)\)$", text)}


async def clear_away(db: Database, effect: Effect) -> None:
    """Do what the report offers, each offer a request of its own."""
    assert len(effect.suggestions) == len(effect.residue)
    for offer in effect.suggestions:
        assert offer.tool == "postgresql.drop_index"
        done = await performed(db, "drop_index", **offer.arguments)
        assert done.state == "succeeded", done.summary


@EACH
@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("event", EVENTS)
@on_loop
async def test_whatever_stops_it_the_report_is_what_the_catalog_says(
    shop: str, situation: Situation, event: str
) -> None:
    """The code of the stop, exactly the invalid indexes that are there, and offers that remove them; a probe agrees."""
    async with attached(shop) as db:
        plan = await planned(db, situation.tool, **situation.arguments)
        if event == "lock timeout":
            plan = with_session(plan, lock_timeout="200ms")
        elif event == "statement timeout":
            plan = with_session(plan, lock_timeout="0", statement_timeout="500ms")
        else:
            plan = with_session(plan, lock_timeout="0")
        run = Run(situation.tool, plan)
        with transaction(shop, *situation.obstacle):
            task = run.start(db)
            if "timeout" not in event:
                await eventually_async(lambda: "pid" in run.evidence and is_stuck(shop, run.evidence["pid"]))
            if event == "our cancel":
                task.cancel()
            if event == "backend killed":
                execute(shop, f"SELECT pg_terminate_backend({run.evidence['pid']})")
            effect = await task
            probed = await run.probe(db)
        assert effect.state == probed.state == "failed", effect.summary
        assert effect.error_code == EVENTS[event]
        assert left(effect) == left(probed) == invalid(shop)
        if event != "statement timeout":  # that may come before anything is there
            assert bool(effect.residue) == situation.leaves
        await clear_away(db, effect)
    assert invalid(shop) == set()


@contextmanager
def client(dsn: str, tool: str, plan: Plan) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Another process that runs the plan, and what it noted; it is killed at the end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.postgresql_child"])
    ours, theirs = context.Pipe()
    child = context.Process(target=perform, args=(dsn, tool, plan.model_dump_json(), theirs))
    child.start()
    try:
        assert ours.poll(30), "the other process noted nothing"
        yield child, ours.recv()
    finally:
        child.kill()
        child.join()


def killed(child: Any) -> None:
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL


@EACH
@on_loop
async def test_a_client_that_is_killed_leaves_the_outcome_open_until_its_backend_is_done(
    shop: str, situation: Situation
) -> None:
    """Without its client the backend goes on: unknown while it waits, then what the catalog says, which is success."""
    async with attached(shop) as db:
        plan = with_session(await planned(db, situation.tool, **situation.arguments), lock_timeout="0")
        run = Run(situation.tool, plan)
        with transaction(shop, *situation.obstacle) as obstacle, client(shop, run.tool, plan) as (child, evidence):
            run.evidence = evidence
            await eventually_async(lambda: is_stuck(shop, evidence["pid"]))
            killed(child)
            waits = await run.probe(db)
            obstacle.rollback()
            alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            await eventually_async(lambda: value(shop, alive, (evidence["pid"],)) == 0)
        probed = await run.probe(db)
    assert waits.state == "unknown"
    assert f"backend {evidence['pid']}" in waits.summary
    assert probed.state == "succeeded", probed.summary
    assert probed.residue == ()
    assert invalid(shop) == set()


@EACH
@pytest.mark.usefixtures("uncounted")
@on_loop
async def test_a_backend_that_notices_its_dead_client_stops_and_the_probe_names_the_rest(
    shop: str, situation: Situation, pg_major: int
) -> None:
    """With client_connection_check_interval (14+) the work ends with the client, and what it leaves is offered for removal."""
    if pg_major < 14:  # the setting does not exist: the test above is what happens
        assert value(shop, "SELECT count(*) FROM pg_settings WHERE name = 'client_connection_check_interval'") == 0
        return
    noticing = f"{shop}?options={quote('-c client_connection_check_interval=100ms', safe='')}"
    async with attached(shop) as db:
        plan = with_session(await planned(db, situation.tool, **situation.arguments), lock_timeout="0")
        run = Run(situation.tool, plan)
        with transaction(shop, *situation.obstacle), client(noticing, run.tool, plan) as (child, evidence):
            run.evidence = evidence
            await eventually_async(lambda: is_stuck(shop, evidence["pid"]))
            killed(child)
            alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            await eventually_async(lambda: value(shop, alive, (evidence["pid"],)) == 0)
            probed = await run.probe(db)
        assert probed.state == "failed", probed.summary
        assert left(probed) == invalid(shop)
        assert bool(probed.residue) == situation.leaves
        await clear_away(db, probed)
    assert invalid(shop) == set()


@pytest.fixture
def pg_major(seeded: str) -> int:
    return int(value(seeded, "SELECT current_setting('server_version_num')::int / 10000"))


@on_loop
async def test_an_invalid_unique_index_that_still_refuses_values_is_said_to(shop: str) -> None:
    """Stopped late, a unique build enforces although it is invalid: the report says so, and it does."""
    async with attached(shop) as db:
        run = Run("create_index", await planned(db, "create_index", **UNIQUE))
        with transaction(shop, *SNAPSHOT):
            task = run.start(db)
            await eventually_async(lambda: "pid" in run.evidence and is_stuck(shop, run.evidence["pid"]))
            task.cancel()
            effect = await task
        assert "costs every write and refuses equal values" in effect.summary
        await clear_away(db, effect)


@on_loop
async def test_equal_values_end_a_rebuild_and_a_build_and_each_rest_is_its_own(shop: str) -> None:
    """A unique violation during CONCURRENTLY leaves one invalid index; a REINDEX of that leaves one more."""
    async with attached(shop) as db:
        built = await performed(db, "create_index", table="customers", columns=["name"], unique=True)
        rebuilt = await performed(db, "reindex_table", index="customers_name_idx")
        assert built.state == rebuilt.state == "failed"
        assert built.error_code == rebuilt.error_code == "23505"
        assert left(built) | left(rebuilt) == invalid(shop)
        assert len(left(built) | left(rebuilt)) == 2
        for effect in (rebuilt, built):
            await clear_away(db, effect)
    assert invalid(shop) == set()


@on_loop
async def test_a_session_that_does_not_go_is_a_failure_in_the_servers_words(shop: str, monkeypatch) -> None:
    """A backend that cannot react (stopped by the system) is still there after the wait: nothing is called done."""
    monkeypatch.setattr(kill_connection, "TERMINATE_MS", 300)
    monkeypatch.setattr(kill_connection, "GONE_WITHIN", 0.3)
    with role(shop) as app, waiting(app, "SELECT pg_sleep(60)") as pid:
        async with attached(shop) as db:
            run = Run("kill_connection", await planned(db, "kill_connection", pid=pid))
            os.kill(pid, signal.SIGSTOP)
            try:
                effect = await run.perform(db)
                probed = await run.probe(db)
            finally:
                os.kill(pid, signal.SIGCONT)
        eventually(lambda: value(shop, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)) == 0)
    assert effect.state == "failed"
    assert f"pid {pid} is still there" in effect.summary
    assert probed.state == "unknown"


# -- through the gate


def killed_host(store: str, key: str, dsn: str, shop: OpsAgent) -> str:
    """A host that takes an approved build and is killed in the middle of it; the request's id."""
    call = shop.run("create_index", **INDEX)
    shop.approve(call.record.approval)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.executing_child"])
    child = context.Process(target=be_a_host, args=(store, key, "nowhere", 0.0))
    child.start()
    building = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%%'"
    eventually(lambda: bool(value(dsn, building)))
    killed(child)
    return str(call.record.approval)


def decided(store: str, request: str) -> Any:
    """Another host finds out how a request ended."""
    with OpsAgent(store, kind="worker", lease_seconds=0.5) as other:
        eventually(lambda: str(other.approval(request).state) in ("succeeded", "failed"))
        return other.approval(request)


@pytest.mark.parametrize("notices", [False, True], ids=["goes on", "notices"])
def test_a_host_killed_in_the_middle_of_a_build_is_told_of_rightly_and_its_rest_can_be_removed(
    notices: bool, pg18, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host probes: valid is success; an invalid rest is named, and the offered request is asked, approved and run."""
    monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", key := new_key())
    with new_database(pg18) as dsn, OpsAgent(store_url, executes=False) as ops:
        seed(dsn)
        setting = f"?options={quote('-c client_connection_check_interval=100ms', safe='')}" if notices else ""
        ops.attach("postgresql", "shop", environment="development", dsn=dsn + setting)
        with transaction(dsn, *WRITER):
            request = killed_host(store_url, key, dsn, ops)
            if notices:
                eventually(
                    lambda: (
                        len(invalid(dsn)) == 1 and not value(dsn, "SELECT count(*) FROM pg_stat_progress_create_index")
                    )
                )
        approval = decided(store_url, request)
        assert str(approval.state) == ("failed" if notices else "succeeded")
        assert left(approval.effect) == invalid(dsn)
        for offer in approval.effect.suggestions:
            call = ops.run(offer.tool, **offer.arguments)
            assert call.status == "waiting"
            ops.approve(call.record.approval, reason="the rest of the killed build is removed")
            assert str(decided(store_url, call.record.approval).state) == "succeeded"
        assert invalid(dsn) == set()
        assert ops.verify().ok
