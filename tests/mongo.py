"""Real MongoDB servers for the tests: a pytest plugin, loaded by ``pytest_plugins = ["tests.mongo"]``.

Servers start when a test first asks for one and stop with the session. Each comes from :mod:`opsagent_jupyter.demo`:
loopback only, gone even after a `kill -9` of pytest.

================  ========  ==========================================================================================
fixture           scope     value
================  ========  ==========================================================================================
``mongo``         session   ``EmbeddedMongod``: a standalone without authentication, test commands on
``mongo_auth``    session   ``Guarded``: a standalone with authentication; ``.uri_of("reader")`` and other accounts
``mongo_rs1``     session   ``EmbeddedMongod``: a replica set of one member
``mongo_rs3``     session   ``EmbeddedMongod``: a replica set of three; ``.members[n].freeze()`` fells one
``shop``          function  URI of an empty database on ``mongo``, dropped afterwards
``orders``        function  URI of a database on ``mongo`` with the collection ``orders``: 50 000 documents
================  ========  ==========================================================================================

Accounts of ``mongo_auth``, all on the database ``shop``: ``reader`` (read, clusterMonitor), ``narrow`` (read only),
``executor`` (dbAdmin, clusterMonitor, hostManager), ``usermin`` (userAdmin), and ``root``.

``slow_op(uri)``, ``lock_wait(server)`` and ``hung_build(uri, key)`` are context managers around work that does not end
by itself. ``OPSAGENT_TEST_MONGOD`` (path of a mongod) is used instead of the wheel's. A missing mongod fails the test: it
is never skipped.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from opsagent_jupyter.demo.mongod import EmbeddedMongod, Member, Mongod, chosen_mongod, find_mongod
from opsagent_jupyter.errors import DemoError

T = TypeVar("T")

#: Seconds that a test waits for something that happens in another process.
PATIENCE = 20.0
ORDERS = 50_000

ACCOUNTS: Mapping[str, list[dict[str, str]]] = {
    "reader": [{"role": "clusterMonitor", "db": "admin"}, {"role": "read", "db": "shop"}],
    "narrow": [{"role": "read", "db": "shop"}],
    "executor": [
        {"role": "dbAdmin", "db": "shop"},
        {"role": "clusterMonitor", "db": "admin"},
        {"role": "hostManager", "db": "admin"},
    ],
    "usermin": [{"role": "userAdmin", "db": "shop"}],
}


def required_mongod() -> Mongod:
    """The mongod of the tests; a test that has none fails."""
    try:
        named = os.environ.get("OPSAGENT_TEST_MONGOD")
        return chosen_mongod(Path(named), "OPSAGENT_TEST_MONGOD") if named else find_mongod()
    except DemoError as error:
        pytest.fail(str(error), pytrace=False)


class Guarded:
    """A standalone with authentication and one account for each set of rights."""

    def __init__(self, server: EmbeddedMongod) -> None:
        self.server = server
        self.passwords = {name: secrets.token_urlsafe(12) for name in ACCOUNTS}
        with server.client() as client:
            client.shop.orders.insert_many([{"_id": n, "cust": n % 97, "status": "new"} for n in range(500)])
            client.other.things.insert_one({"_id": 1})
            for name, roles in ACCOUNTS.items():
                client.admin.command("createUser", name, pwd=self.passwords[name], roles=roles)

    def uri_of(self, name: str, database: str = "shop") -> str:
        """The connection string of an account; it holds the password."""
        if name == "root":
            return self.server.uri_for(database)
        return self.server.uri_for(database, name, self.passwords[name])


@pytest.fixture(scope="session")
def mongo() -> Iterator[EmbeddedMongod]:
    with EmbeddedMongod(auth=False, mongod=required_mongod(), parameters={"enableTestCommands": 1}) as server:
        yield server


@pytest.fixture(scope="session")
def mongo_auth() -> Iterator[Guarded]:
    with EmbeddedMongod(auth=True, mongod=required_mongod()) as server:
        yield Guarded(server)


@pytest.fixture(scope="session")
def mongo_rs1() -> Iterator[EmbeddedMongod]:
    with EmbeddedMongod(
        members=1, auth=False, mongod=required_mongod(), parameters={"enableTestCommands": 1}
    ) as server:
        yield server


@pytest.fixture(scope="session")
def mongo_rs3() -> Iterator[EmbeddedMongod]:
    with EmbeddedMongod(
        members=3, auth=False, mongod=required_mongod(), parameters={"enableTestCommands": 1}
    ) as server:
        yield server


@contextmanager
def new_database(server: EmbeddedMongod) -> Iterator[str]:
    """A name of its own for a database, by URI; it is dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    try:
        yield server.uri_for(name)
    finally:
        with server.client() as client:
            client.drop_database(name)


