"""create_index and drop_index: what is shown is what is sent, nothing is made by a typo, and the end is read back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.errors import PyMongoError

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.demo.mongod import EmbeddedMongod
from opsagent_jupyter.errors import InvalidArguments, MissingRight, OutcomeUnknown, PreconditionFailed
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.mongodb import names, plugin, statements
from opsagent_jupyter.plugins.mongodb.changes import index_spec
from tests.integration.mongodb_stage import Run, attached, on_loop, performed, planned
from tests.integration.mongodb_wire import assert_sent_as_shown, ended, kill_and_restart, relayed
from tests.mongo import connected, eventually, frozen, hung_build, new_database, required_mongod

COUNT = 300
FAILPOINT = "hangAfterStartingIndexBuild"


def seed(uri, count=COUNT):
    """A small collection: cust 0 to 6, a unique sku, a date, and an index by status."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with connected(uri) as client:
        db = client.get_default_database()
        db.orders.insert_many(
            [{"_id": n, "cust": n % 7, "sku": f"s{n}", "status": "new", "at": start + timedelta(hours=n)}
             for n in range(count)]
        )  # fmt: skip
        db.orders.create_index("status")
        db.command("create", "open_orders", viewOn="orders", pipeline=[])


@pytest.fixture
def small(shop):
    seed(shop)
    return shop


def indexes(uri, collection="orders"):
    with connected(uri) as client:
        return {each["name"]: dict(each) for each in client.get_default_database()[collection].list_indexes()}


def collections(uri):
    with connected(uri) as client:
        return set(client.get_default_database().list_collection_names())


def command(uri, *arguments, **options):
    with connected(uri) as client:
        return client.get_default_database().command(*arguments, **options)


def run_text(uri, statement):
    """What a person would do with a statement of the card: run it as it stands."""
    database, document = statements.read(statement)
    with connected(uri) as client:
        return client[database].command(document)


@contextmanager
def hanging_builds(uri):
    """Every index build of this server hangs after its start."""
    with connected(uri) as client:
        client.admin.command("configureFailPoint", FAILPOINT, mode="alwaysOn")
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", FAILPOINT, mode="off")


async def until_building(uri, name):
    await asyncio.to_thread(eventually, lambda: name in indexes(uri))


# -- the proposal


@on_loop
async def test_the_card_says_what_it_does(small):
    """Command, lock, size, duration, undo and identity stand on the card."""
    async with attached(small) as db:
        plan = await planned(db, "create_index", collection="orders", fields="cust, -at")
    database, document = statements.read(plan.statements[0])
    assert database in small
    assert list(document)[:2] == ["createIndexes", "indexes"]
    assert document["indexes"] == [{"key": {"cust": 1, "at": -1}, "name": "cust_1_at_-1"}]
    assert list(document["indexes"][0]["key"]) == ["cust", "at"]
    assert plan.risk is Risk.MEDIUM
    assert plan.title == "Create an index on orders: {cust: 1, at: -1}"
    assert "only at the start and the end" in plan.lock
    assert plan.size.startswith(f"{COUNT} documents, ")
    assert "2 indexes so far" in plan.size
    assert "of disk are free" in plan.size
    assert "estimate" in plan.duration
    assert statements.read(plan.undo)[1] == {"dropIndexes": "orders", "index": "cust_1_at_-1"}
    assert plan.preconditions["collection_uuid"]
    assert plan.execution == "probeable"


@on_loop
async def test_planning_again_gives_the_same_text_and_preconditions(small):
    """Nothing that is bound changes while the database does not."""
    async with attached(small) as db:
        for tool, arguments in (
            ("create_index", {"collection": "orders", "fields": ["cust"]}),
            ("drop_index", {"collection": "orders", "index": "status_1"}),
        ):
            first, again = [await planned(db, tool, **arguments) for _ in range(2)]
            assert first.statements == again.statements
            assert first.preconditions == again.preconditions


@on_loop
async def test_a_typo_in_a_collection_makes_nothing(small):
    """The server would create the collection; we name the one that is meant."""
    async with attached(small) as db:
        with pytest.raises(InvalidArguments, match="orders"):
            await planned(db, "create_index", collection="ordrs", fields="cust")
    assert collections(small) == {"orders", "open_orders", "system.views"}


