"""create_index: what it proposes is what runs, it blocks nobody, and a failure names exactly what is left behind."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from opsagent_jupyter.errors import InvalidArguments, MissingRight, OutcomeUnknown, PreconditionFailed
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.postgresql import plugin
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

INDEX = "public.orders_customer_id_idx"


def is_valid(dsn, name):
    """Whether the index is valid; None when there is none."""
    return value(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (name,))


def assessed(**arguments):
    tool = plugin.toolbox.tools["create_index"]
    return tool.assess(tool.parse(arguments)).risk


def building(dsn):
    """Whether somebody is building an index, and already waits for others."""
    return bool(value(dsn, "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"))


# -- the proposal


@on_loop
async def test_the_card_says_what_it_does_to_others(database):
    """Statement, lock, size, who is waited for, duration and undo stand on the card."""
    seed(database)
    with transaction(database, "UPDATE orders SET status = 'x' WHERE id = 1") as writer:
        async with attached(database) as db:
            plan = await planned(db, "create_index", table="orders", columns="customer_id")
        pid = writer.info.backend_pid
    assert plan.statements == (
        "CREATE INDEX CONCURRENTLY orders_customer_id_idx ON public.orders USING btree (customer_id)",
    )
    assert plan.risk is Risk.MEDIUM
    assert "SHARE UPDATE EXCLUSIVE on orders: reads and writes go on" in plan.lock
    assert plan.size.startswith("20,000 rows, 1.")
    assert "the index about" in plan.size
    assert len(plan.waits) == 1
    assert plan.waits[0].startswith(f"pid {pid} (checkout, role postgres), idle in transaction for")
    assert "ROW EXCLUSIVE on orders" in plan.waits[0]
    assert "estimate" in plan.duration
    assert plan.undo == f"DROP INDEX CONCURRENTLY {INDEX}"
    assert plan.execution == "probeable"


@on_loop
async def test_planning_again_gives_the_same_statement_and_preconditions(database):
    """Nothing that is bound changes while the database does not."""
    seed(database)
    async with attached(database) as db:
        first = await planned(db, "create_index", table="orders", columns=["total", "status"])
        second = await planned(db, "create_index", table="orders", columns=["total", "status"])
    assert first.preconditions == second.preconditions
    assert first.statements == second.statements


@on_loop
async def test_another_table_under_the_same_name_changes_a_precondition(database):
    """The approval is bound to the table's OID, not to its name."""
    seed(database)
    async with attached(database) as db:
        first = await planned(db, "create_index", table="parts_1", columns=["at"])
        execute(database, "DROP TABLE parts_1", "CREATE TABLE parts_1 (id int, at date)")
        second = await planned(db, "create_index", table="parts_1", columns=["at"])
    assert first.preconditions["table_oid"] != second.preconditions["table_oid"]


