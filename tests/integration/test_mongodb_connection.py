"""A connection says who it is, has a time limit for each read, cancels on the server, and stays usable."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pymongo import MongoClient

from opsagent_jupyter.demo.mongod import EmbeddedMongod
from opsagent_jupyter.errors import (
    AuthenticationFailed,
    Cancelled,
    DeadlineExceeded,
    InvalidArguments,
    MalformedDsn,
    MissingRight,
    PreconditionFailed,
    TargetUnreachable,
    TlsRefused,
)
from opsagent_jupyter.plugin import Connection, Limits
from opsagent_jupyter.plugins.mongodb import connection as links
from opsagent_jupyter.plugins.mongodb import names, plugin
from tests.integration.mongodb_stage import attached, on_loop, on_loop_losing_sockets, until_running
from tests.mongo import eventually, fill_orders, frozen, kill_commented, new_database, required_mongod, running

SECRET = "s3cr3t/p@ss word"
ENCODED = "s3cr3t%2Fp%40ss%20word"


def slow_read(documents: int = 0) -> dict:
    """A command that the server works on for long: 100 ms a document, looking after each whether it was killed."""
    return {"count": "orders", "query": {"$where": "sleep(100) || true"}, "limit": documents}


# -- connection strings


def test_importing_the_plugin_loads_no_driver():
    """The toolbox with its argument schemas works without pymongo."""
    program = (
        "import sys; sys.modules['pymongo'] = None; sys.modules['bson'] = None\n"
        "from opsagent_jupyter.plugins.mongodb import plugin\n"
        "print(len([tool.schema() for tool in plugin.toolbox.tools.values()]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 9


def test_a_missing_driver_is_named_with_its_remedy():
    """Without pymongo the first use says which extra to install."""
    program = (
        "import sys; sys.modules['pymongo'] = None\n"
        "from opsagent_jupyter.plugins.mongodb import plugin\n"
        "try: plugin.describe('mongodb://x')\n"
        "except Exception as error: print(error.code, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("config.missing_extra")
    assert "opsagent_jupyter[mongodb]" in done.stdout


def test_a_connection_string_is_described_without_its_secrets():
    """Hosts, database, user and what chooses the members are shown; the password is not."""
    described = plugin.describe(f"mongodb://ann:{ENCODED}@a.example:27017,b.example:27018/shop?replicaSet=rs0&tls=true")
    assert described == {
        "host": "a.example:27017,b.example:27018",
        "port": "",
        "database": "shop",
        "user": "ann",
        "replicaSet": "rs0",
        "tls": "true",
    }


def test_a_seed_list_is_described_without_looking_it_up():
    """mongodb+srv:// is taken apart by its text alone: nothing is asked of a name server."""
    described = plugin.describe(f"mongodb+srv://ann:{ENCODED}@shop.example.invalid/orders?srvServiceName=db")
    assert described["host"] == "shop.example.invalid"
    assert described["srv"] == "true"


@pytest.mark.parametrize(
    ("uri", "secrets"),
    [
        (f"mongodb://ann:{ENCODED}@h/shop", {SECRET, ENCODED}),
        (f"mongodb+srv://ann:{ENCODED}@c.example.net/shop", {SECRET, ENCODED}),
        ("mongodb://ann:hunter2@x@h/shop", {"hunter2@x"}),
        ("mongodb://ann:hunter2%zz@h/shop", {"hunter2%zz"}),
        ("mongodb://ann:hun/ter2@h/shop", {"hun/ter2"}),
        ("mongodb://h/?tlsCertificateKeyFilePassword=key%2Fpass", {"key/pass", "key%2Fpass"}),
        ("mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:tok%2Fen", {"tok/en"}),
    ],
)
def test_every_form_of_a_secret_is_struck_out(uri, secrets):
    """Redactions hold each secret as typed and as decoded, also of a string that cannot be read."""
    assert secrets <= set(plugin.redactions(uri))