@on_loop
async def test_a_typo_in_a_field_is_pointed_out(small):
    """The server builds an index on a field that no document has; the card says so."""
    async with attached(small) as db:
        plan = await planned(db, "create_index", collection="orders", fields="custt")
        right = await planned(db, "create_index", collection="orders", fields="cust")
    assert any("has custt: check the spelling" in caution for caution in plan.cautions)
    assert not any("check the spelling" in caution for caution in right.cautions)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("cust", {"cust": 1}),
        ("cust, -at", {"cust": 1, "at": -1}),
        ("at desc, cust asc", {"at": -1, "cust": 1}),
        ("at:-1,cust: 1", {"at": -1, "cust": 1}),
        ('{"at": -1.0, "cust": 1}', {"at": -1, "cust": 1}),
        ("address.city", {"address.city": 1}),
        ("place 2dsphere", {"place": "2dsphere"}),
        ("note text", {"note": "text"}),
        ("_id hashed", {"_id": "hashed"}),
        ("attributes.$**", {"attributes.$**": 1}),
    ],
)
def test_fields_are_read_as_people_write_them(text, key):
    """Order, direction and kind."""
    found = index_spec.key(index_spec.split(text))
    assert found == key
    assert list(found) == list(key)


@pytest.mark.parametrize("text", ["", "a,a", "a..b", "$a", "a 7", "-place 2dsphere", "_id", "a b c", "a\0b"])
def test_what_is_no_field_is_refused(text):
    """Before anything is asked of the server."""
    with pytest.raises(InvalidArguments):
        index_spec.key(index_spec.split(text))


@pytest.mark.parametrize(
    ("arguments", "risk"),
    [
        ({}, Risk.MEDIUM),
        ({"unique": True}, Risk.HIGH),
        ({"expire_after": 60}, Risk.HIGH),
        ({"fields": ["$**"]}, Risk.HIGH),
    ],
)
def test_the_arguments_alone_raise_the_risk_of_a_build(arguments, risk):
    """Unique, TTL and wildcard are high."""
    tool = plugin.toolbox.tools["create_index"]
    assessed = tool.assess(tool.parse({"collection": "orders", "fields": ["at"], **arguments}))
    assert assessed.risk is risk
    assert bool(assessed.reasons) == (risk is Risk.HIGH)


@pytest.mark.parametrize(
    ("arguments", "risk"), [({}, Risk.HIGH), ({"hide": True}, Risk.MEDIUM), ({"unhide": True}, Risk.MEDIUM)]
)
def test_hiding_is_less_than_dropping(arguments, risk):
    """It is taken back at once."""
    tool = plugin.toolbox.tools["drop_index"]
    assert tool.assess(tool.parse({"collection": "orders", "index": "x", **arguments})).risk is risk


@pytest.mark.parametrize("collection", ["open_orders", "system.views", "admin.system.users", "local.startup_log"])
@pytest.mark.parametrize("tool", ["create_index", "drop_index"])
@on_loop
async def test_views_and_what_belongs_to_the_server_are_refused(small, tool, collection):
    """By name, before anything is sent."""
    rest = {"fields": "cust"} if tool == "create_index" else {"index": "status_1"}
    async with attached(small) as db:
        with pytest.raises((PreconditionFailed, InvalidArguments)):
            await planned(db, tool, collection=collection, **rest)


@on_loop
async def test_a_standalone_has_no_quorum(small):
    """The server would refuse it with error 2."""
    async with attached(small) as db:
        with pytest.raises(InvalidArguments, match="no members"):
            await planned(db, "create_index", collection="orders", fields="cust", commit_quorum="majority")


# -- unique and TTL


@on_loop
async def test_equal_values_are_counted_first_and_stop_the_build(small):
    """The card says how many there are; the build fails with 11000, shows no value, and leaves nothing."""
    async with attached(small) as db:
        plan = await planned(db, "create_index", collection="orders", fields="cust", unique=True)
        effect = await Run("create_index", plan).perform(db)
        fine = await planned(db, "create_index", collection="orders", fields="sku", unique=True)
        assert (await Run("create_index", fine).perform(db)).state == "succeeded"
    assert plan.title.startswith("Create a unique index on orders")
    assert plan.risk is Risk.HIGH
    assert any("300 documents share 7 values now" in caution for caution in plan.cautions)
    assert effect.state == "failed"
    assert effect.error_code == "11000"
    assert "nothing is left behind" in effect.summary
    assert "dup key: {…}" in effect.summary
    assert any("no equal values" in caution for caution in fine.cautions)
    assert set(indexes(small)) == {"_id_", "status_1", "sku_1"}
    assert indexes(small)["sku_1"]["unique"] is True


