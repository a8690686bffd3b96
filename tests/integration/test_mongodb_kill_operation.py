"""kill_operation: ends exactly the operation that was approved, never a stranger with its number, never ourselves."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import pytest
from pydantic import ValidationError

from opsagent_jupyter.errors import InvalidArguments, MissingRight, OutcomeUnknown, PreconditionFailed
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.mongodb import plugin, statements
from opsagent_jupyter.plugins.mongodb.changes import kill_operation
from tests.integration.mongodb_replay import replayed
from tests.integration.mongodb_stage import Run, attached, on_loop, planned
from tests.integration.mongodb_wire import assert_sent_as_shown, relayed
from tests.mongo import background, connected, eventually, lock_wait, new_database, running, slow_op


@pytest.fixture
def small(shop):
    fill(shop)
    return shop


def fill(uri):
    with connected(uri) as client:
        client.get_default_database().orders.insert_many([{"_id": n, "cust": n % 7} for n in range(500)])


def alive(uri, opid):
    with connected(uri) as client:
        return bool(running(client, {"opid": opid}))


@contextmanager
def deaf_op(uri):
    """A query that hangs where it does not look whether it was killed; its $currentOp entry, and what lets it go on."""

    def work():
        with connected(uri) as client:
            list(client.get_default_database().orders.find({}, comment="deaf"))

    def listening():
        with connected(uri) as client:
            client.admin.command("configureFailPoint", "waitInFindBeforeMakingBatch", mode="off")

    with connected(uri) as client:
        space = f"{client.get_default_database().name}.orders"
        client.admin.command("configureFailPoint", "waitInFindBeforeMakingBatch", mode="alwaysOn", data={"nss": space})
    with connected(uri) as client, background(work):
        try:
            yield eventually(lambda: running(client, {"command.comment": "deaf"}))[0], listening
        finally:
            listening()


@contextmanager
def hanging_build(uri):
    """An index build of somebody else that hangs; its operation, as its client started it."""

    def work():
        with connected(uri) as client:
            index = {"key": {"cust": 1}, "name": "by_cust"}
            client.get_default_database().command("createIndexes", "orders", indexes=[index], comment="a build")

    with connected(uri) as client:
        client.admin.command("configureFailPoint", "hangAfterStartingIndexBuild", mode="alwaysOn")
        with background(work):
            try:
                yield eventually(lambda: running(client, {"command.comment": "a build", "client": {"$exists": True}}))[
                    0
                ]
            finally:
                client.admin.command("configureFailPoint", "hangAfterStartingIndexBuild", mode="off")


def listed(uri):
    with connected(uri) as client:
        return {each["name"] for each in client.get_default_database().orders.list_indexes()}


# -- the kill


@on_loop
async def test_the_operation_on_the_card_is_the_one_that_ends(small):
    """The card says who runs what for how long, without values; the report says that it is gone."""
    with slow_op(small) as row, relayed(small) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(db, "kill_operation", opid=str(row["opid"]))
            again = await planned(db, "kill_operation", opid=row["opid"])
            run = Run("kill_operation", plan)
            effect = await run.perform(db)
            assert_sent_as_shown(wire, plan)
            probed = await run.probe(db)
        assert not alive(small, row["opid"])
    assert plan.preconditions == again.preconditions
    assert plan.statements == again.statements
    assert statements.read(plan.statements[0]) == ("admin", {"killOp": 1, "op": row["opid"]})
    assert plan.risk is Risk.HIGH
    assert plan.title.startswith(f"Kill operation {row['opid']} (checkout, ")
    assert plan.size.startswith("running for ")
    assert 'aggregate: "orders"' in plan.size
    assert "sleep(50)" not in plan.model_dump_json()
    assert plan.undo == ""
    assert "11601" in plan.undo_note
    assert plan.execution == "once"
    assert effect.state == probed.state == "succeeded"
    assert f"Operation {row['opid']} is gone" in effect.summary
    assert effect.figures["killed"] is True


@on_loop
async def test_an_operation_that_ended_before_the_kill_is_its_own_answer(small):
    """Nothing is sent for it, and that is no failure."""
    with relayed(small) as (uri, wire):
        async with attached(uri) as db:
            with slow_op(small) as row:
                run = Run("kill_operation", await planned(db, "kill_operation", opid=str(row["opid"])))
            effect = await run.perform(db)
            with pytest.raises(PreconditionFailed, match="it has ended, or was never there"):
                await planned(db, "kill_operation", opid=str(row["opid"]))
        assert wire.sent("killOp") == []
    assert effect.state == "succeeded"
    assert "ended by itself before the kill; nothing was sent" in effect.summary
    assert effect.figures["killed"] is False


@pytest.mark.parametrize("part", ["client", "shape", "session", "started"])
@on_loop
async def test_another_operation_with_the_same_number_is_not_touched(small, part):
    """Client, session, what it does and when it began are looked at again immediately before the kill."""
    with slow_op(small) as row, relayed(small) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(db, "kill_operation", opid=str(row["opid"]))
            before = {**plan.before, "identity": dict(plan.before["identity"])}
            if part == "started":
                before["started"] = "2026-01-01T00:00:00+00:00"
            else:
                before["identity"][part] = "another"
            effect = await Run("kill_operation", plan.model_copy(update={"before": before})).perform(db)
            assert wire.sent("killOp") == []
        assert alive(small, row["opid"])
    assert effect.state == "succeeded"
    assert "nothing was sent" in effect.summary


@on_loop
async def test_what_the_approval_is_bound_to(small):
    """Number, client, connection, session, collection, kind, shape, and the server process."""
    with slow_op(small) as row:
        async with attached(small) as db:
            plan = await planned(db, "kill_operation", opid=str(row["opid"]))
    assert set(plan.preconditions) == {
        "opid", "client", "connection", "session", "namespace", "kind", "shape", "process",
    }  # fmt: skip
    assert all(plan.preconditions.values())
    assert plan.before["started"]


@on_loop
async def test_an_operation_that_waits_for_a_lock_is_killed_too(small):
    """The card says that it waits, and that what a write has written stays."""
    with lock_wait(small) as row:
        async with attached(small) as db:
            plan = await planned(db, "kill_operation", opid=str(row["opid"]))
            effect = await Run("kill_operation", plan).perform(db)
    assert "waiting for a lock" in plan.size
    assert any("documents that it has written already stay" in caution for caution in plan.cautions)
    assert effect.state == "succeeded"


@on_loop
async def test_an_operation_that_does_not_look_up_is_unknown_and_gone_later(small, monkeypatch):
    """The server answers every kill with success; while the operation is there, it is not called gone."""
    monkeypatch.setattr(kill_operation, "GONE_WITHIN", 0.2)
    with deaf_op(small) as (row, listening):
        async with attached(small) as db:
            run = Run("kill_operation", await planned(db, "kill_operation", opid=str(row["opid"])))
            effect = await run.perform(db)
            assert (await run.probe(db)).state == "unknown"
            await asyncio.to_thread(listening)
            await asyncio.to_thread(eventually, lambda: not alive(small, row["opid"]))
            probed = await run.probe(db)
    assert effect.state == "unknown"
    assert "still runs" in effect.summary
    assert "knows that it was killed" in effect.summary
    assert probed.state == "succeeded"


@on_loop
async def test_a_kill_without_an_answer_is_unknown(small):
    """Cut off after the server had it; a person looks, or the probe finds it gone."""
    with slow_op(small) as row, relayed(small) as (uri, wire):
        async with attached(uri) as db:
            run = Run("kill_operation", await planned(db, "kill_operation", opid=str(row["opid"])))
            assert (await run.probe(db)).state == "failed"
            run.evidence["comment"] = "opsagent noted"
            assert (await run.probe(db)).state == "unknown"
            wire.cut = "killOp"
            with pytest.raises(OutcomeUnknown):
                await run.perform(db)
            wire.cut = ""
            await asyncio.to_thread(eventually, lambda: not alive(small, row["opid"]))
            assert (await run.probe(db)).state == "succeeded"


# -- what is not killed


@on_loop
async def test_our_own_work_and_the_servers_threads_are_refused(small):
    """Ours is cancelled by its request; a thread of the server is nobody's operation."""
    async with attached(small) as db:
        slow = {"count": "orders", "query": {"$where": "sleep(100) || true"}}
        task = asyncio.ensure_future(db.command(small.rpartition("/")[2].partition("?")[0], slow, seconds=5.0))
        with connected(small) as client:
            ours = await asyncio.to_thread(eventually, lambda: running(client, {"command.count": "orders"}))
            own = running(client, {"desc": "Checkpointer"})
        with pytest.raises(PreconditionFailed, match="OpsAgent's own") as refusal:
            await planned(db, "kill_operation", opid=str(ours[0]["opid"]))
        with pytest.raises(PreconditionFailed, match="server's own"):
            await planned(db, "kill_operation", opid=str(own[0]["opid"]))
        task.cancel()
        await asyncio.wait({task})
    assert "Cancel the request" in refusal.value.hint


