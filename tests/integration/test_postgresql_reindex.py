"""reindex_table: every index that was promised has a new file and is valid, and what a stop leaves is named and goes."""

from __future__ import annotations

import pytest

from opsagent_jupyter.errors import InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.postgresql import plugin
from opsagent_jupyter.plugins.postgresql.changes import reindex_table
from tests.integration.postgresql_stage import (
    OBSERVER,
    Run,
    attached,
    eventually_async,
    execute,
    leave_invalid_index,
    on_loop,
    performed,
    planned,
    role,
    seed,
    transaction,
    value,
)

STATUS = "public.orders_status_idx"


def filenodes(dsn, table="orders"):
    """The file of each index of a table and of its TOAST table, by name."""
    pairs = (
        "SELECT jsonb_object_agg(i.indexrelid::regclass::text, pg_relation_filenode(i.indexrelid)) FROM pg_index AS i "
        "JOIN pg_class AS t ON i.indrelid IN (t.oid, t.reltoastrelid) WHERE t.oid = to_regclass(%s)"
    )
    return value(dsn, pairs, (table,))


def invalid(dsn):
    return value(dsn, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")


@on_loop
async def test_the_card_says_what_it_takes_and_who_is_waited_for(database):
    """Statement, lock, the room for a second copy and every transaction in the way stand on the card."""
    seed(database)
    with transaction(database, "SELECT 1 FROM orders LIMIT 1", application="reader") as reader:
        async with attached(database) as db:
            plan = await planned(db, "reindex_table", table="orders")
            one = await planned(db, "reindex_table", index="orders_status_idx")
        pid = reader.info.backend_pid
    assert plan.statements == ("REINDEX TABLE CONCURRENTLY public.orders",)
    assert one.statements == (f"REINDEX INDEX CONCURRENTLY {STATUS}",)
    assert plan.risk is one.risk is Risk.MEDIUM
    assert "SHARE UPDATE EXCLUSIVE on orders: reads and writes go on" in plan.lock
    assert "6 indexes" in plan.size
    assert "free disk meanwhile, for a second copy" in plan.size
    assert [wait.split(" (")[0] for wait in plan.waits] == [f"pid {pid}"]
    assert plan.undo == ""
    assert plan.undo_note
    assert plan.before["session"]["lock_timeout"] == "0"
    assert one.title == "Rebuild index orders_status_idx of orders"


@on_loop
async def test_every_index_of_the_table_has_a_new_file_and_is_smaller(database):
    """Success is the new file of each index, TOAST included; sizes before and after are in the report."""
    seed(database)
    execute(
        database,
        "ALTER TABLE orders SET (autovacuum_enabled = false)",
        "DELETE FROM orders WHERE id % 10 < 8",
        "VACUUM (INDEX_CLEANUP ON, TRUNCATE false) orders",
    )
    before = filenodes(database)
    async with attached(database) as db:
        run = Run("reindex_table", await planned(db, "reindex_table", table="orders"))
        effect = await run.perform(db)
        probed = await run.probe(db)
    after = filenodes(database)
    assert effect.state == probed.state == "succeeded", effect.summary
    assert effect.residue == ()
    assert set(before) == set(after)
    assert all(after[name] != before[name] for name in before)
    assert effect.figures["bytes"] < effect.figures["bytes_before"]
    assert "before" in effect.summary


@on_loop
async def test_one_index_is_rebuilt_and_the_others_keep_their_files(database):
    """An index by name, with and without CONCURRENTLY."""
    seed(database)
    async with attached(database) as db:
        for concurrently in (True, False):
            before = filenodes(database)
            effect = await performed(db, "reindex_table", index="orders_status_idx", concurrently=concurrently)
            after = filenodes(database)
            assert effect.state == "succeeded", effect.summary
            assert [name for name in after if after[name] != before[name]] == ["orders_status_idx"]


@on_loop
async def test_without_concurrently_it_is_high_and_critical_where_it_blocks_for_long(database, monkeypatch):
    """Arguments alone make it high; a large table makes it critical, and the lock says who waits."""
    seed(database)
    tool = plugin.toolbox.tools["reindex_table"]
    assert tool.assess(tool.parse({"table": "orders"})).risk is Risk.MEDIUM
    assert tool.assess(tool.parse({"table": "orders", "concurrently": False})).risk is Risk.HIGH
    async with attached(database) as db:
        plan = await planned(db, "reindex_table", table="orders", concurrently=False)
        monkeypatch.setattr(reindex_table, "BLOCKED_FOR_LONG", 1024)
        large = await planned(db, "reindex_table", table="orders", concurrently=False)
        effect = await Run("reindex_table", plan).perform(db)
    assert plan.statements == ("REINDEX TABLE public.orders",)
    assert plan.risk is Risk.HIGH
    assert large.risk is Risk.CRITICAL
    assert "SHARE on orders, and ACCESS EXCLUSIVE on each index" in plan.lock
    assert "gives up after 2s" in plan.lock
    assert effect.state == "succeeded"


@on_loop
async def test_what_the_server_passes_over_is_on_the_card_and_in_the_report(database):
    """Exclusion constraints and invalid indexes are skipped with a warning only: the card says so before, we after."""
    seed(database)
    execute(database, "CREATE TABLE t (a int PRIMARY KEY, b int, CONSTRAINT apart_b EXCLUDE USING btree (b WITH =))")
    leave_invalid_index(database)
    async with attached(database) as db:
        excluded = Run("reindex_table", await planned(db, "reindex_table", table="t"))
        broken = Run("reindex_table", await planned(db, "reindex_table", table="customers"))
        effects = [await excluded.perform(db), await broken.perform(db)]
        with pytest.raises(PreconditionFailed, match="exclusion constraint") as refusal:
            await planned(db, "reindex_table", index="apart_b")
        whole = await performed(db, "reindex_table", table="t", concurrently=False)
    assert any("public.apart_b enforces an exclusion constraint" in text for text in excluded.plan.cautions)
    assert any("public.customers_name_uq is invalid" in text for text in broken.plan.cautions)
    assert list(excluded.plan.preconditions["indexes"]) == ["public.t_pkey"]
    assert [effect.state for effect in effects] == ["succeeded", "succeeded"]
    assert 'exclusion constraint index "public.apart_b" concurrently, skipping' in effects[0].summary
    assert "public.customers_name_uq" in effects[1].summary
    assert "concurrently=false" in refusal.value.hint
    assert whole.state == "succeeded"


@on_loop
async def test_an_invalid_index_that_is_named_becomes_valid(database):
    """REINDEX INDEX repairs what a failed build left, once its reason is gone."""
    seed(database)
    leave_invalid_index(database)
    async with attached(database) as db:
        failed = await performed(db, "reindex_table", index="customers_name_uq")
        for offer in failed.suggestions:
            assert (await performed(db, "drop_index", **offer.arguments)).state == "succeeded"
        execute(database, "UPDATE customers SET name = id::text")
        plan = await planned(db, "reindex_table", index="customers_name_uq")
        effect = await Run("reindex_table", plan).perform(db)
    assert failed.state == "failed"
    assert failed.error_code == "23505"
    assert failed.residue[0].startswith("invalid index public.customers_name_uq_ccnew (oid ")
    assert any("invalid now and valid if this succeeds" in text for text in plan.cautions)
    assert effect.state == "succeeded"
    assert invalid(database) == 0


@on_loop
async def test_what_cannot_work_is_refused_before_anybody_is_asked(database):
    """System tables concurrently, nothing to rebuild, two subjects or none, and what is no table."""
    seed(database)
    execute(database, "CREATE TABLE bare (a int)", "CREATE VIEW looks AS SELECT 1 AS one")
    refusals = (
        ({"table": "pg_catalog.pg_class"}, PreconditionFailed, "cannot rebuild concurrently"),
        ({"index": "pg_class_oid_index"}, PreconditionFailed, "cannot rebuild concurrently"),
        ({"table": "bare"}, PreconditionFailed, "no index that could be rebuilt"),
        ({"table": "looks"}, InvalidArguments, "is a view"),
        ({"table": "orders", "index": "orders_status_idx"}, InvalidArguments, "either a table or one index"),
        ({}, InvalidArguments, "either a table or one index"),
        ({"index": "orders"}, InvalidArguments, "is a table, not an index"),
    )
    async with attached(database) as db:
        for arguments, error, said in refusals:
            with pytest.raises(error, match=said):
                await planned(db, "reindex_table", **arguments)


@on_loop
async def test_a_system_table_is_rebuilt_only_with_blocking_and_as_critical(database):
    """The catalog can be repaired too, at the highest level."""
    async with attached(database) as db:
        plan = await planned(db, "reindex_table", table="pg_catalog.pg_class", concurrently=False)
        effect = await Run("reindex_table", plan).perform(db)
    assert plan.risk is Risk.CRITICAL
    assert effect.state == "succeeded", effect.summary


@on_loop
async def test_an_index_rebuilt_by_somebody_else_changes_a_precondition(database):
    """The approval is bound to the OID and file of every index that it rebuilds."""
    seed(database)
    async with attached(database) as db:
        first = await planned(db, "reindex_table", table="orders")
        again = await planned(db, "reindex_table", table="orders")
        execute(database, "REINDEX INDEX orders_status_idx")
        second = await planned(db, "reindex_table", table="orders")
    assert first.preconditions == again.preconditions
    assert first.preconditions != second.preconditions


@on_loop
async def test_a_stop_before_the_swap_leaves_copies_that_the_offered_calls_remove(database):
    """Stopped behind a writer, every copy is named, TOAST's too; the originals stay valid, and the rests are no target."""
    seed(database)
    before = filenodes(database)
    building = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%%'"
    async with attached(database) as db:
        run = Run("reindex_table", await planned(db, "reindex_table", table="orders"))
        with transaction(database, "UPDATE orders SET status = 'x' WHERE id = 1"):
            task = run.start(db)
            await eventually_async(lambda: value(database, building) == 1)
            unknown = await run.probe(db)
            task.cancel()
            effect = await task
        probed = await run.probe(db)
        with pytest.raises(PreconditionFailed, match="REINDEX that was stopped"):
            await planned(db, "reindex_table", index="orders_status_idx_ccnew")
        with pytest.raises(PreconditionFailed, match="REINDEX that was stopped"):
            await planned(db, "reindex_table", table="orders", concurrently=False)
        assert invalid(database) == len(before) == len(effect.suggestions)
        for offer in effect.suggestions:
            dropped = await performed(db, offer.tool.removeprefix("postgresql."), **offer.arguments)
            assert dropped.state == "succeeded", dropped.summary
        again = await performed(db, "reindex_table", table="orders")
    assert unknown.state == "unknown"
    assert effect.state == probed.state == "failed"
    assert effect.error_code == "57014"
    assert effect.residue == probed.residue
    assert any("pg_toast." in text for text in effect.residue)
    assert "no index has changed" in effect.summary
    assert invalid(database) == 0
    assert again.state == "succeeded"


@on_loop
async def test_a_stop_after_the_swap_says_that_the_indexes_are_new_and_the_old_ones_are_left(database):
    """Stopped behind a reader the new indexes are valid already, and what is left are the old ones."""
    seed(database)
    swapped = "SELECT count(*) FROM pg_class WHERE relname = 'orders_status_idx_ccold'"
    async with attached(database) as db:
        run = Run("reindex_table", await planned(db, "reindex_table", index="orders_status_idx"))
        with transaction(database, "SELECT 1 FROM orders LIMIT 1"):
            task = run.start(db)
            await eventually_async(lambda: value(database, swapped) == 1)
            task.cancel()
            effect = await task
        (offer,) = effect.suggestions
        dropped = await performed(db, "drop_index", **offer.arguments)
    assert effect.state == "failed"
    assert "1 of 1 index rebuilt" in effect.summary
    assert effect.residue[0].startswith(f"invalid index {STATUS}_ccold (oid ")
    assert dropped.state == "succeeded"
    assert invalid(database) == 0


@on_loop
async def test_rests_of_an_earlier_stop_are_not_claimed_by_a_later_one(database):
    """What was there before belongs to somebody else's run: it is named on the card and not offered again."""
    seed(database)
    async with attached(database) as db:
        run = Run("reindex_table", await planned(db, "reindex_table", index="orders_status_idx"))
        with transaction(database, "UPDATE orders SET status = 'x' WHERE id = 1"):
            task = run.start(db)
            await eventually_async(lambda: invalid(database) == 1)
            task.cancel()
            await task
        plan = await planned(db, "reindex_table", table="orders")
        effect = await Run("reindex_table", plan).perform(db)
    assert any("orders_status_idx_ccnew is invalid" in text for text in plan.cautions)
    assert effect.state == "succeeded"
    assert effect.residue == ()
    assert invalid(database) == 1


@on_loop
async def test_the_missing_right_is_named_and_the_database_owner_has_none(database, pg):
    """It takes the owner, or MAINTAIN from 17 on; owning the database is not enough."""
    seed(database)
    name = value(database, "SELECT current_database()")
    with role(database, *OBSERVER, f"ALTER DATABASE {name} OWNER TO {{}}") as dsn:
        async with attached(dsn) as db:
            with pytest.raises(MissingRight) as refusal:
                await planned(db, "reindex_table", table="orders")
        execute(database, f"ALTER DATABASE {name} OWNER TO postgres")
    expected = "MAINTAIN on public.orders" if pg.major >= 17 else "ownership of public.orders"
    assert refusal.value.facts["right"] == expected


@on_loop
async def test_the_maintain_privilege_is_enough_from_17_on(database18):
    """A role that owns nothing reindexes with MAINTAIN, a table or one index."""
    seed(database18)
    with role(database18, "GRANT MAINTAIN ON orders TO {}") as dsn:
        async with attached(dsn) as db:
            effects = [
                await performed(db, "reindex_table", **subject)
                for subject in ({"table": "orders"}, {"index": "orders_status_idx"})
            ]
    assert {effect.state for effect in effects} == {"succeeded"}
