"""compact_collection, reindex_collection, set_profiling_level: done where the server does them, and read back."""

from __future__ import annotations

import asyncio
import random

import pytest

from opsagent_jupyter.errors import InvalidArguments, MissingRight, OutcomeUnknown, PreconditionFailed
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.mongodb import plugin, statements
from tests.integration.mongodb_replay import replayed
from tests.integration.mongodb_stage import Run, attached, on_loop, performed, planned
from tests.integration.mongodb_wire import assert_sent_as_shown, relayed
from tests.mongo import connected, eventually, new_database

BULKY = 6_000


def bulky(uri, *, emptied=True):
    """A collection on disk of some megabytes, most of it free again."""
    with connected(uri) as client:
        db = client.get_default_database()
        # Bytes that do not compress: a file below a megabyte is left as it is by the server's compaction.
        dice = random.Random(7)
        db.orders.insert_many([{"_id": n, "cust": n % 7, "pad": dice.randbytes(900)} for n in range(BULKY)])
        db.orders.create_index("cust")
        client.admin.command("fsync")
        if emptied:
            db.orders.delete_many({"_id": {"$gte": BULKY // 20}})
            client.admin.command("fsync")


@pytest.fixture
def sparse(shop):
    bulky(shop)
    return shop


def stats(uri):
    with connected(uri) as client:
        (found,) = client.get_default_database().orders.aggregate([{"$collStats": {"storageStats": {}}}])
    return found["storageStats"]


def command(uri, *arguments, **options):
    with connected(uri) as client:
        return client.get_default_database().command(*arguments, **options)


def assessed(tool, **arguments):
    found = plugin.toolbox.tools[tool]
    return found.assess(found.parse(arguments)).risk


def database_of(uri):
    return uri.rpartition("/")[2].partition("?")[0]


# -- compact_collection


@on_loop
async def test_compacting_gives_space_back_and_never_asks_an_old_server_for_a_dry_run(sparse):
    """On 6.0 a dry run would compact: planning sends no compact at all, and the one that is sent is the one shown."""
    before = stats(sparse)["storageSize"]
    with relayed(sparse) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(db, "compact_collection", collection="orders")
            assert wire.sent("compact") == []
            assert stats(sparse)["storageSize"] == before
            run = Run("compact_collection", plan)
            effect = await run.perform(db)
            assert_sent_as_shown(wire, plan)
            probed = await run.probe(db)
    assert plan.risk is Risk.MEDIUM
    assert "are free inside" in plan.size
    assert "nothing to take back" in plan.undo_note
    assert effect.state == probed.state == "succeeded"
    assert effect.figures["freed"] > 0
    assert effect.figures["storage"] == stats(sparse)["storageSize"] < before


@on_loop
async def test_compacting_what_is_full_says_that_it_had_no_effect(shop):
    """Success is not effect."""
    bulky(shop, emptied=False)
    async with attached(shop) as db:
        await performed(db, "compact_collection", collection="orders")
        effect = await performed(db, "compact_collection", collection="orders")
    assert effect.state == "succeeded"
    assert "without effect" in effect.summary


@on_loop
async def test_a_newer_server_is_asked_for_its_own_estimate():
    """Replayed (8.0): there the dry run is one, and its figure stands on the card."""
    with replayed("mongodb_replay_8") as replay:
        async with attached(replay.uri) as db:
            plan = await planned(db, "compact_collection", collection="orders", free_space_target_mb=20)
        asked = replay.sent("compact")
    assert [each["dryRun"] for each in asked] == [True]
    assert "dryRun" not in plan.statements[0]
    assert statements.read(plan.statements[0])[1] == {"compact": "orders", "freeSpaceTargetMB": 20}
    assert "30 MB (63 %) can be given back" in plan.size


@on_loop
async def test_what_an_old_server_would_ignore_is_refused(sparse):
    """free_space_target_mb is of 8.0."""
    async with attached(sparse) as db:
        with pytest.raises(InvalidArguments, match="knows no free_space_target_mb"):
            await planned(db, "compact_collection", collection="orders", free_space_target_mb=20)


@on_loop
async def test_a_primary_is_compacted_only_when_it_is_forced(mongo_rs1):
    """And that is high; force is not taken where nothing has to be forced."""
    with new_database(mongo_rs1) as uri:
        bulky(uri)
        async with attached(uri) as db:
            with pytest.raises(PreconditionFailed, match="only when it is forced") as refusal:
                await planned(db, "compact_collection", collection="orders")
            with pytest.raises(InvalidArguments, match="ordrs"):
                await planned(db, "compact_collection", collection="ordrs", force=True)
            plan = await planned(db, "compact_collection", collection="orders", force=True)
            effect = await Run("compact_collection", plan).perform(db)
    assert "force=true" in refusal.value.hint
    assert plan.risk is Risk.HIGH
    assert assessed("compact_collection", collection="orders", force=True) is Risk.HIGH
    assert "(the primary)" in plan.title
    assert effect.state == "succeeded"
    assert effect.figures["freed"] > 0


@on_loop
async def test_a_secondary_is_compacted_by_its_name(mongo_rs3):
    """Only that member gets the command, as the card says."""
    with new_database(mongo_rs3) as uri:
        with connected(uri) as client:
            client.get_default_database().orders.insert_many([{"_id": n} for n in range(50)])
            hello = client.admin.command("hello")
        address = next(each for each in hello["hosts"] if each != hello["primary"])
        member = next(each for each in mongo_rs3.members if each.address == address)
        there = mongo_rs3.uri_for(database_of(uri), member=member)
        await asyncio.to_thread(eventually, lambda: _has_orders(there))
        async with attached(uri) as db:
            with pytest.raises(InvalidArguments, match="no member of rs0"):
                await planned(db, "compact_collection", collection="orders", member="10.0.0.1:27017")
            with pytest.raises(InvalidArguments, match="nothing has to be forced"):
                await planned(db, "compact_collection", collection="orders", member=address, force=True)
            run = Run(
                "compact_collection", await planned(db, "compact_collection", collection="orders", member=address)
            )
            before = compacted(there), compacted(uri)
            effect = await run.perform(db)
            after = compacted(there), compacted(uri)
    assert run.plan.risk is Risk.MEDIUM
    assert f"{address} (a secondary)" in run.plan.title
    assert "force" not in run.plan.statements[0]
    assert effect.state == "succeeded"
    assert (after[0] - before[0], after[1] - before[1]) == (1, 0)


def compacted(uri):
    """How often this server was told to compact."""
    with connected(uri) as client:
        return client.admin.command("serverStatus")["metrics"]["commands"]["compact"]["total"]


def _has_orders(uri):
    with connected(uri) as client:
        return "orders" in client.get_default_database().list_collection_names()


@on_loop
async def test_a_compact_without_an_end_is_probed_by_the_size_on_disk(sparse):
    """Cut off after it was done: smaller is done; cut off before: nothing has changed."""
    fail = {"failCommands": ["compact"], "closeConnection": True}
    with relayed(sparse) as (uri, wire):
        async with attached(uri) as db:
            run = Run("compact_collection", await planned(db, "compact_collection", collection="orders"))
            with connected(sparse) as client:
                client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fail)
            with pytest.raises(OutcomeUnknown):
                await run.perform(db)
            assert (await run.probe(db)).state == "failed"
            wire.cut = "compact"
            with pytest.raises(OutcomeUnknown):
                await run.perform(db)
            wire.cut = ""
            assert (await run.probe(db)).state == "succeeded"


@on_loop
async def test_a_compact_that_is_killed_says_what_it_gave_back(sparse):
    """The server ends it with 11601."""
    fail = {"failCommands": ["compact"], "errorCode": 11601}
    async with attached(sparse) as db:
        run = Run("compact_collection", await planned(db, "compact_collection", collection="orders"))
        with connected(sparse) as client:
            client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fail)
        effect = await run.perform(db)
    assert effect.state == "failed"
    assert effect.error_code == "11601"
    assert "nothing has changed" in effect.summary


# -- reindex_collection


@on_loop
async def test_reindexing_a_standalone_is_checked_by_specs_and_validation(sparse):
    """The card says that it locks; afterwards all indexes are there and fit the documents."""
    with relayed(sparse) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(db, "reindex_collection", collection="orders")
            run = Run("reindex_collection", plan)
            effect = await run.perform(db)
            assert_sent_as_shown(wire, plan)
            probed = await run.probe(db)
    assert plan.risk is Risk.HIGH
    assert "exclusive on orders until it is done" in plan.lock
    assert effect.state == "succeeded"
    assert "2 indexes of orders are rebuilt and validated" in effect.summary
    assert probed.state == "unknown"


@pytest.mark.parametrize("deployment", ["mongo_rs1", "mongo_rs3"])
@on_loop
async def test_a_set_is_not_reindexed(request, deployment):
    """Refused at once, with what to do instead."""
    server = request.getfixturevalue(deployment)
    async with attached(server.uri_for("shop")) as db:
        with pytest.raises(PreconditionFailed, match="only on a standalone") as refusal:
            await planned(db, "reindex_collection", collection="orders")
    assert "create_index" in refusal.value.hint


@on_loop
async def test_a_reindex_that_the_server_refuses_leaves_the_indexes_as_they_were(sparse):
    """The failure path: an error of the server, and nothing is missing."""
    fail = {"failCommands": ["reIndex"], "errorCode": 50}
    async with attached(sparse) as db:
        run = Run("reindex_collection", await planned(db, "reindex_collection", collection="orders"))
        with connected(sparse) as client:
            client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fail)
        effect = await run.perform(db)
    assert effect.state == "failed"
    assert effect.error_code == "50"
    assert "as they were" in effect.summary