@pytest.mark.parametrize(
    "uri",
    [
        "",
        SECRET,
        f"postgresql://ann:{ENCODED}@h/shop",
        f"mongodb://ann:{SECRET}@h/shop",
        f"mongodb://ann:{ENCODED}%zz@h/shop",
        f"mongodb://ann:{ENCODED}@/shop",
        f"mongodb://ann:{ENCODED}@h:99999/shop",
        f"mongodb://ann:{ENCODED}@h:abc/shop",
        f"mongodb://ann:{ENCODED}@h/shop?tls=maybe",
        f"mongodb://ann:{ENCODED}@h/shop?nonsense=1",
        f"mongodb://ann:{ENCODED}@h/sh$op",
        f"mongodb+srv://ann:{ENCODED}@a.example.net,b.example.net/shop",
        f"mongodb+srv://ann:{ENCODED}@a.example.net:27017/shop",
        f"mongodb+srv://ann:{ENCODED}@localhost/shop",
    ],
)
def test_a_malformed_string_is_refused_without_repeating_it(uri):
    """The message says what to write and holds no part of the secret."""
    with pytest.raises(MalformedDsn) as refusal:
        plugin.describe(uri)
    assert "s3cr3t" not in str(refusal.value)
    assert "mongodb" in refusal.value.hint


def test_one_member_of_a_set_is_reached_with_the_same_login_and_tls():
    """The string for a member keeps login, TLS and authSource, and leaves out what only a whole set understands."""
    set_uri = f"mongodb://ann:{ENCODED}@a:1,b:2/shop?replicaSet=rs0&authSource=users&tls=true&readPreference=secondary"
    db = links.Database("stage", set_uri, Limits())
    assert db._directed("b:2") == f"mongodb://ann:{ENCODED}@b:2/shop?authsource=users&tls=true"
    seeded = links.Database("stage", f"mongodb+srv://ann:{ENCODED}@c.example.net/shop", Limits())
    assert seeded._directed("b:2") == f"mongodb://ann:{ENCODED}@b:2/shop?tls=true&authsource=admin"


# -- connecting


@on_loop_losing_sockets
async def test_a_wrong_password_is_told_from_an_unreachable_server(mongo_auth):
    """Each reason has its own error and hint, and none repeats the password."""
    server = mongo_auth.server
    with pytest.raises(AuthenticationFailed) as refusal:
        await plugin.connect("x", server.uri_for("shop", "reader", SECRET), Limits())
    assert "s3cr3t" not in str(refusal.value)
    assert "authSource" in refusal.value.hint
    with pytest.raises(AuthenticationFailed):
        await plugin.connect(
            "x", server.uri_for("shop", "reader", mongo_auth.passwords["reader"], source="shop"), Limits()
        )
    with pytest.raises(TargetUnreachable) as silence:
        await plugin.connect("x", f"mongodb://a:{ENCODED}@127.0.0.1:1/?serverSelectionTimeoutMS=300", Limits())
    assert "s3cr3t" not in str(silence.value)
    with pytest.raises(TargetUnreachable):
        await plugin.connect("x", "mongodb://no-such-host.invalid/?serverSelectionTimeoutMS=300", Limits())


