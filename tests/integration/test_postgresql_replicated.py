"""A primary with a standby: what changes is asked on the primary, and a standby that lags raises the risk of what writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsagent_jupyter.demo.postgres import EmbeddedPostgres, EmbeddedReplica
from opsagent_jupyter.errors import PreconditionFailed
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.postgresql.changes import preflight
from tests.integration.postgresql_stage import (
    attached,
    eventually,
    eventually_async,
    execute,
    on_loop,
    planned,
    read,
    role,
    seed,
    value,
)
from tests.postgres import EMBEDDED_MAJOR, EVERY_MAJOR, PIXELTABLE_MAJOR, debian_major, source_of

#: What writes much WAL, all of it gentle otherwise.
WRITING = (
    ("create_index", {"table": "orders", "columns": ["total"]}),
    ("reindex_table", {"table": "orders"}),
    ("vacuum_table", {"table": "orders"}),
)
#: Those that a pg_basebackup is at hand for: the system's copies what is not newer than itself.
MAJORS = sorted({EMBEDDED_MAJOR, PIXELTABLE_MAJOR, *(major for major in EVERY_MAJOR if major <= debian_major())})
CAUGHT_UP = "SELECT pg_current_wal_lsn() = replay_lsn FROM pg_stat_replication"


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"pg{major}")
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[EmbeddedPostgres, EmbeddedReplica]]:
    """A seeded primary and its standby, which replays at once."""
    with EmbeddedPostgres(source_of(request.param)()) as primary:
        seed(primary.dsn)
        standby = primary.add_standby("stage_standby", apply_delay="0")
        eventually(lambda: value(primary.dsn, CAUGHT_UP))
        yield primary, standby


@on_loop
async def test_a_lagging_standby_raises_what_writes_much_and_one_that_keeps_up_does_not(pair, monkeypatch):
    """Medium becomes high with the name of the standby and how far it is behind; ANALYZE writes little and stays."""
    primary, standby = pair
    async with attached(primary.dsn) as db:
        calm = [await planned(db, tool, **arguments) for tool, arguments in WRITING]
        execute(standby.dsn, "SELECT pg_wal_replay_pause()")
        try:
            execute(primary.dsn, "CREATE TABLE ballast AS SELECT repeat('x', 100) AS x FROM generate_series(1, 20000)")
            monkeypatch.setattr(preflight, "LAG_BYTES", 1024**2)
            behind = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) > 2000000 FROM pg_stat_replication"
            await eventually_async(lambda: value(primary.dsn, behind))
            raised = [await planned(db, tool, **arguments) for tool, arguments in WRITING]
            analyze = await planned(db, "analyze_table", table="orders")
            status = await read(db, "get_replication_status")
        finally:
            execute(standby.dsn, "SELECT pg_wal_replay_resume()")
            execute(primary.dsn, "DROP TABLE IF EXISTS ballast")
    assert {plan.risk for plan in calm} == {Risk.MEDIUM}
    assert {plan.risk for plan in raised} == {Risk.HIGH}
    assert all(any("stage_standby lags already, up to " in why for why in plan.reasons) for plan in raised)
    assert analyze.risk is Risk.MEDIUM
    assert "stage_standby" in status.summary


@on_loop
async def test_lag_that_cannot_be_seen_counts_as_lag(pair):
    """An owner without pg_monitor does not see the standby's position: the risk is raised, and the grant is named."""
    primary, _ = pair
    with role(primary.dsn, "ALTER TABLE customers OWNER TO {}") as owner:
        async with attached(owner) as db:
            plan = await planned(db, "reindex_table", table="customers")
        execute(primary.dsn, "ALTER TABLE customers OWNER TO postgres")
    assert plan.risk is Risk.HIGH
    assert any("may not see whether it lags (GRANT pg_monitor)" in why for why in plan.reasons)


@on_loop
async def test_a_drop_says_that_use_on_the_standby_is_not_counted_here(pair):
    """An index without use on the primary may be the one that the standby's reports live on."""
    primary, _ = pair
    async with attached(primary.dsn) as db:
        plan = await planned(db, "drop_index", index="orders_created_at_dup")
    assert any("Use on standbys is not counted here" in text for text in plan.cautions)


@on_loop
async def test_the_wal_sender_of_a_standby_is_critical(pair):
    """Ending replication is critical, and the reasons name the replica and its slot."""
    primary, _ = pair
    async with attached(primary.dsn) as db:
        pid = value(primary.dsn, "SELECT pid FROM pg_stat_replication WHERE state = 'streaming'")
        plan = await planned(db, "kill_connection", pid=pid)
    assert plan.risk is Risk.CRITICAL
    assert any("replica" in reason for reason in plan.reasons)
    assert any("slot stage_standby_slot" in reason for reason in plan.reasons)


@on_loop
async def test_a_standby_changes_nothing(pair):
    """On a standby every change of the structure is refused with where to go; the reads answer."""
    _, standby = pair
    async with attached(standby.dsn) as db:
        for tool, arguments in (
            *WRITING,
            ("drop_index", {"index": "orders_status_idx"}),
            ("analyze_table", {"table": "orders"}),
            ("reindex_table", {"index": "orders_status_idx"}),
        ):
            with pytest.raises(PreconditionFailed, match="standby") as refusal:
                await planned(db, tool, **arguments)
            assert "primary" in refusal.value.hint
        status = await read(db, "get_replication_status")
    assert "This server is a standby" in status.summary