@on_loop
async def test_what_a_ttl_index_would_delete_at_once_is_counted(small):
    """Documents that are past it make it critical, for nothing brings them back."""
    with connected(small) as client:
        client.get_default_database().orders.update_many({"_id": {"$lt": 5}}, {"$set": {"at": datetime.now(UTC)}})
    async with attached(small) as db:
        plan = await planned(db, "create_index", collection="orders", fields="at", expire_after=3600)
        far = await planned(db, "create_index", collection="orders", fields="at", expire_after=2**31 - 1)
        with pytest.raises(InvalidArguments, match="one plain field"):
            await planned(db, "create_index", collection="orders", fields="at, cust", expire_after=3600)
    past = sum(1 for n in range(5, COUNT) if datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n) < datetime.now(UTC))
    assert plan.risk is Risk.CRITICAL
    assert f"{past} documents" in plan.reasons[0]
    assert far.risk is Risk.HIGH


@on_loop
async def test_what_may_not_be_read_is_not_counted_and_counts_as_the_worst(mongo_auth):
    """The account of the reference's executor makes indexes and reads no document."""
    async with attached(mongo_auth.uri_of("executor")) as db:
        ttl = await planned(db, "create_index", collection="orders", fields="at", expire_after=60)
        unique = await planned(db, "create_index", collection="orders", fields="cust", unique=True)
    assert ttl.risk is Risk.CRITICAL
    assert "not known how many" in ttl.reasons[0]
    assert any("could not be counted" in caution for caution in unique.cautions)


# -- the build


@on_loop
async def test_what_is_shown_is_what_is_sent_and_what_is_built(small):
    """Field by field over the wire; success is read back from the list of indexes."""
    with relayed(small) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(
                db, "create_index", collection="orders", fields="cust, -at", name="by_cust",
                where='{"status": "new", "at": {"$gt": {"$date": "2026-01-01T00:00:00Z"}}}', collation="de", hidden=True,
            )  # fmt: skip
            run = Run("create_index", plan)
            effect = await run.perform(db)
            probed = await run.probe(db)
        assert_sent_as_shown(wire, plan)
    assert effect.state == probed.state == "succeeded"
    assert "by_cust is built on orders" in effect.summary
    built = indexes(small)["by_cust"]
    assert built["hidden"] is True
    assert built["partialFilterExpression"]["status"] == "new"
    assert built["collation"]["locale"] == "de"
    run_text(small, plan.undo)
    assert "by_cust" not in indexes(small)


@pytest.mark.parametrize("fields", ["note text, cust", "place 2dsphere", "cust hashed", "attributes.$**"])
@on_loop
async def test_every_kind_of_index_is_recognised_once_it_is_built(small, fields):
    """A second request for the same finds its twin; dropped, its undo makes the same again."""
    async with attached(small) as db:
        assert (await performed(db, "create_index", collection="orders", fields=fields)).state == "succeeded"
        with pytest.raises(PreconditionFailed, match="same index already"):
            await planned(db, "create_index", collection="orders", fields=fields, name="other")
        (name,) = set(indexes(small)) - {"_id_", "status_1"}
        before = indexes(small)[name]
        drop = await planned(db, "drop_index", collection="orders", index=name)
        assert (await Run("drop_index", drop).perform(db)).state == "succeeded"
    run_text(small, drop.undo)
    assert indexes(small)[name] == before


@on_loop
async def test_what_the_server_would_refuse_or_ignore_is_refused_first(small):
    """The same again, a name that is taken, one key with two options, and the trap of the hidden index."""
    command(small, "createIndexes", "orders", indexes=[{"key": {"at": 1}, "name": "at_1", "expireAfterSeconds": 10**9}])
    command(small, "createIndexes", "orders", indexes=[{"key": {"sku": 1}, "name": "sku_1", "hidden": True}])
    async with attached(small) as db:
        for arguments, match in (
            ({"fields": "status"}, "status_1 on orders is the same index already"),
            ({"fields": "cust", "name": "status_1"}, "The name status_1 is taken"),
            ({"fields": "at", "expire_after": 60}, "at_1 has the same key"),
            ({"fields": "sku"}, "sku_1 is the same index, hidden"),
            ({"fields": "sku", "name": "else"}, "sku_1 is the same index, hidden"),
        ):
            with pytest.raises(PreconditionFailed, match=match) as refusal:
                await planned(db, "create_index", collection="orders", **arguments)
        assert "unhide=true" in refusal.value.hint