@on_loop_losing_sockets
async def test_a_server_that_never_answers_is_unreachable():
    """A port that accepts and says nothing ends in an error, not in a hang."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TargetUnreachable):
            await plugin.connect("x", f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=500", Limits())


@on_loop_losing_sockets
async def test_a_server_without_tls_refuses_tls(mongo):
    """TLS that cannot be had is its own error, with what to look at."""
    with pytest.raises(TlsRefused) as refusal:
        await plugin.connect("x", mongo.uri_for("shop") + "&tls=true&serverSelectionTimeoutMS=500", Limits())
    assert "tlsCAFile" in refusal.value.hint


@on_loop_losing_sockets
async def test_a_set_of_another_name_is_named_as_the_mistake(mongo_rs1):
    """A wrong replicaSet in the connection string is told from a dead server."""
    uri = f"mongodb://{mongo_rs1.members[0].address}/?replicaSet=other&serverSelectionTimeoutMS=500"
    with pytest.raises(TargetUnreachable, match="replica set"):
        await plugin.connect("x", uri, Limits())


@on_loop
async def test_a_connection_shows_nothing_of_its_secret(mongo_auth):
    """No repr of the connection or its clients holds the password."""
    async with attached(mongo_auth.uri_of("reader")) as db:
        await db.health()
        assert mongo_auth.passwords["reader"] not in repr(db)
        assert mongo_auth.passwords["reader"] not in repr(db.client())
        assert isinstance(db, Connection)


# -- who and how


@on_loop
async def test_the_identity_tells_deployments_databases_and_users_apart(mongo, mongo_auth, mongo_rs1, mongo_rs3):
    """Each deployment has an id of its own; database and user are part of it."""
    uris = [mongo.uri_for("shop"), mongo_auth.uri_of("reader"), mongo_rs1.uri_for("shop"), mongo_rs3.uri_for("shop")]
    found = []
    for uri in uris:
        async with attached(uri) as db:
            found.append(await db.identity())
    assert len({each["deployment_id"] for each in found} - {""}) == 4
    assert [each["topology"] for each in found] == ["standalone", "standalone", "replica set", "replica set"]
    assert found[1]["user"] == "reader@admin"
    assert found[3]["hosts"] == sorted(member.address for member in mongo_rs3.members)
    assert {each["database"] for each in found} == {"shop"}
    assert {each["replica_set"] for each in found[2:]} == {"rs0"}


@on_loop
async def test_the_identity_is_the_same_from_every_member_and_connection(mongo_rs3):
    """Whoever answers, an approval given for the set stays bound to the set."""
    async with attached(mongo_rs3.uri_for("shop")) as db:
        whole = await db.identity()
    for member in mongo_rs3.members:
        async with attached(mongo_rs3.uri_for("shop", member=member)) as db:
            assert await db.identity() == whole


@on_loop
async def test_without_the_right_to_the_id_the_hosts_stand_alone(mongo_auth):
    """A user with read alone has an identity that still says where the database is."""
    async with attached(mongo_auth.uri_of("narrow")) as db:
        identity = await db.identity()
    assert identity["deployment_id"] == ""
    assert identity["hosts"] == [mongo_auth.server.members[0].address]


@on_loop
async def test_health_names_rights_that_are_too_many_and_rights_that_are_missing(mongo, mongo_auth):
    """Root is warned of, a reader is not, a user without clusterMonitor is told, and so is a server without logins."""
    warned = {}
    for account in ("root", "reader", "narrow", "usermin"):
        async with attached(mongo_auth.uri_of(account)) as db:
            health = await db.health()
            assert health.ok
            assert health.version == f"MongoDB {mongo_auth.server.version}"
            warned[account] = " ".join(health.warnings)
    async with attached(mongo.uri_for("shop")) as db:
        assert "without authentication" in " ".join((await db.health()).warnings)
    assert "may do everything (root)" in warned["root"]
    assert warned["reader"] == ""
    assert "grant it clusterMonitor" in warned["narrow"]
    assert "grant itself any role" in warned["usermin"]


@on_loop
async def test_the_health_of_a_closed_connection_is_an_answer(mongo):
    """Health reports trouble, it does not raise it."""
    db = await plugin.connect("stage", mongo.uri, Limits())
    await db.close()
    health = await db.health()
    assert not health.ok
    assert health.error_code == "execution.unreachable"


@on_loop
async def test_health_says_which_member_it_talks_to(mongo_rs3):
    """A secondary says that it is one, and that changes will be refused there."""
    with mongo_rs3.client() as client:
        primary = client.admin.command("hello")["primary"]
    secondary = next(each for each in mongo_rs3.members if each.address != primary)
    async with attached(mongo_rs3.uri_for("shop", member=secondary)) as db:
        health = await db.health()
    assert "secondary" in health.summary
    assert any("not its primary" in warning for warning in health.warnings)


@on_loop
async def test_the_catalog_knows_collections_fields_and_indexes(shop):
    """Names that exist, each as it is typed, with the fields that a request may mean."""
    with MongoClient(shop) as client:
        database = client.get_default_database()
        database.orders.insert_one({"cust": 1, "ts": 2, "note": {"text": "x"}})
        database.orders.create_index([("cust", 1), ("ts", -1)], name="cust_ts")
        database.create_collection("big_spenders", viewOn="orders", pipeline=[])
    async with attached(shop) as db:
        catalog = await db.catalog()
    assert {"orders", "big_spenders"} <= set(catalog.names["collection"])
    assert "cust_ts" in catalog.names["index"]
    assert db.server.database in catalog.names["database"]
    assert {"cust", "ts", "note", "_id"} <= set(catalog.columns["orders"])


# -- names


@on_loop
async def test_a_typo_names_its_neighbours_and_makes_nothing(orders):
    """A collection that does not exist is refused with what is near, and is not there afterwards."""
    async with attached(orders) as db:
        with pytest.raises(InvalidArguments, match="did you mean orders"):
            await names.collection(db, "ordesr")
        with pytest.raises(InvalidArguments, match="no database"):
            await names.collection(db, "orders", "there_is_none")
        found = await names.collection(db, "orders")
        assert found == await names.collection(db, f"{db.server.database}.orders")
    with MongoClient(orders) as client:
        assert client.get_default_database().list_collection_names() == ["orders"]
        assert "there_is_none" not in client.list_database_names()
    assert found.uuid


@on_loop
async def test_a_collection_whose_name_has_dots_is_found_as_it_is_written(shop):
    """``orders.items`` is one collection; the part before the dot is a database only if there is one of that name."""
    with MongoClient(shop) as client:
        client.get_default_database()["orders.items"].insert_one({})
    async with attached(shop) as db:
        found = await names.collection(db, "orders.items")
        assert (found.database, found.name) == (db.server.database, "orders.items")


@on_loop
async def test_a_view_is_refused_where_documents_are_needed(shop):
    """The refusal names the collection behind the view."""
    with MongoClient(shop) as client:
        client.get_default_database().orders.insert_one({})
        client.get_default_database().create_collection("recent", viewOn="orders", pipeline=[])
    async with attached(shop) as db:
        assert (await names.collection(db, "recent")).is_view
        with pytest.raises(InvalidArguments, match="view of orders"):
            await names.collection(db, "recent", views=False)


@on_loop
async def test_a_collection_made_anew_is_another_one(shop):
    """The uuid tells a collection from its successor of the same name."""
    async with attached(shop) as db:
        found = []
        for _ in range(2):
            with MongoClient(shop) as client:
                client.get_default_database().orders.drop()
                client.get_default_database().orders.insert_one({})
            found.append((await names.collection(db, "orders")).uuid)
    assert found[0] != found[1]


@pytest.mark.parametrize("name", ["system.profile", "odd$name"])
def test_what_belongs_to_the_server_is_not_changed(name):
    """System collections, names with a dollar sign, and the server's own databases are refused by changing tools."""
    with pytest.raises(PreconditionFailed):
        names.check_changeable(names.Collection("shop", name, "collection", "", {}))
    with pytest.raises(PreconditionFailed):
        names.check_changeable(names.Collection("admin", "orders", "collection", "", {}))