@on_loop
async def test_indexes_that_are_missing_afterwards_are_named_and_offered(sparse):
    """What a crash in the middle would leave is a residue, with the request that builds it again."""
    async with attached(sparse) as db:
        run = Run("reindex_collection", await planned(db, "reindex_collection", collection="orders"))
        command(sparse, "dropIndexes", "orders", index="cust_1")
        effect = await run.perform(db)
        (offer,) = effect.suggestions
        again = await planned(db, offer.tool.rpartition(".")[2], **offer.arguments)
    assert effect.state == "failed"
    assert effect.residue == ("missing index cust_1 of orders",)
    assert statements.read(again.statements[0])[1]["indexes"] == [{"key": {"cust": 1}, "name": "cust_1"}]
    assert statements.read(run.plan.undo)[1]["indexes"] == [{"key": {"cust": 1}, "name": "cust_1"}]


@pytest.mark.parametrize("tool", ["compact_collection", "reindex_collection"])
@on_loop
async def test_maintenance_of_views_and_unknown_collections_is_refused(sparse, tool):
    """With near matches, before anything is sent; and without its role."""
    command(sparse, "create", "open_orders", viewOn="orders", pipeline=[])
    async with attached(sparse) as db:
        for name in ("open_orders", "ordrs", "admin.system.users"):
            with pytest.raises((InvalidArguments, PreconditionFailed)):
                await planned(db, tool, collection=name)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("compact_collection", {"collection": "orders"}),
        ("reindex_collection", {"collection": "orders"}),
        ("set_profiling_level", {"level": 1}),
    ],
)
@on_loop
async def test_a_missing_role_is_named(mongo_auth, tool, arguments):
    """The reader may do none of it."""
    async with attached(mongo_auth.uri_of("reader")) as db:
        with pytest.raises(MissingRight) as refusal:
            await planned(db, tool, **arguments)
    assert "dbAdmin on the database" in refusal.value.hint