@on_loop
async def test_an_idle_wait_of_a_driver_is_no_operation(small):
    """The driver's monitor waits in hello for seconds and looks long."""
    with connected(small) as client:
        client.admin.command("ping")
        hello = await asyncio.to_thread(
            eventually, lambda: running(client, {"command.hello": 1, "appName": "checkout"})
        )
        async with attached(small) as db:
            with pytest.raises(PreconditionFailed, match=r"idle wait|it has ended"):
                await planned(db, "kill_operation", opid=str(hello[0]["opid"]))


@on_loop
async def test_an_index_build_of_a_set_is_not_killed_on_one_member(mongo_rs1):
    """drop_index aborts it everywhere; the refusal says so."""
    with new_database(mongo_rs1) as uri:
        fill(uri)
        with hanging_build(uri) as row:
            async with attached(uri) as db:
                with pytest.raises(PreconditionFailed, match="builds an index") as refusal:
                    await planned(db, "kill_operation", opid=str(row["opid"]))
    assert "drop_index" in refusal.value.hint


@on_loop
async def test_the_thread_that_builds_for_a_client_is_not_killed(small):
    """It carries the client's command, but both killed at once can bring down the server: drop_index aborts the build."""
    with hanging_build(small), connected(small) as client:
        mine = {"command.comment": "a build", "client": {"$exists": False}}
        (row,) = await asyncio.to_thread(eventually, lambda: running(client, mine))
        async with attached(small) as db:
            with pytest.raises(PreconditionFailed, match="thread that builds an index") as refusal:
                await planned(db, "kill_operation", opid=str(row["opid"]))
    assert "drop_index" in refusal.value.hint