# -- rights


@on_loop
async def test_a_refusal_names_the_missing_action_and_the_role_that_has_it(mongo_auth):
    """The server's own refusal repeats the whole command; ours names the action, the place and the role."""
    async with attached(mongo_auth.uri_of("narrow")) as db:
        with pytest.raises(MissingRight) as refusal:
            await db.command("admin", {"serverStatus": 1})
        with pytest.raises(MissingRight) as written:
            await db.command(
                "shop", {"explain": {"update": "orders", "updates": [{"q": {"k": SECRET}, "u": {"$set": {}}}]}}
            )
    assert refusal.value.facts["right"] == "serverStatus"
    assert "clusterMonitor" in refusal.value.hint
    assert "s3cr3t" not in str(written.value)


# -- deadlines and cancelling


@on_loop
async def test_a_read_past_its_limit_is_ended_by_the_server(orders):
    """The time limit goes along with the command, and the connection is usable afterwards."""
    async with attached(orders) as db:
        with pytest.raises(DeadlineExceeded) as refusal:
            await db.command(db.server.database, slow_read(), seconds=0.3)
        assert (await db.command("admin", {"ping": 1}))["ok"] == 1
    assert "get_current_ops" in refusal.value.hint


@on_loop
async def test_cancelling_the_task_kills_the_operation_on_the_server(orders):
    """After the cancel nothing of ours runs, and the same connection answers at once."""
    async with attached(orders) as db:
        task = asyncio.ensure_future(db.command(db.server.database, slow_read(), seconds=60))
        found = await until_running(db, "sleep(100)")
        assert str(found["command"]["comment"]).startswith("opsagent ")
        assert found["command"]["maxTimeMS"] == 60_000
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with MongoClient(orders) as client:
            assert running(client, {"command.comment": found["command"]["comment"]}) == []
        assert (await db.command("admin", {"ping": 1}))["ok"] == 1


