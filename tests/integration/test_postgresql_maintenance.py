"""analyze_table and vacuum_table: success is what the server has counted, never that the command came back."""

from __future__ import annotations

import pytest

from opsagent_jupyter.errors import EffectMissing, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.postgresql import plugin
from opsagent_jupyter.plugins.postgresql.changes import maintenance
from tests.integration.postgresql_stage import (
    OBSERVER,
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
)


def with_dead_rows(dsn):
    """Orders with 12,000 dead rows that nobody vacuums."""
    seed(dsn)
    execute(dsn, "ALTER TABLE orders SET (autovacuum_enabled = false)", "DELETE FROM orders WHERE id % 10 < 6")
    eventually(lambda: value(dsn, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'orders'") >= 12000)


@on_loop
async def test_analyze_is_counted_and_probed(database):
    """After ANALYZE the count has moved, which a later probe sees too."""
    seed(database)
    async with attached(database) as db:
        run = Run("analyze_table", await planned(db, "analyze_table", table="orders"))
        effect = await run.perform(db)
        probed = await run.probe(db)
        columns = await performed(db, "analyze_table", table="orders", columns=["status", "total"])
    assert run.plan.statements == ("ANALYZE public.orders",)
    assert run.plan.risk is Risk.MEDIUM
    assert "reads and writes go on" in run.plan.lock
    assert effect.state == probed.state == columns.state == "succeeded"
    assert effect.figures["last_analyze"]


@on_loop
async def test_analyze_reaches_every_partition(database):
    """A partitioned parent counts as analysed when each partition is."""
    seed(database)
    async with attached(database) as db:
        effect = await performed(db, "analyze_table", table="parts")
        odd = await performed(db, "analyze_table", table="Mixed Case", columns=["Weird Col"])
    assert effect.state == odd.state == "succeeded"


@on_loop
async def test_vacuum_removes_dead_rows_and_says_how_many(database):
    """The report has the dead rows that are gone; the statement holds no exclusive lock at its end."""
    with_dead_rows(database)
    async with attached(database) as db:
        run = Run("vacuum_table", await planned(db, "vacuum_table", table="orders"))
        effect = await run.perform(db)
        probed = await run.probe(db)
    assert run.plan.statements == ("VACUUM (ANALYZE, TRUNCATE false) public.orders",)
    assert "12,000 dead rows" in run.plan.size
    assert effect.state == probed.state == "succeeded"
    assert effect.figures["removed"] == 12000
    assert "12,000 dead rows removed" in effect.summary


@on_loop
async def test_rows_that_somebody_still_sees_stay_and_are_counted(database):
    """An old snapshot is a caution on the card, and the rows it keeps are in the report."""
    seed(database)
    execute(database, "ALTER TABLE orders SET (autovacuum_enabled = false)")
    with transaction(database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1 FROM customers") as old:
        execute(database, "DELETE FROM orders WHERE id % 10 < 6")
        await eventually_async(
            lambda: value(database, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'orders'") >= 12000
        )
        async with attached(database) as db:
            plan = await planned(db, "vacuum_table", table="orders")
            effect = await Run("vacuum_table", plan).perform(db)
        pid = old.info.backend_pid
    assert any(f"session pid {pid}" in caution for caution in plan.cautions)
    assert effect.state == "succeeded"
    assert "12,000 could not be removed yet" in effect.summary


@on_loop
async def test_full_is_critical_and_rewrites(database):
    """VACUUM FULL is critical by its arguments alone; the new file is the proof that it ran."""
    with_dead_rows(database)
    tool = plugin.toolbox.tools["vacuum_table"]
    assert tool.assess(tool.parse({"table": "orders", "full": True})).risk is Risk.CRITICAL
    assert tool.assess(tool.parse({"table": "orders"})).risk is Risk.MEDIUM
    async with attached(database) as db:
        plan = await planned(db, "vacuum_table", table="orders", full=True)
        run = Run("vacuum_table", plan)
        effect = await run.perform(db)
        probed = await run.probe(db)
        partitions = await performed(db, "vacuum_table", table="parts", full=True)
    assert plan.risk is Risk.CRITICAL
    assert "nobody reads or writes it" in plan.lock
    assert "free disk" in plan.size
    assert effect.state == probed.state == partitions.state == "succeeded"
    assert effect.figures["pages"] < effect.figures["pages_before"]


@on_loop
async def test_full_gives_up_behind_a_reader_and_leaves_the_table(database18):
    """A reader in the way ends VACUUM FULL after two seconds, with nothing changed."""
    with_dead_rows(database18)
    async with attached(database18) as db:
        plan = await planned(db, "vacuum_table", table="orders", full=True)
        with transaction(database18, "SELECT 1 FROM orders LIMIT 1"):
            waits = (await planned(db, "vacuum_table", table="orders", full=True)).waits
            effect = await Run("vacuum_table", plan).perform(db)
    assert len(waits) == 1
    assert effect.state == "failed"
    assert effect.error_code == "55P03"
    assert "it is as it was" in effect.summary


@on_loop
async def test_options_are_in_the_statement(database18):
    """FREEZE and TRUNCATE come from a closed list of options."""
    seed(database18)
    async with attached(database18) as db:
        plan = await planned(db, "vacuum_table", table="orders", freeze=True, truncate=True, analyze=False)
        effect = await Run("vacuum_table", plan).perform(db)
    assert plan.statements == ("VACUUM (FREEZE, TRUNCATE true) public.orders",)
    assert "ACCESS EXCLUSIVE for a moment" in plan.lock
    assert effect.state == "succeeded"


@on_loop
async def test_a_right_lost_after_planning_is_seen_although_the_server_reports_success(database, monkeypatch):
    """Without the right VACUUM only warns and says OK: the count that did not move makes it a failure."""
    monkeypatch.setattr(maintenance, "COUNTED_WITHIN", 0.2)  # nothing is going to be counted
    with_dead_rows(database)
    with role(database, "ALTER TABLE orders OWNER TO {}") as dsn:
        async with attached(dsn) as db:
            vacuum = Run("vacuum_table", await planned(db, "vacuum_table", table="orders"))
            analyze = Run("analyze_table", await planned(db, "analyze_table", table="orders"))
            execute(database, "ALTER TABLE orders OWNER TO postgres")
            effects = [await vacuum.perform(db), await analyze.perform(db)]
    for effect in effects:
        assert effect.state == "failed"
        assert effect.error_code == EffectMissing.code
        assert "WARNING: " in effect.summary


@on_loop
async def test_the_missing_right_is_named_before_anybody_is_asked(database, pg):
    """An observer is told the grant: MAINTAIN from 17 on, the owner's role before."""
    seed(database)
    with role(database, *OBSERVER) as dsn:
        async with attached(dsn) as db:
            for tool in ("analyze_table", "vacuum_table"):
                with pytest.raises(MissingRight) as refusal:
                    await planned(db, tool, table="orders")
                expected = "MAINTAIN on public.orders" if pg.major >= 17 else "ownership of public.orders"
                assert refusal.value.facts["right"] == expected


@on_loop
async def test_the_maintain_privilege_is_enough_from_17_on(database18):
    """A role that owns nothing vacuums and analyses with MAINTAIN."""
    seed(database18)
    with role(database18, "GRANT MAINTAIN ON orders TO {}") as dsn:
        async with attached(dsn) as db:
            effects = [await performed(db, tool, table="orders") for tool in ("analyze_table", "vacuum_table")]
    assert {effect.state for effect in effects} == {"succeeded"}


@on_loop
async def test_the_catalog_is_vacuumed_but_never_rewritten(database18):
    """VACUUM of a system table is maintenance; VACUUM FULL of one is refused."""
    async with attached(database18) as db:
        effect = await performed(db, "vacuum_table", table="pg_catalog.pg_description")
        with pytest.raises(PreconditionFailed, match="system"):
            await planned(db, "vacuum_table", table="pg_catalog.pg_class", full=True)
    assert effect.state == "succeeded"