@on_loop
async def test_killing_maintenance_is_critical(small):
    """On a standalone a build can be killed; its work is lost, nothing is left."""
    with hanging_build(small) as row:
        async with attached(small) as db:
            plan = await planned(db, "kill_operation", opid=str(row["opid"]))
            effect = await Run("kill_operation", plan).perform(db)
    assert plan.risk is Risk.CRITICAL
    assert "maintenance (createIndexes)" in plan.reasons[0]
    assert effect.state == "succeeded"
    assert "by_cust" not in listed(small)


@pytest.mark.parametrize("opid", ["", "abc", "1;2", "12345678901", "shard 1:4"])
def test_what_is_no_number_of_an_operation_is_refused(opid):
    """Before anything is asked of the server."""
    with pytest.raises((InvalidArguments, ValidationError)):
        plugin.toolbox.tools["kill_operation"].parse({"opid": opid})


@on_loop
async def test_the_number_of_a_shards_operation_is_taken_whole():
    """Replayed (mongos): the shard's name is part of it."""
    with replayed("mongodb_replay_mongos") as replay:
        async with attached(replay.uri) as db:
            plan = await planned(db, "kill_operation", opid="shard01:4711")
        look = replay.sent("aggregate")[-1]["pipeline"]
    assert statements.read(plan.statements[0])[1] == {"killOp": 1, "op": "shard01:4711"}
    assert look[1] == {"$match": {"opid": "shard01:4711"}}
    assert "localOps" not in look[0]["$currentOp"]
    assert "10.0.0.7:41000" in plan.title


# -- rights


@contextmanager
def slow_query(uri, comment):
    """A query without JavaScript that takes long: every document with every other one, twice."""
    each = {"$lookup": {"from": "orders", "pipeline": [{"$match": {"status": "new"}}], "as": "other"}}
    pipeline = [
        each,
        {"$unwind": "$other"},
        each,
        {"$unwind": "$other"},
        {"$group": {"_id": "$cust", "n": {"$sum": 1}}},
    ]

    def work():
        with connected(uri) as client:
            list(client.get_default_database().orders.aggregate(pipeline, comment=comment, allowDiskUse=True))

    with background(work):
        yield


@on_loop
async def test_a_user_without_the_right_kills_only_its_own(mongo_auth):
    """The role that lacks is named; one's own operation needs none."""
    narrow = mongo_auth.uri_of("narrow")
    with connected(mongo_auth.uri_of("root")) as root, slow_query(narrow, "of narrow"):
        (row,) = await asyncio.to_thread(eventually, lambda: running(root, {"command.comment": "of narrow"}))
        async with attached(mongo_auth.uri_of("reader")) as db:
            with pytest.raises(MissingRight, match="killOp on the cluster") as refusal:
                await planned(db, "kill_operation", opid=str(row["opid"]))
        async with attached(narrow) as db:
            with pytest.raises(MissingRight, match="other users' cannot be seen"):
                await planned(db, "kill_operation", opid=str(row["opid"] + 10**6))
            plan = await planned(db, "kill_operation", opid=str(row["opid"]))
            effect = await Run("kill_operation", plan).perform(db)
    assert "hostManager on admin" in refusal.value.hint
    assert effect.state == "succeeded"
    assert "user narrow@admin" in plan.title