# -- set_profiling_level


@pytest.fixture
def unprofiled(shop, mongo):
    with connected(shop) as client:
        client.get_default_database().orders.insert_one({"_id": 1})
    yield shop
    command(shop, {"profile": 0, "slowms": 100, "sampleRate": 1.0, "filter": "unset"})


@on_loop
async def test_profiling_is_set_read_back_and_restored_by_its_undo(unprofiled):
    """The reply tells the state before; ours is read anew."""
    with relayed(unprofiled) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(db, "set_profiling_level", level=1, slowms=50, sample_rate=0.5)
            run = Run("set_profiling_level", plan)
            effect = await run.perform(db)
            (sent,) = [each for each in wire.sent("profile") if each["profile"] != -1]
            probed = await run.probe(db)
            with pytest.raises(PreconditionFailed, match="already"):
                await planned(db, "set_profiling_level", level=1, slowms=50)
    shown = statements.read(plan.statements[0])[1]
    assert {name: sent[name] for name in shown} == shown == {
        "profile": 1, "slowms": 50, "sampleRate": 0.5, "maxTimeMS": shown["maxTimeMS"],
    }  # fmt: skip
    assert plan.risk is Risk.HIGH
    assert any("all databases of this server" in reason for reason in plan.reasons)
    assert effect.state == probed.state == "succeeded"
    assert effect.figures["former"]["was"] == 0
    now = command(unprofiled, {"profile": -1})
    assert (now["was"], now["slowms"], now["sampleRate"]) == (1, 50, 0.5)
    command(unprofiled, statements.read(plan.undo)[1])
    now = command(unprofiled, {"profile": -1})
    assert (now["was"], now["slowms"], now["sampleRate"]) == (0, 100, 1.0)


