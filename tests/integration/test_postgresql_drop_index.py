"""drop_index: nothing that something depends on is dropped, the way back is kept, and an interrupted drop is named."""

from __future__ import annotations

import pytest

from opsagent_jupyter.errors import InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Risk
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

DUPLICATE = "public.orders_created_at_dup"


def exists(dsn, name):
    return value(dsn, "SELECT to_regclass(%s) IS NOT NULL", (name,))


@on_loop
async def test_the_card_holds_the_way_back(database):
    """The undo statement builds the very same index again."""
    seed(database)
    execute(
        database,
        "CREATE INDEX fancy ON orders (status DESC, lower(status)) INCLUDE (total) WHERE total > 5",
        "COMMENT ON INDEX fancy IS 'it''s for reports'",
        "ALTER INDEX fancy ALTER COLUMN 2 SET STATISTICS 500",
    )
    definition = value(database, "SELECT pg_get_indexdef('fancy'::regclass)")
    async with attached(database) as db:
        plan = await planned(db, "drop_index", index="fancy")
        effect = await Run("drop_index", plan).perform(db)
    assert plan.statements == ("DROP INDEX CONCURRENTLY public.fancy",)
    assert plan.risk is Risk.HIGH
    assert "SHARE UPDATE EXCLUSIVE on orders" in plan.lock
    assert effect.state == "succeeded"
    assert not exists(database, "fancy")
    execute(database, *plan.undo.split(";\n"))
    assert value(database, "SELECT pg_get_indexdef('fancy'::regclass)") == definition
    assert value(database, "SELECT obj_description('fancy'::regclass)") == "it's for reports"


@on_loop
async def test_an_idle_reader_is_waited_for_and_named(database):
    """A transaction that only read the table is in the way of a concurrent drop; one that read elsewhere is not."""
    seed(database)
    with (
        transaction(database, "SELECT 1 FROM orders LIMIT 1", application="reader") as reader,
        transaction(database, "SELECT 1 FROM customers LIMIT 1", application="elsewhere"),
    ):
        async with attached(database) as db:
            run = Run("drop_index", await planned(db, "drop_index", index="orders_created_at_dup"))
            task = run.start(db)
            await eventually_async(
                lambda: value(
                    database, "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (DUPLICATE,)
                )
            )
            unknown, pid = await run.probe(db), reader.info.backend_pid
            reader.commit()
            effect = await task
    assert [wait.split(" (")[0] for wait in run.plan.waits] == [f"pid {pid}"]
    assert unknown.state == "unknown"
    assert effect.state == "succeeded"


@on_loop
async def test_what_something_depends_on_is_refused(database):
    """Constraints, references, replica identity, parts of partitioned indexes and the catalog are out of reach."""
    seed(database)
    execute(
        database,
        "CREATE TABLE t (a int NOT NULL, b int NOT NULL, CONSTRAINT tu UNIQUE (a), EXCLUDE USING btree (b WITH =))",
        "CREATE UNIQUE INDEX t_identity ON t (b)",
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_identity",
        "CREATE TABLE u (a int)",
        "CREATE UNIQUE INDEX u_a ON u (a)",
        "CREATE TABLE child (a int REFERENCES u (a))",
    )
    refusals = {
        "orders_pkey": "constraint orders_pkey",
        "tu": "constraint tu",
        "t_b_excl": "constraint t_b_excl",
        "t_identity": "replica identity",
        "u_a": "foreign key child_a_fkey",
        "parts_1_id_idx": "part of a partitioned",
        "parts_id": "cannot drop concurrently",
        "pg_class_oid_index": "system",
    }
    async with attached(database) as db:
        for index, said in refusals.items():
            with pytest.raises(PreconditionFailed, match=said):
                await planned(db, "drop_index", index=index)
        with pytest.raises(InvalidArguments, match="did you mean orders_status_idx"):
            await planned(db, "drop_index", index="orders_statu_idx")
        with pytest.raises(InvalidArguments, match="is a table, not an index"):
            await planned(db, "drop_index", index="orders")


@on_loop
async def test_a_partitioned_index_is_dropped_when_blocking_is_accepted(database):
    """The way back of a partitioned index builds it on every partition again."""
    seed(database)
    async with attached(database) as db:
        plan = await planned(db, "drop_index", index="parts_id", concurrently=False)
        effect = await Run("drop_index", plan).perform(db)
    assert effect.state == "succeeded"
    assert "ACCESS EXCLUSIVE" in plan.lock
    execute(database, plan.undo)
    assert (
        value(database, "SELECT count(*) FROM pg_index WHERE indrelid IN ('parts_1'::regclass, 'parts_2'::regclass)")
        == 2
    )