@on_loop
async def test_a_snapshot_in_the_same_database_is_waited_for_and_a_reader_is_not(database):
    """An open REPEATABLE READ snapshot on any table holds a concurrent build up; a READ COMMITTED reader does not."""
    seed(database)
    with (
        transaction(database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1 FROM customers") as old,
        transaction(database, "SELECT 1 FROM orders LIMIT 1", application="reader"),
    ):
        async with attached(database) as db:
            plan = await planned(db, "create_index", table="orders", columns=["total"])
        pid = old.info.backend_pid
    assert [wait.split(" (")[0] for wait in plan.waits] == [f"pid {pid}"]


def test_arguments_alone_raise_the_risk():
    """Unique and blocking builds are high before anybody looks at the database."""
    assert assessed(table="t", columns=["a"]) is Risk.MEDIUM
    assert assessed(table="t", columns=["a"], unique=True) is Risk.HIGH
    assert assessed(table="t", columns=["a"], concurrently=False) is Risk.HIGH


@on_loop
async def test_every_part_of_the_request_is_in_the_statement(database):
    """Order, INCLUDE, WHERE, method and odd names come out quoted and in place; the finished index is as asked."""
    seed(database)
    async with attached(database) as db:
        plan = await planned(
            db,
            "create_index",
            table='"Mixed Case"',
            columns=["Weird Col desc nulls last"],
            include=["id"],
            where="\"Weird Col\" is not null and id > 5 and \"Weird Col\" <> 'it''s'",
            name='"Odd; Name"',
        )
        effect = await Run("create_index", plan).perform(db)
        hashed = await performed(db, "create_index", table="orders", columns=["status"], method="hash")
    (statement,) = plan.statements
    assert statement == (
        'CREATE INDEX CONCURRENTLY "Odd; Name" ON public."Mixed Case" USING btree ("Weird Col" DESC NULLS LAST) '
        "INCLUDE (id) WHERE \"Weird Col\" IS NOT NULL AND id > 5 AND \"Weird Col\" <> 'it''s'"
    )
    assert effect.state == "succeeded", effect.summary
    assert hashed.state == "succeeded", hashed.summary


@on_loop
async def test_a_made_name_fits_into_63_bytes(database):
    """A name made from long columns is cut by us, at 63 bytes, and still distinct."""
    execute(database, f"CREATE TABLE {'t' * 40} ({'c' * 40} int, d int)")
    async with attached(database) as db:
        first = await performed(db, "create_index", table="t" * 40, columns=["c" * 40])
        second = await performed(db, "create_index", table="t" * 40, columns=["c" * 40, "d"])
    assert first.state == second.state == "succeeded"
    found = "SELECT array_agg(length(relname) ORDER BY relname) FROM pg_class WHERE relname LIKE 't%idx%'"
    assert value(database, found) == [63, 63]


@on_loop
async def test_a_type_that_a_method_cannot_index_is_refused_and_one_that_it_can_is_built(database):
    """The server's rule for operator classes is asked before a person is."""
    execute(
        database,
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE DOMAIN amount AS numeric",
        "CREATE TABLE t (j json, b jsonb, p point, m mood, a amount, v varchar(9), ts tsvector, r int4range, l int[])",
    )
    good = {
        "btree": "m, a, v, r, l, b",
        "gin": "b, ts, l",
        "gist": "p, r, ts",
        "hash": "m",
        "spgist": "p",
        "brin": "a, v",
    }
    async with attached(database) as db:
        for method, column in (
            ("btree", "j"),
            ("btree", "p"),
            ("gin", "v"),
            ("hash", "j"),
            ("gist", "a"),
            ("brin", "b"),
        ):
            with pytest.raises(InvalidArguments, match=f"cannot hold column {column} "):
                await planned(db, "create_index", table="t", columns=[column], method=method)
        effects = [await performed(db, "create_index", table="t", columns=cols, method=m) for m, cols in good.items()]
    assert [effect.state for effect in effects] == ["succeeded"] * len(good)


# -- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"table": "orders", "columns": ["created_at"]}, PreconditionFailed, "orders_created_at"),
        ({"table": "customers", "columns": ["name"], "unique": True}, PreconditionFailed, "invalid"),
        ({"table": "parts", "columns": ["at"]}, PreconditionFailed, "partitioned"),
        ({"table": "orders", "columns": ["total"], "name": "orders_pkey"}, PreconditionFailed, "taken by an index"),
        ({"table": "orders", "columns": ["total"], "name": "customers"}, PreconditionFailed, "taken by a table"),
        ({"table": "orders", "columns": ["total"], "name": "n" * 64}, InvalidArguments, "64 bytes"),
        ({"table": "orders", "columns": ["total"], "name": "public.x"}, InvalidArguments, "name alone"),
        ({"table": "orders", "columns": ["totl"]}, InvalidArguments, "did you mean total"),
        ({"table": "orders", "columns": ["lower(status)"]}, InvalidArguments, "no column"),
        ({"table": "orders", "columns": ["total", "total"]}, InvalidArguments, "twice"),
        ({"table": "orders", "columns": []}, InvalidArguments, "at least one"),
        ({"table": "orders", "columns": ["total desc"], "method": "hash"}, InvalidArguments, "no order"),
        ({"table": "orders", "columns": ["total"], "method": "hash", "unique": True}, InvalidArguments, "btree"),
        (
            {"table": "orders", "columns": ["total"], "where": "total > random()"},
            InvalidArguments,
            "not one that is offered",
        ),
        ({"table": "pg_class", "columns": ["relname"]}, PreconditionFailed, "system"),
    ],
)
@on_loop
async def test_what_cannot_work_is_refused_before_anybody_is_asked(database18, arguments, error, said):
    """Each refusal says what is in the way."""
    seed(database18)
    leave_invalid_index(database18)
    async with attached(database18) as db:
        with pytest.raises(error, match=said):
            await planned(db, "create_index", **arguments)