@on_loop
async def test_a_filter_is_set_and_its_undo_takes_it_away_or_back(unprofiled):
    """While one is set, the server looks at neither slowms nor sample rate: the card says so."""
    async with attached(unprofiled) as db:
        first = await planned(db, "set_profiling_level", level=1, filter='{"millis": {"$gt": 5}}', slowms=9)
        assert (await Run("set_profiling_level", first).perform(db)).state == "succeeded"
        second = await planned(db, "set_profiling_level", level=2, filter="unset")
        assert (await Run("set_profiling_level", second).perform(db)).state == "succeeded"
    assert any("no effect" in caution for caution in first.cautions)
    assert statements.read(first.undo)[1]["filter"] == "unset"
    assert "filter" not in command(unprofiled, {"profile": -1})
    command(unprofiled, statements.read(second.undo)[1])
    assert command(unprofiled, {"profile": -1})["filter"] == {"millis": {"$gt": 5}}


@pytest.mark.parametrize("database", ["admin", "local"])
@on_loop
async def test_the_servers_own_databases_are_not_profiled(unprofiled, database):
    """Nor one that does not exist: the server would take the name."""
    async with attached(unprofiled) as db:
        with pytest.raises(PreconditionFailed, match="belongs to the server"):
            await planned(db, "set_profiling_level", level=1, database=database)
        with pytest.raises(InvalidArguments):
            await planned(db, "set_profiling_level", level=1, database="not_there")


@on_loop
async def test_mongos_is_only_switched_off():
    """Replayed (mongos): level 1 is refused before it is sent."""
    with replayed("mongodb_replay_mongos") as replay:
        async with attached(replay.uri) as db:
            with pytest.raises(PreconditionFailed, match="only level 0"):
                await planned(db, "set_profiling_level", level=1)
            with pytest.raises(PreconditionFailed, match="each shard"):
                await planned(db, "compact_collection", collection="orders")
            with pytest.raises(PreconditionFailed, match="sharded cluster"):
                await planned(db, "reindex_collection", collection="orders")
        assert [each["profile"] for each in replay.sent("profile")] == []


@on_loop
async def test_a_level_that_was_not_set_is_a_failure(unprofiled):
    """The server refuses; the state is as it was. Cut off before or after, the probe tells which."""
    error = {"failCommands": ["profile"], "errorCode": 13}
    with relayed(unprofiled) as (uri, wire):
        async with attached(uri) as db:
            run = Run("set_profiling_level", await planned(db, "set_profiling_level", level=1))
            with connected(unprofiled) as client:
                client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=error)
            effect = await run.perform(db)
            assert (await run.probe(db)).state == "failed"
            wire.cut = "profile"
            with pytest.raises(OutcomeUnknown):
                await run.perform(db)
            wire.cut = ""
            probed = await run.probe(db)
    assert effect.state == "failed"
    assert effect.error_code == "13"
    assert "as it was" in effect.summary
    assert probed.state == "succeeded"


@on_loop
async def test_what_others_set_meanwhile_changes_a_precondition(unprofiled):
    """The way back on the card is the state of then."""
    async with attached(unprofiled) as db:
        first = await planned(db, "set_profiling_level", level=1)
        again = await planned(db, "set_profiling_level", level=1)
        command(unprofiled, {"profile": 0, "slowms": 77})
        later = await planned(db, "set_profiling_level", level=1)
    assert first.preconditions == again.preconditions
    assert first.statements == later.statements
    assert first.preconditions != later.preconditions