@on_loop
async def test_cancelling_reaches_an_operation_on_a_secondary(mongo_rs3):
    """With a read preference the operation is found on the member where it runs."""
    with new_database(mongo_rs3) as uri:
        fill_orders(uri, 1_000)
        with MongoClient(uri, w=3) as client:
            client.get_default_database().marks.insert_one({"there": True})
        async with attached(uri + "&readPreference=secondary") as db:
            task = asyncio.ensure_future(db.command(db.server.database, slow_read(), seconds=60))
            found = await until_running_anywhere(mongo_rs3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for member in mongo_rs3.members:
                with mongo_rs3.client(member) as client:
                    assert running(client, {"command.comment": found}) == []


async def until_running_anywhere(server: EmbeddedMongod) -> str:
    """The comment of our slow read, on whichever secondary it runs."""

    def look() -> str:
        for member in server.members:
            with server.client(member) as client:
                for each in running(client, {"command.count": "orders", "secs_running": {"$gte": 0}}):
                    if not client.admin.command("hello")["isWritablePrimary"]:
                        return str(each["command"]["comment"])
        return ""

    return await asyncio.to_thread(eventually, look)


@on_loop
async def test_an_operation_that_somebody_else_killed_is_told_as_cancelled(orders):
    """KillOp by another person is an end that was seen."""
    async with attached(orders) as db:
        task = asyncio.ensure_future(db.command(db.server.database, slow_read(), seconds=60))
        found = await until_running(db, "sleep(100)")
        with MongoClient(orders) as client:
            kill_commented(client, found["command"]["comment"])
        with pytest.raises(Cancelled):
            await task


@on_loop_losing_sockets
async def test_a_server_that_stops_answering_ends_in_an_error(monkeypatch):
    """A frozen server is given up soon after the time limit that it did not keep."""
    monkeypatch.setattr(links, "ANSWER_GRACE", 0.5)
    with EmbeddedMongod(auth=False, mongod=required_mongod()) as server:
        async with attached(server.uri) as db:
            with frozen(server.members[0]), pytest.raises(TargetUnreachable):
                await db.command("admin", {"ping": 1}, seconds=0.5)


# -- changes


@on_loop
async def test_a_cancelled_change_is_killed_and_its_end_is_seen(orders):
    """The ending says that it was cancelled and with which code, and nothing of it runs."""
    async with attached(orders) as db:
        async with db.changing() as change:
            task = asyncio.ensure_future(change.run(db.server.database, slow_read(), seconds=60))
            await until_running(db, "sleep(100)")
            assert await db.operations(change.comment)
            task.cancel()
            ending = await task
        assert ending.cancelled
        assert ending.code == 11601
        assert not ending.lost
        assert await db.operations(change.comment) == []


@on_loop
async def test_a_connection_that_breaks_in_the_middle_of_a_change_leaves_its_end_unseen(shop, mongo):
    """With the connection cut by the server's failpoint the ending is lost, never failed."""
    with mongo.client() as client:
        client.get_database(mongo_database(shop)).orders.insert_one({"a": 1})
        client.admin.command(
            "configureFailPoint",
            "failCommand",
            mode={"times": 1},
            data={"failCommands": ["dropIndexes"], "closeConnection": True},
        )
    async with attached(shop) as db, db.changing() as change:
        ending = await change.run(db.server.database, {"dropIndexes": "orders", "index": "a_1"}, seconds=5)
    assert ending.lost
    assert not ending.clean


@on_loop
async def test_a_change_refused_by_a_secondary_is_no_lost_one(mongo_rs3):
    """The refusal "not primary" is an answer with a code, and the error says what to attach."""
    with mongo_rs3.client() as client:
        primary = client.admin.command("hello")["primary"]
    secondary = next(each for each in mongo_rs3.members if each.address != primary)
    async with attached(mongo_rs3.uri_for("shop", member=secondary)) as db, db.changing() as change:
        spec = [{"key": {"a": 1}, "name": "a_1"}]
        ending = await change.run("shop", {"createIndexes": "orders", "indexes": spec}, seconds=5)
    assert (ending.code, ending.lost) == (10107, False)
    assert isinstance(ending.error, PreconditionFailed)
    assert "replicaSet" in ending.error.hint


@on_loop
async def test_closing_does_not_tear_off_a_running_change(orders):
    """A connection that is dropped while a change runs keeps that change's way until its end is seen."""
    async with attached(orders) as db:
        async with db.changing() as change:
            task = asyncio.ensure_future(change.run(db.server.database, slow_read(5), seconds=60))
            await until_running(db, "sleep(100)")
            await db.close()
            ending = await task
        assert ending.clean
        with pytest.raises(TargetUnreachable):
            await db.command("admin", {"ping": 1})


# -- the embedded server


def test_the_server_is_gone_when_its_owner_is_killed(tmp_path):
    """After kill -9 of the owner no mongod and no directory is left, however many members there are."""
    program = (
        "import sys, time\n"
        "from opsagent_jupyter.demo.mongod import EmbeddedMongod\n"
        "server = EmbeddedMongod(members=3).start()\n"
        "print(server.directory, *[m.process.pid for m in server.members], flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        directory, *pids = owner.stdout.readline().split()
        assert all(Path("/proc", pid).exists() for pid in pids)
        owner.send_signal(signal.SIGKILL)
        owner.wait()

    def gone() -> bool:
        return not any(Path("/proc", pid).exists() for pid in pids) and not Path(directory).exists()

    eventually(gone, 90)  # the watchdog ends one member after the other, and gives each its time


def test_the_server_takes_nobody_without_the_password(mongo_auth):
    """With authentication a client that does not log in is refused."""
    from pymongo.errors import OperationFailure

    member = mongo_auth.server.members[0]
    client = MongoClient("127.0.0.1", member.port, directConnection=True)
    with client, pytest.raises(OperationFailure, match="requires authentication"):
        client.shop.orders.find_one()


def test_the_password_is_in_no_log_and_on_no_command_line(mongo_auth):
    """Neither repr nor log nor process list shows it."""
    server = mongo_auth.server
    password = server._password
    commands = [Path(f"/proc/{m.process.pid}/cmdline").read_text() for m in server.members]
    logs = [file.read_text(errors="replace") for file in server.directory.glob("*.log")]
    assert not [text for text in [repr(server), *commands, *logs] if password in text]
    assert logs


def mongo_database(uri: str) -> str:
    """The database of a connection string."""
    return str(plugin.describe(uri)["database"])