@pytest.mark.parametrize(
    ("rival", "code"),
    [
        ({"key": {"cust": 1}, "name": "rival"}, "85"),
        ({"key": {"sku": 1}, "name": "cust_1"}, "86"),
        ({"key": {"cust": 1}, "name": "cust_1", "hidden": True}, "execution.effect_missing"),
    ],
)
@on_loop
async def test_an_index_that_others_make_meanwhile_is_told_apart(small, rival, code):
    """Made between the last look and the command: the server refuses with 85 or 86, or reports a success that is none."""
    async with attached(small) as db:
        run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
        command(small, "createIndexes", "orders", indexes=[rival])
        effect = await run.perform(db)
    assert effect.state == "failed"
    assert effect.error_code == code
    assert indexes(small)[rival["name"]].get("hidden") == rival.get("hidden")
    assert set(indexes(small)) == {"_id_", "status_1", rival["name"]}


@on_loop
async def test_the_same_index_made_by_others_meanwhile_is_no_work_of_ours(small):
    """It is there as wanted, and the report says who built it."""
    async with attached(small) as db:
        run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
        command(small, "createIndexes", "orders", indexes=[{"key": {"cust": 1}, "name": "cust_1"}])
        effect = await run.perform(db)
    assert effect.state == "succeeded"
    assert "somebody else had built it" in effect.summary


@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("tool", ["create_index", "drop_index", "hide"])
@on_loop
async def test_another_collection_of_the_same_name_is_not_touched(small, tool, replaced):
    """The command names the collection's uuid: for another one, or none, the server itself refuses it."""
    arguments = {"fields": "cust"} if tool == "create_index" else {"index": "status_1"}
    if tool == "hide":
        tool, arguments = "drop_index", {"index": "status_1", "hide": True}
    async with attached(small) as db:
        run = Run(tool, await planned(db, tool, collection="orders", **arguments))
        with connected(small) as client:
            client.get_default_database().orders.drop()
            if replaced:
                client.get_default_database().orders.create_index("status")
        effect = await run.perform(db)
        if replaced:
            again = await planned(db, tool, collection="orders", **arguments)
            assert again.preconditions != run.plan.preconditions
    if replaced:
        assert effect.state == "failed"
        assert effect.error_code == "361"
        assert set(indexes(small)) == {"_id_", "status_1"}
        assert "hidden" not in indexes(small)["status_1"]
    else:
        assert "orders" not in collections(small)
        assert (effect.state, tool) in {
            ("failed", "create_index"),
            ("succeeded", "drop_index"),
            ("failed", "drop_index"),
        }


# -- ends that are not seen


@on_loop
async def test_a_cancelled_build_is_killed_on_the_server_and_leaves_nothing(small):
    """Cancelling the task ends the operation, and the report has looked."""
    async with attached(small) as db:
        run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
        with hanging_builds(small):
            task = run.start(db)
            await until_building(small, "cust_1")
            task.cancel()
            effect = await task
    assert effect.state == "failed"
    assert "cancelled in the database" in effect.summary
    assert "nothing is left behind" in effect.summary
    assert set(indexes(small)) == {"_id_", "status_1"}


@on_loop
async def test_a_cancelled_build_of_a_set_is_aborted_as_a_whole(mongo_rs1):
    """The set's coordinator builds in a thread of its own; it gives up too, and nothing is listed any more."""
    with new_database(mongo_rs1) as uri:
        seed(uri)
        async with attached(uri) as db:
            run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
            with hanging_builds(uri):
                task = run.start(db)
                await until_building(uri, "cust_1")
                task.cancel()
                await asyncio.sleep(0.5)
            effect = await task
        assert set(indexes(uri)) == {"_id_", "status_1"}
    assert effect.state == "failed"
    assert "nothing is left behind" in effect.summary