@on_loop
async def test_a_partitioned_table_is_built_when_blocking_is_accepted(database):
    """The refusal of CONCURRENTLY says how to go on, and both ways work."""
    seed(database)
    async with attached(database) as db:
        with pytest.raises(PreconditionFailed) as refusal:
            await planned(db, "create_index", table="parts", columns=["at"])
        parts = [await performed(db, "create_index", table=part, columns=["at"]) for part in ("parts_1", "parts_2")]
        parent = await performed(db, "create_index", table="parts", columns=["at"], concurrently=False)
    assert "parts_1 and parts_2" in refusal.value.hint
    assert {effect.state for effect in (*parts, parent)} == {"succeeded"}
    assert is_valid(database, "parts_at_idx") is True
    assert (
        value(database, "SELECT count(*) FROM pg_index WHERE indrelid = 'parts_1'::regclass AND indkey::text = '2'")
        == 1
    )


@on_loop
async def test_who_does_not_own_the_table_is_told_the_grant(database):
    """An observer gets the missing right by name, and nothing was tried."""
    seed(database)
    with role(database, *OBSERVER) as dsn:
        async with attached(dsn) as db:
            with pytest.raises(MissingRight, match="does not own orders") as refusal:
                await planned(db, "create_index", table="orders", columns=["total"])
    assert refusal.value.facts["right"] == "ownership of public.orders"
    assert "GRANT" in refusal.value.hint


@on_loop
async def test_an_owner_who_is_no_superuser_builds(database):
    """Ownership and CREATE on the schema are all it takes."""
    seed(database)
    with role(database, "ALTER TABLE orders OWNER TO {}") as dsn:
        async with attached(dsn) as db:
            with pytest.raises(MissingRight, match="may not create anything in schema public") as refusal:
                await planned(db, "create_index", table="orders", columns=["customer_id"])
            execute(database, "GRANT CREATE ON SCHEMA public TO PUBLIC")
            effect = await performed(db, "create_index", table="orders", columns=["customer_id"])
    assert refusal.value.facts["right"] == "CREATE on schema public"
    assert effect.state == "succeeded"


@on_loop
async def test_temporary_and_foreign_tables_are_refused(database18):
    """Another session's temporary table is out of reach."""
    with transaction(database18, "CREATE TEMP TABLE fleeting (a int)", "COMMIT") as other:
        schema = other.execute("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()").fetchone()[0]
        async with attached(database18) as db:
            with pytest.raises(PreconditionFailed, match="temporary"):
                await planned(db, "create_index", table=f"{schema}.fleeting", columns=["a"])


# -- the run


@on_loop
async def test_the_index_is_there_valid_and_read_back(database):
    """Success is what the catalog says, with size and time; the evidence was noted before the statement was sent."""
    seed(database)
    async with attached(database) as db:
        run = Run("create_index", await planned(db, "create_index", table="orders", columns=["customer_id"]))
        effect = await run.perform(db)
        again = await run.probe(db)
    assert effect.state == again.state == "succeeded"
    assert is_valid(database, INDEX) is True
    assert effect.figures["index_oid"] == value(database, "SELECT %s::regclass::oid::int8", (INDEX,))
    assert set(run.evidence) == {"pid", "backend_start"}
    assert "built and valid" in effect.summary