@on_loop
async def test_a_unique_index_is_critical_and_an_invalid_one_is_not(database):
    """Dropping a valid unique index removes a rule; an invalid one enforces nothing that can be relied on."""
    seed(database)
    execute(database, "CREATE UNIQUE INDEX orders_pair ON orders (id, status)")
    leave_invalid_index(database)
    async with attached(database) as db:
        unique = await planned(db, "drop_index", index="orders_pair")
        invalid = await planned(db, "drop_index", index="customers_name_uq")
        effect = await Run("drop_index", invalid).perform(db)
    assert unique.risk is Risk.CRITICAL
    assert invalid.risk is Risk.HIGH
    assert invalid.undo_note
    assert effect.state == "succeeded"


@on_loop
async def test_an_index_rebuilt_or_replaced_changes_a_precondition(database):
    """The approval is bound to the index's OID, file and definition."""
    seed(database)
    async with attached(database) as db:
        first = await planned(db, "drop_index", index="orders_created_at_dup")
        execute(database, "REINDEX INDEX orders_created_at_dup")
        second = await planned(db, "drop_index", index="orders_created_at_dup")
        execute(database, "DROP INDEX orders_created_at_dup", "CREATE INDEX orders_created_at_dup ON orders (total)")
        third = await planned(db, "drop_index", index="orders_created_at_dup")
    assert first.preconditions["filenode"] != second.preconditions["filenode"]
    assert second.preconditions["index_oid"] != third.preconditions["index_oid"]
    assert second.preconditions["definition"] != third.preconditions["definition"]


@on_loop
async def test_a_locked_table_is_said_and_not_waited_for(database):
    """Behind an exclusive lock the definition cannot be read: that is a refusal with what to do."""
    seed(database)
    with transaction(database, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"):
        async with attached(database) as db:
            with pytest.raises(PreconditionFailed, match="locked exclusively") as refusal:
                await planned(db, "drop_index", index="orders_created_at_dup")
    assert "get_locks" in refusal.value.hint


@on_loop
async def test_a_blocking_drop_gives_up_at_its_lock_timeout(database18):
    """Without CONCURRENTLY it waits two seconds, then fails and the index is as it was."""
    seed(database18)
    async with attached(database18) as db:
        plan = await planned(db, "drop_index", index="orders_created_at_dup", concurrently=False)
        with transaction(database18, "SELECT 1 FROM orders LIMIT 1"):
            effect = await Run("drop_index", plan).perform(db)
    assert effect.state == "failed"
    assert effect.error_code == "55P03"
    assert effect.residue == ()
    assert value(database18, "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (DUPLICATE,))


@on_loop
async def test_an_index_that_is_being_built_is_refused(database):
    """What another session is building is not a left-over."""
    seed(database)
    async with attached(database) as db:
        run = Run("create_index", await planned(db, "create_index", table="orders", columns=["customer_id"]))
        with transaction(database, "UPDATE orders SET status = 'x' WHERE id = 1"):
            task = run.start(db)
            await eventually_async(lambda: exists(database, "public.orders_customer_id_idx"))
            with pytest.raises(PreconditionFailed, match="being built"):
                await planned(db, "drop_index", index="orders_customer_id_idx")
            task.cancel()
            await task


@on_loop
async def test_who_does_not_own_the_table_is_told(database):
    """An observer gets the missing right by name."""
    seed(database)
    with role(database, *OBSERVER) as dsn:
        async with attached(dsn) as db:
            with pytest.raises(MissingRight, match="does not own orders"):
                await planned(db, "drop_index", index="orders_created_at_dup")


@on_loop
async def test_the_longest_and_the_oddest_names_are_dropped(database):
    """Names of 63 bytes, with capitals, quotes and spaces round-trip."""
    odd = 'Odd "quoted"; --name'
    quoted = '"' + odd.replace('"', '""') + '"'
    execute(database, "CREATE TABLE t (a int)", f"CREATE INDEX {'i' * 63} ON t (a)", f"CREATE INDEX {quoted} ON t (a)")
    async with attached(database) as db:
        long = await performed(db, "drop_index", index="i" * 63)
        strange = await performed(db, "drop_index", index=odd)
    assert long.state == strange.state == "succeeded"
    assert value(database, "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass") == 0