@on_loop
async def test_a_lost_connection_is_unknown_and_the_probe_finds_the_index(small):
    """The server ran it and its answer was cut off."""
    with relayed(small) as (uri, wire):
        async with attached(uri) as db:
            run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
            wire.cut = "createIndexes"
            with pytest.raises(OutcomeUnknown):
                await run.perform(db)
            wire.cut = ""
            probed = await run.probe(db)
            assert len(wire.sent("createIndexes")) == 1
    assert probed.state == "succeeded"
    assert run.evidence["comment"].startswith("opsagent ")


@on_loop
async def test_nothing_noted_means_nothing_sent(small):
    """A host that died before its evidence was kept has sent nothing."""
    async with attached(small) as db:
        run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
        assert (await run.probe(db)).state == "failed"
        run.evidence["comment"] = "opsagent of a host that died before it sent"
        probed = await run.probe(db)
    assert probed.state == "failed"
    assert "nothing is left behind" in probed.summary


BUILDER = """
import asyncio, sys
from opsagent_jupyter.models import Plan
from opsagent_jupyter.plugins.mongodb import plugin
from tests.integration.mongodb_stage import Run, attached

async def main():
    async with attached(sys.argv[1]) as db:
        run = Run("create_index", Plan.model_validate_json(sys.argv[2]))
        noted = run.note
        async def note(evidence):
            await noted(evidence)
            print(evidence["comment"], flush=True)
        run.note = note
        await run.perform(db)

asyncio.run(main())
"""