@on_loop
async def test_nothing_is_sent_when_the_evidence_cannot_be_kept(database):
    """If noting the backend fails, the statement is not sent."""
    seed(database)

    async def refuse(evidence):
        raise RuntimeError("the store is full")

    async with attached(database) as db:
        plan = await planned(db, "create_index", table="orders", columns=["customer_id"])
        with pytest.raises(RuntimeError):
            await plugin.toolbox.tools["create_index"].hooks["perform"](db, plan, refuse)
    assert is_valid(database, INDEX) is None


@on_loop
async def test_a_build_waits_for_an_open_writer_and_goes_on_after_it(database):
    """A writer that is open does not make the build fail: it waits, and the pool answers reads meanwhile."""
    seed(database)
    async with attached(database) as db:
        run = Run("create_index", await planned(db, "create_index", table="orders", columns=["customer_id"]))
        with transaction(database, "UPDATE orders SET status = 'x' WHERE id = 1") as writer:
            task = run.start(db)
            await eventually_async(lambda: building(database))
            unknown, pid = await run.probe(db), writer.info.backend_pid
            assert (await db.health()).ok
            writer.commit()
            effect = await task
    assert unknown.state == "unknown"
    assert f"backend {run.evidence['pid']}" in unknown.summary
    assert f"waits for pid {pid}" in unknown.summary
    assert effect.state == "succeeded"


@on_loop
async def test_a_cancel_at_any_moment_of_a_build_is_seen_through(database18):
    """However early or late the cancel comes, the report says what the catalog says, and no build goes on unseen."""
    seed(database18)
    async with attached(database18) as db:
        for step in range(24):
            run = Run("create_index", await planned(db, "create_index", table="orders", columns=["customer_id"]))
            task = run.start(db)
            await asyncio.sleep(0.003 * step)
            task.cancel()
            try:
                effect = await task
            except asyncio.CancelledError:
                # Nothing was reported: the gate records unknown when something was sent, and probes.
                if not run.evidence:
                    assert is_valid(database18, INDEX) is None
                    continue
                effect = await run.probe(db)
                while effect.state == "unknown":  # its backend is still ending
                    await asyncio.sleep(0.05)
                    effect = await run.probe(db)
            valid = is_valid(database18, INDEX)
            assert effect.state == ("succeeded" if valid else "failed")
            assert bool(effect.residue) == (valid is False)
            assert not building(database18)
            execute(database18, f"DROP INDEX IF EXISTS {INDEX}")


@on_loop
async def test_a_deadline_during_a_build_still_reports(database):
    """asyncio.timeout around a run cancels in the server and does not lose the report."""
    seed(database)
    effect = None
    async with attached(database) as db:
        run = Run("create_index", await planned(db, "create_index", table="orders", columns=["customer_id"]))
        with transaction(database, "UPDATE orders SET status = 'x' WHERE id = 1"):
            async with asyncio.timeout(0.5):
                effect = await run.perform(db)
    assert effect is not None
    assert effect.state == "failed"
    assert effect.residue


@on_loop
async def test_equal_values_end_a_unique_build_and_the_rest_is_named(database):
    """A unique violation is a failure with its SQLSTATE and the invalid index it leaves."""
    seed(database)
    async with attached(database) as db:
        plan = await planned(db, "create_index", table="customers", columns=["name"], unique=True)
        effect = await Run("create_index", plan).perform(db)
    assert plan.risk is Risk.HIGH
    assert effect.state == "failed"
    assert effect.error_code == "23505"
    assert "name 1" not in effect.summary
    assert effect.residue[0].startswith("invalid index public.customers_name_idx (oid ")