@contextmanager
def connected(uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """Somebody else's client, by URI; ``client.get_default_database()`` is the database of the URI."""
    with MongoClient(uri, appname="checkout", serverSelectionTimeoutMS=20_000) as client:
        yield client


def fill_orders(uri: str, count: int = ORDERS) -> None:
    """The collection orders: cust 0 to 96, status, amt, ts, and 120 bytes of padding."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {
            "_id": n,
            "cust": n % 97,
            "status": ("new", "paid", "sent")[n % 3],
            "amt": n % 1000,
            "ts": start + timedelta(minutes=n),
            "pad": "x" * 120,
        }
        for n in range(count)
    ]
    with connected(uri) as client:
        client.get_default_database().orders.insert_many(rows, ordered=False)


@pytest.fixture
def shop(mongo: EmbeddedMongod) -> Iterator[str]:
    with new_database(mongo) as uri:
        yield uri


@pytest.fixture
def orders(mongo: EmbeddedMongod) -> Iterator[str]:
    with new_database(mongo) as uri:
        fill_orders(uri)
        yield uri


# -- other people's work


@contextmanager
def background(work: Callable[[], Any]) -> Iterator[threading.Thread]:
    """Work of another client that is ended by somebody; what it raises then is its own matter."""

    def run() -> None:
        with suppress(PyMongoError):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the background work did not end"


def running(client: MongoClient[dict[str, Any]], match: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Operations of everybody that fit, as $currentOp shows them."""
    look = [{"$currentOp": {"allUsers": True, "idleConnections": False}}, {"$match": dict(match)}]
    return list(client.admin.aggregate(look))


def eventually(look: Callable[[], T], seconds: float = PATIENCE) -> T:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def kill_commented(client: MongoClient[dict[str, Any]], comment: str) -> None:
    for each in running(client, {"command.comment": comment}):
        client.admin.command("killOp", op=each["opid"])


@contextmanager
def slow_op(uri: str, comment: str = "nightly report") -> Iterator[dict[str, Any]]:
    """An aggregate with one opid that sleeps 50 ms a document; its ``$currentOp`` entry. It is killed at the end."""
    sleep = {"$function": {"body": "function(){sleep(50);return 1}", "args": [], "lang": "js"}}

    def work() -> None:
        with connected(uri) as client:
            list(client.get_default_database().orders.aggregate([{"$project": {"x": sleep}}], comment=comment))

    with connected(uri) as client, background(work):
        try:
            yield eventually(lambda: running(client, {"command.comment": comment}))[0]
        finally:
            kill_commented(client, comment)


@contextmanager
def lock_wait(uri: str, comment: str = "waiting write") -> Iterator[dict[str, Any]]:
    """An insert that waits while the server is locked by fsync; its ``$currentOp`` entry."""

    def work() -> None:
        with connected(uri) as client:
            client.get_default_database().command("insert", "waits", documents=[{"a": 1}], comment=comment)

    with connected(uri) as client:
        client.admin.command("fsync", lock=True)
        try:
            with background(work):
                try:
                    yield eventually(lambda: running(client, {"command.comment": comment, "waitingForLock": True}))[0]
                finally:
                    client.admin.command("fsyncUnlock")
        except BaseException:
            with suppress(PyMongoError):
                client.admin.command("fsyncUnlock")
            raise


@contextmanager
def hung_build(uri: str, key: Mapping[str, int], name: str = "hung") -> Iterator[str]:
    """An index build on ``orders`` that hangs after its start, by a failpoint of the test server; the index's name."""

    def work() -> None:
        with connected(uri) as client:
            spec = {"key": dict(key), "name": name}
            client.get_default_database().command("createIndexes", "orders", indexes=[spec], comment="hung build")

    with connected(uri) as client:
        client.admin.command("configureFailPoint", "hangAfterStartingIndexBuild", mode="alwaysOn")
        with background(work):
            try:
                eventually(lambda: running(client, {"command.comment": "hung build"}))
                eventually(
                    lambda: [i for i in client.get_default_database().orders.list_indexes() if i["name"] == name]
                )
                yield name
            finally:
                client.admin.command("configureFailPoint", "hangAfterStartingIndexBuild", mode="off")


def is_stopped(member: Member) -> bool:
    """Whether every thread of the process stands still; a signal reaches them one after the other."""
    states = [file.read_text() for file in Path(f"/proc/{member.process.pid}/task").glob("*/stat")]
    return all(state.rpartition(")")[2].split()[0] in {"T", "t"} for state in states)


@contextmanager
def frozen(member: Member) -> Iterator[Member]:
    """A member that answers nobody for a while."""
    member.freeze()
    try:
        eventually(lambda: is_stopped(member))
        yield member
    finally:
        member.thaw()