def builder(uri, plan):
    """A process of its own that performs a plan; its comment is its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, uri, plan.model_dump_json()], stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


@on_loop
async def test_a_build_whose_client_was_killed_goes_on_and_is_found(small):
    """After kill -9 of the client the probe first finds it still being built, and then whole."""
    async with attached(small) as db:
        run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
        with hanging_builds(small):
            process, run.evidence["comment"] = builder(small, run.plan)
            try:
                await until_building(small, "cust_1")
            finally:
                ended(process)
            during = await run.probe(db)
        after = await _settled(db, run)
    process.stdout.close()
    assert during.state == "unknown"
    assert after.state == "succeeded"
    assert "cust_1" in indexes(small)


async def _settled(db, run):
    for _ in range(200):
        if (effect := await run.probe(db)).state != "unknown":
            return effect
        await asyncio.sleep(0.05)
    raise AssertionError("it stayed unknown")


def test_after_a_killed_server_the_probe_tells_what_the_restart_made_of_the_build():
    """SIGKILL of the only member of a set in the middle: the list of indexes decides, once nothing is being built."""
    with EmbeddedMongod(
        members=1, auth=False, mongod=required_mongod(), parameters={"enableTestCommands": 1}
    ) as server:
        uri = server.uri_for("shop")
        seed(uri)
        asyncio.run(_killed_in_the_middle(server, uri))


async def _killed_in_the_middle(server, uri):
    async with attached(uri) as db:
        run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
        assert "commitQuorum" in run.plan.statements[0]
        with connected(uri) as client:
            client.admin.command("configureFailPoint", FAILPOINT, mode="alwaysOn")
        task = run.start(db)
        await until_building(uri, "cust_1")
        with connected(uri) as client:
            client.admin.command("fsync")
        await asyncio.to_thread(kill_and_restart, server)
        with pytest.raises(OutcomeUnknown):
            await task
    await asyncio.to_thread(eventually, lambda: _primary(uri))
    async with attached(uri) as db:
        effect = await _settled(db, run)
    assert effect.state == ("succeeded" if "cust_1" in indexes(uri) else "failed")


def _primary(uri):
    with suppress(PyMongoError), connected(uri) as client:
        return client.admin.command("hello")["isWritablePrimary"]
    return False


# -- rights


@on_loop
async def test_a_missing_role_is_named(mongo_auth):
    """Before anything is proposed."""
    async with attached(mongo_auth.uri_of("reader")) as db:
        for tool, arguments in (
            ("create_index", {"fields": "cust"}),
            ("drop_index", {"index": "x"}),
            ("drop_index", {"index": "x", "hide": True}),
        ):
            with pytest.raises(MissingRight) as refusal:
                await planned(db, tool, collection="orders", **arguments)
            assert "dbAdmin on the database" in refusal.value.hint
            assert "shop.orders" in refusal.value.message


@on_loop
async def test_a_right_that_is_gone_at_the_end_is_a_failure_with_its_role(mongo_auth):
    """The server says no: nothing has happened, and the report says what lacks."""
    with connected(mongo_auth.uri_of("root")) as client:
        roles = [{"role": "dbAdmin", "db": "shop"}]
        client.admin.command("createUser", "hired", pwd="pw-of-hired", roles=roles)
        try:
            async with attached(mongo_auth.server.uri_for("shop", "hired", "pw-of-hired")) as db:
                run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
                client.admin.command("updateUser", "hired", roles=[{"role": "read", "db": "shop"}])
                effect = await run.perform(db)
        finally:
            client.admin.command("dropUser", "hired")
    assert effect.state == "failed"
    assert effect.error_code == "13"
    assert "createIndexes on shop" in effect.summary
    assert "cust_1" not in indexes(mongo_auth.uri_of("root"))


# -- drop_index


@on_loop
async def test_a_dropped_index_comes_back_by_its_undo(small):
    """The card keeps the whole index; dropping is read back."""
    command(small, "createIndexes", "orders",
            indexes=[{"key": {"cust": 1, "at": -1}, "name": "x", "partialFilterExpression": {"status": "new"}}])  # fmt: skip
    before = indexes(small)
    with connected(small) as client:
        list(client.get_default_database().orders.find({"cust": 1, "status": "new"}).hint("x"))
    with relayed(small) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(db, "drop_index", collection="orders", index="x")
            run = Run("drop_index", plan)
            effect = await run.perform(db)
            probed = await run.probe(db)
        assert_sent_as_shown(wire, plan)
    assert effect.state == probed.state == "succeeded"
    assert plan.risk is Risk.HIGH
    assert "used 1 time since" in plan.reasons[0]
    assert any("Hiding it first" in caution for caution in plan.cautions)
    assert "full build" in plan.undo_note
    assert "x" not in indexes(small)
    run_text(small, plan.undo)
    assert indexes(small) == before


@on_loop
async def test_hiding_is_offered_done_and_taken_back(small):
    """Hidden, the index is there and no query uses it; unhide is a request too."""
    with relayed(small) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(db, "drop_index", collection="orders", index="status_1", hide=True)
            effect = await Run("drop_index", plan).perform(db)
            assert_sent_as_shown(wire, plan)
            assert indexes(small)["status_1"]["hidden"] is True
            with pytest.raises(PreconditionFailed, match="hidden already"):
                await planned(db, "drop_index", collection="orders", index="status_1", hide=True)
            back = await planned(db, "drop_index", collection="orders", index="status_1", unhide=True)
            sent = statements.read(back.statements[0])[1]
            assert sent.pop("collectionUUID")
            assert sent == statements.read(plan.undo)[1]
            shown = await Run("drop_index", back).perform(db)
    assert plan.risk is Risk.MEDIUM
    assert effect.state == shown.state == "succeeded"
    assert effect.suggestions[0].tool == "mongodb.drop_index"
    assert "hidden" not in indexes(small)["status_1"]


@pytest.mark.parametrize(
    ("index", "arguments", "error", "match"),
    [
        ("_id_", {}, PreconditionFailed, "error 72"),
        ("_id_", {"hide": True}, PreconditionFailed, "_id"),
        ("*", {}, PreconditionFailed, "Every index has its own request"),
        ("statsu_1", {}, InvalidArguments, "status_1"),
        ("status_1", {"hide": True, "unhide": True}, InvalidArguments, "not both"),
        ("status_1", {"unhide": True}, PreconditionFailed, "not hidden"),
    ],
)
@on_loop
async def test_what_is_not_dropped_is_refused(small, index, arguments, error, match):
    """The index on _id, all at once, and names that are not there."""
    async with attached(small) as db:
        with pytest.raises(error, match=match):
            await planned(db, "drop_index", collection="orders", index=index, **arguments)
    assert set(indexes(small)) == {"_id_", "status_1"}


@on_loop
async def test_dropping_a_unique_index_is_critical(small):
    """Equal values are accepted from then on."""
    command(small, "createIndexes", "orders", indexes=[{"key": {"sku": 1}, "name": "sku_1", "unique": True}])
    async with attached(small) as db:
        plan = await planned(db, "drop_index", collection="orders", index="sku_1")
    assert plan.risk is Risk.CRITICAL
    assert "unique" in plan.reasons[0]


@on_loop
async def test_an_index_that_others_dropped_meanwhile_is_gone_all_the_same(small):
    """What was wanted is there, and the report says that it was not we."""
    async with attached(small) as db:
        run = Run("drop_index", await planned(db, "drop_index", collection="orders", index="status_1"))
        command(small, "dropIndexes", "orders", index="status_1")
        effect = await run.perform(db)
    assert effect.state == "succeeded"
    assert "by somebody else" in effect.summary


@on_loop
async def test_a_drop_that_lost_its_connection_is_unknown_until_it_is_probed(small):
    """Cut after the server has done it."""
    with relayed(small) as (uri, wire):
        async with attached(uri) as db:
            run = Run("drop_index", await planned(db, "drop_index", collection="orders", index="status_1"))
            wire.cut = "dropIndexes"
            with pytest.raises(OutcomeUnknown):
                await run.perform(db)
            wire.cut = ""
            assert (await run.probe(db)).state == "succeeded"


@on_loop
async def test_a_drop_that_never_ran_is_found_to_have_failed(small):
    """The server cuts the connection before it runs the command; the index is still there."""
    fail = {"failCommands": ["dropIndexes"], "closeConnection": True}
    async with attached(small) as db:
        run = Run("drop_index", await planned(db, "drop_index", collection="orders", index="status_1"))
        with connected(small) as client:
            client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fail)
        with pytest.raises(OutcomeUnknown):
            await run.perform(db)
        assert (await run.probe(db)).state == "failed"
    assert "status_1" in indexes(small)


@on_loop
async def test_a_drop_that_cannot_get_its_lock_gives_up(small):
    """Within the time that stands in its command; nothing has changed."""
    fail = {"failCommands": ["dropIndexes"], "errorCode": 50}
    async with attached(small) as db:
        run = Run("drop_index", await planned(db, "drop_index", collection="orders", index="status_1"))
        with connected(small) as client:
            client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fail)
        effect = await run.perform(db)
    assert effect.state == "failed"
    assert effect.error_code == "50"
    assert "time limit" in effect.summary
    assert "maxTimeMS" in run.plan.statements[0]


@on_loop
async def test_dropping_an_index_that_is_being_built_aborts_the_build(small):
    """The card says so; nothing is left, and another request for an index waits until then."""
    with hung_build(small, {"cust": 1}) as name:
        async with attached(small) as db:
            with pytest.raises(PreconditionFailed, match="being built now: hung"):
                await planned(db, "create_index", collection="orders", fields="sku")
            plan = await planned(db, "drop_index", collection="orders", index=name)
            task = Run("drop_index", plan).start(db)
            await asyncio.sleep(0.2)
            with connected(small) as client:
                client.admin.command("configureFailPoint", FAILPOINT, mode="off")
            effect = await task
    assert "aborts a build" in plan.reasons[0]
    assert plan.undo == ""
    assert effect.state == "succeeded", effect
    assert set(indexes(small)) == {"_id_", "status_1"}


# -- replica sets


@on_loop
async def test_on_a_set_the_quorum_is_shown_and_a_fallen_member_raises_the_risk(mongo_rs3):
    """A build that waits for a member that is down would never end."""
    with new_database(mongo_rs3) as uri:
        seed(uri)
        async with attached(uri) as db:
            fine = await planned(db, "create_index", collection="orders", fields="cust")
            assert '"commitQuorum": "votingMembers"' in fine.statements[0]
            assert (await Run("create_index", fine).perform(db)).state == "succeeded"
            used = await planned(db, "drop_index", collection="orders", index="cust_1")
            assert sum(caution.count("127.0.0.1:") for caution in used.cautions if "Uses by member" in caution) == 3
            fallen = _secondary(mongo_rs3)
            with frozen(fallen):
                await asyncio.to_thread(eventually, lambda: _unreachable(uri, fallen.address))
                plan = await planned(db, "create_index", collection="orders", fields="sku")
                drop = await planned(db, "drop_index", collection="orders", index="cust_1")
            await asyncio.to_thread(eventually, lambda: not _unreachable(uri, fallen.address))
    assert fine.risk is Risk.MEDIUM
    assert plan.risk is Risk.HIGH
    assert f"{fallen.address} cannot be reached" in plan.reasons
    assert any("does not end before" in caution for caution in plan.cautions)
    assert any(f"{fallen.address} could not be asked" in caution for caution in drop.cautions)
    assert "not known whether queries use it" in drop.reasons[0]


def _secondary(server):
    with server.client() as client:
        primary = client.admin.command("hello")["primary"]
    return next(each for each in server.members if each.address != primary)


def _unreachable(uri, address):
    with connected(uri) as client:
        rows = client.admin.command("replSetGetStatus")["members"]
    return next(not row["health"] for row in rows if row["name"] == address)


@on_loop
async def test_a_member_that_is_not_the_primary_is_told(mongo_rs3):
    """Attached to a secondary alone, a change is refused with what to attach."""
    with new_database(mongo_rs3) as uri:
        seed(uri)
        name = uri.rpartition("/")[2].partition("?")[0]
        secondary = mongo_rs3.uri_for(name, member=_secondary(mongo_rs3))
        async with attached(secondary) as db:
            await asyncio.to_thread(eventually, lambda: name in _databases(secondary))
            with pytest.raises(PreconditionFailed, match="not the primary") as refusal:
                await planned(db, "create_index", collection="orders", fields="cust")
    assert "replicaSet" in refusal.value.hint


def _databases(uri):
    with connected(uri) as client:
        return client.list_database_names()


@on_loop
async def test_reading_from_secondaries_does_not_send_a_change_there(mongo_rs3):
    """With readPreference=secondary the change goes to the primary, and is read back there."""
    with new_database(mongo_rs3) as uri:
        seed(uri)
        async with attached(f"{uri}&readPreference=secondary") as db:
            await asyncio.to_thread(eventually, lambda: "orders" in collections(f"{uri}&readPreference=secondary"))
            run = Run("create_index", await planned(db, "create_index", collection="orders", fields="cust"))
            assert (await run.perform(db)).state == "succeeded"
            assert (await run.probe(db)).state == "succeeded"
        assert "cust_1" in indexes(uri)


@on_loop
async def test_an_open_transaction_is_named_on_the_card(mongo_rs1):
    """The lock of a drop has to wait for it."""
    with new_database(mongo_rs1) as uri:
        seed(uri)
        with connected(uri) as client, client.start_session() as session:
            session.start_transaction()
            client.get_default_database().orders.insert_one({"_id": -1}, session=session)
            async with attached(uri) as db:
                plan = await planned(db, "drop_index", collection="orders", index="status_1")
            session.abort_transaction()
    assert len(plan.waits) == 1
    assert plan.waits[0].startswith("a transaction of checkout, open for")


def test_the_key_of_an_index_is_written_as_a_person_writes_it():
    """Numbers whole, whatever type the server stored them with."""
    assert names.written_key([("a", 1.0), ("b", "text")]) == "{a: 1, b: text}"


# -- through the gate


def approved(ops, tool, **arguments):
    call = ops.run(tool, **arguments)
    assert call.status == "waiting", call.summary
    ops.approve(call.record.approval, reason="measured, agreed with the owners")
    return call.wait(30)


def test_through_the_gate_an_index_is_built_hidden_and_dropped(small, store_url):
    """Asked, approved, done and read back, each with its request."""
    with OpsAgent(store_url) as ops:
        ops.attach("mongodb", "shop", environment="development", dsn=small)
        assert approved(ops, "create_index", collection="orders", fields="cust").status == "succeeded"
        assert approved(ops, "drop_index", collection="orders", index="cust_1", hide=True).status == "succeeded"
        assert indexes(small)["cust_1"]["hidden"] is True
        assert approved(ops, "drop_index", collection="orders", index="cust_1").status == "succeeded"
    assert set(indexes(small)) == {"_id_", "status_1"}


def test_through_the_gate_another_collection_of_the_name_makes_the_approval_stale(small, store_url):
    """It is looked at again at the claim; nothing is sent."""
    with OpsAgent(store_url) as ops:
        ops.attach("mongodb", "shop", environment="development", dsn=small)
        call = ops.run("create_index", collection="orders", fields="cust")
        with connected(small) as client:
            client.get_default_database().orders.rename("kept")
            client.get_default_database().orders.insert_one({"_id": 1})
        ops.approve(call.record.approval)
        call.wait(30)
        assert ops.approval(call.record.approval).state == "stale"
    assert "collection_uuid" in call.summary
    assert set(indexes(small)) == {"_id_"}