@on_loop
async def test_the_invalid_rest_can_be_dropped_by_the_offered_call_and_built_again(database):
    """The suggestion of a failed build is complete: it runs, and the build works afterwards."""
    seed(database)
    async with attached(database) as db:
        failed = await performed(db, "create_index", table="customers", columns=["name"], unique=True)
        with pytest.raises(PreconditionFailed, match="invalid"):
            await planned(db, "create_index", table="customers", columns=["name"], unique=True)
        offer = failed.suggestions[0]
        dropped = await performed(db, offer.tool.removeprefix("postgresql."), **offer.arguments)
        execute(database, "UPDATE customers SET name = id::text")
        built = await performed(db, "create_index", table="customers", columns=["name"], unique=True)
    assert [dropped.state, built.state] == ["succeeded", "succeeded"]


@on_loop
async def test_a_connection_that_breaks_in_the_middle_leaves_the_outcome_unknown(database):
    """A cut line is not a failure: the build goes on in the server, and the probe finds it valid later."""
    seed(database)
    async with attached(database) as db:
        run = Run("create_index", await planned(db, "create_index", table="orders", columns=["customer_id"]))
        with transaction(database, "UPDATE orders SET status = 'x' WHERE id = 1") as writer:
            task = run.start(db)
            await eventually_async(lambda: building(database))
            (line,) = [each for each in db._pool.lent if each.info.backend_pid == run.evidence["pid"]]
            cut(line)
            with pytest.raises(OutcomeUnknown) as unknown:
                await task
            assert (await run.probe(db)).state == "unknown"
            writer.commit()
        await eventually_async(lambda: is_valid(database, INDEX) is True)
        await eventually_async(lambda: not building(database))
        probed = await run.probe(db)
    assert unknown.value.facts["pid"] == run.evidence["pid"]
    assert probed.state == "succeeded"


def cut(connection: psycopg.AsyncConnection) -> None:
    """Break a connection as a lost network does: the server learns nothing."""
    import socket

    line = socket.socket(fileno=connection.fileno())
    line.shutdown(socket.SHUT_RD)
    line.detach()


@on_loop
async def test_a_probe_without_evidence_says_that_nothing_was_sent(database18):
    """The backend is noted before the statement is sent: no note, no statement."""
    seed(database18)
    async with attached(database18) as db:
        run = Run("create_index", await planned(db, "create_index", table="orders", columns=["customer_id"]))
        probed = await run.probe(db)
    assert probed.state == "failed"
    assert "Nothing was sent" in probed.summary


@on_loop
async def test_a_blocking_build_gives_up_at_its_lock_timeout(database18):
    """Without CONCURRENTLY the build waits 3 seconds for writers, then fails and leaves nothing."""
    seed(database18)
    async with attached(database18) as db:
        plan = await planned(db, "create_index", table="orders", columns=["customer_id"], concurrently=False)
        with transaction(database18, "UPDATE orders SET status = 'x' WHERE id = 1"):
            effect = await Run("create_index", plan).perform(db)
    assert plan.risk is Risk.HIGH
    assert "gives up after 3s" in plan.lock
    assert effect.state == "failed"
    assert effect.error_code == "55P03"
    assert effect.residue == ()
    assert is_valid(database18, INDEX) is None


@on_loop
async def test_a_name_taken_between_planning_and_running_is_left_alone(database):
    """If somebody else's index has the name by then, ours fails, and theirs is neither claimed nor offered for removal."""
    seed(database)
    async with attached(database) as db:
        run = Run("create_index", await planned(db, "create_index", table="orders", columns=["customer_id"]))
        execute(database, "CREATE INDEX orders_customer_id_idx ON orders (customer_id)")
        effect = await run.perform(db)
        replanned = await planned(db, "create_index", table="orders", columns=["customer_id", "id"])
    assert effect.state == "failed"
    assert effect.error_code == "42P07"
    assert effect.residue == ()
    assert effect.suggestions == ()
    assert any("begins with" in text or "redundant" in text for text in replanned.cautions)
