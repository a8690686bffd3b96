"""A storefront on MongoDB that is as sick as the shop on PostgreSQL, and the demo that runs it."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from opsagent_jupyter.demo.mongod import EmbeddedMongod, Mongod
from opsagent_jupyter.errors import DemoError

if TYPE_CHECKING:
    from typing import Self

    from pymongo import MongoClient
    from pymongo.database import Database

    Client = MongoClient[dict[str, Any]]
    Documents = Iterator[dict[str, Any]]

DATABASE = "storefront"
OPERATOR, APPLICATION = "opsagent_operator", "storefront_app"
#: Documents of the larger collections.
ORDERS, SESSIONS, CUSTOMERS = 60_000, 12_000, 20_000
#: Entries of the one cart that nobody ever emptied, and characters of the note of its only large document.
ENDLESS_CART, LONG_NOTE = 12_000, 2 * 1024**2
#: Milliseconds from which on the profiler keeps a query; the storefront's slow ones take longer.
SLOW_MS = 10
#: Seconds between two rounds of the load, and seconds that it gets to begin and to end.
ROUND = 0.5
START_LIMIT = STOP_LIMIT = 10.0
#: Rounds that run at once, so that the profiler has something to show.
WARM_UP_ROUNDS = 6

_REPORT = "nightly report"
#: A report that works on every order by itself, and does not end within three hours.
_ENDLESS = {"$function": {"body": "function(id) { sleep(200); return id }", "args": ["$_id"], "lang": "js"}}
_ROLES = {
    OPERATOR: (
        ("clusterMonitor", "admin"), ("hostManager", "admin"), ("read", DATABASE), ("dbAdmin", DATABASE),
        ("userAdmin", DATABASE),
    ),
    APPLICATION: (("readWrite", DATABASE),),
}  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """One problem of the storefront, as the diagnosis calls it, and one sentence on what is wrong."""

    kind: str
    object: str
    sign: str


PLANTED = (
    Planted("missing_index", "orders", "Every look at a customer's orders reads the whole collection."),
    Planted("redundant_index", "orders.status_1", "The index on status is the beginning of another one."),
    Planted("long_operation", "orders", "A nightly report is still running."),
    Planted("oversize_document", "carts", "One cart carries a note of two megabytes."),
    Planted("oversize_array", "carts.items", "One cart was never emptied."),
    Planted("missing_ttl", "sessions", "Sessions say when they expire, and stay for ever."),
    Planted("member_unreachable", "rs0", "A member of the replica set does not answer."),
)


@dataclass(frozen=True)
class Storefront:
    """The logins of a seeded storefront; each connection string holds a password, and none is in the repr."""

    operator_uri: str = field(repr=False)
    application_uri: str = field(repr=False)


def seed(server: EmbeddedMongod) -> Storefront:
    """Make the database ``storefront`` with its logins on an embedded server; takes seconds."""
    with server.client() as client:
        database = client[DATABASE]
        _fill(database)
        logins = {name: _make_login(client, name, server) for name in _ROLES}
        database.command("profile", 1, slowms=SLOW_MS)
    shop = Storefront(logins[OPERATOR], logins[APPLICATION])
    with _application(shop) as application:
        for number in range(WARM_UP_ROUNDS):
            run_round(application[DATABASE], number)
    return shop


def _make_login(client: Client, name: str, server: EmbeddedMongod) -> str:
    password = secrets.token_urlsafe(24)
    roles = [{"role": role, "db": database} for role, database in _ROLES[name]]
    client.admin.command("createUser", name, pwd=password, roles=roles)
    return server.uri_for(DATABASE, name, password)


def _fill(database: Database[dict[str, Any]]) -> None:
    chance = random.Random(20260101)  # the same data every time, and no secret
    database.orders.insert_many(_orders(chance), ordered=False)
    database.customers.insert_many(_customers(chance), ordered=False)
    database.sessions.insert_many(_sessions(chance), ordered=False)
    database.carts.insert_many(_carts(chance), ordered=False)
    database.orders.create_index("status", name="status_1")
    database.orders.create_index([("status", 1), ("created_at", -1)], name="status_1_created_at_-1")
    database.customers.create_index("email", name="email_1", unique=True)
    database.customers.create_index("region", name="region_1")
    database.sessions.create_index("token", name="token_1")


def _orders(chance: random.Random) -> Documents:
    start = datetime.now(UTC) - timedelta(days=200)
    for number in range(ORDERS):
        yield {
            "_id": number + 1,
            "customer_id": 1 + chance.randrange(CUSTOMERS),
            "status": chance.choice(("open", "paid", "paid", "sent", "sent", "sent", "returned")),
            "amount_cents": chance.randrange(500, 90_000),
            "created_at": start + timedelta(minutes=4.8 * number),
            "ship_to": f"{chance.randrange(1, 200)} Harbour Street, {chance.randrange(10_000, 99_999)}",
        }


def _customers(chance: random.Random) -> Documents:
    for number in range(1, CUSTOMERS + 1):
        yield {
            "_id": number,
            "email": f"customer{number}@example.com",
            "region": chance.choice(("north", "south", "east", "west")),
        }


def _sessions(chance: random.Random) -> Documents:
    for _ in range(SESSIONS):
        expires = datetime.now(UTC) - timedelta(hours=chance.randrange(1, 2000))
        yield {
            "token": f"{chance.getrandbits(128):032x}",
            "expires_at": expires,
            "customer_id": chance.randrange(CUSTOMERS),
        }


def _carts(chance: random.Random) -> Documents:
    for number in range(1, 151):
        items = ENDLESS_CART if number == 42 else chance.randrange(1, 12)
        cart = {"_id": number, "items": [{"sku": chance.randrange(5000), "quantity": 1} for _ in range(items)]}
        yield cart | ({"note": "please deliver at the back door " * (LONG_NOTE // 33)} if number == 17 else {})


def run_round(database: Database[dict[str, Any]], number: int) -> None:
    """The light load: what customers look at, one order placed, and two looks that read whole collections."""
    customer = 1 + number * 7919 % CUSTOMERS
    list(database.orders.find({"customer_id": customer}).sort("created_at", -1).limit(20))
    list(database.orders.find({"status": "open"}).sort("created_at", -1).limit(20))
    database.customers.find_one({"email": f"customer{customer}@example.com"})
    placed = {"customer_id": customer, "status": "open", "amount_cents": 900, "created_at": datetime.now(UTC)}
    database.orders.insert_one(placed)
    if number % 4 == 0:
        per_status = [{"$group": {"_id": "$status", "amount_cents": {"$sum": "$amount_cents"}}}]
        list(database.orders.aggregate(per_status))


def _application(storefront: Storefront) -> Client:
    from pymongo import MongoClient

    return MongoClient(storefront.application_uri, appname="storefront", serverSelectionTimeoutMS=5_000)


class LiveLoad:
    """The storefront's clients, until stop(): the light load, and a report that does not end. A report that somebody
    kills stays away; the load goes on, as a real one would."""

    def __init__(self, storefront: Storefront) -> None:
        self._storefront = storefront
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> Self:
        """Begin, and return when the report runs."""
        with _application(self._storefront) as client:
            client.admin.command("ping")
        for name, work in (("storefront-load", self._load), ("storefront-report", self._report)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> None:
        """End both; the report ends with the server, if not before."""
        self._stopping.set()
        while self._threads:
            self._threads.pop().join(STOP_LIMIT)

    def _load(self) -> None:
        from pymongo.errors import PyMongoError

        number = WARM_UP_ROUNDS
        with _application(self._storefront) as client:
            while not self._stopping.wait(ROUND):
                with suppress(PyMongoError):
                    run_round(client[DATABASE], number)
                number += 1

    def _report(self) -> None:
        from pymongo.errors import PyMongoError

        with _application(self._storefront) as client, suppress(PyMongoError):
            list(client[DATABASE].orders.aggregate([{"$group": {"_id": _ENDLESS}}], comment=_REPORT))


class MongoDemo:
    """An embedded replica set with the sick storefront and its load; use it with `with`.

    Its third member has no vote and is frozen, so that the set has a member that does not answer and still takes writes.
    While it is silent nobody can say that an index is unused: that member's reads are not known.
    """

    def __init__(self, on_step: Callable[[str], None] | None = None, mongod: Mongod | None = None) -> None:
        self.server = EmbeddedMongod(members=3, voters=2, auth=True, mongod=mongod)
        self._on_step = on_step or (lambda _: None)
        self._storefront: Storefront | None = None
        self._load: LiveLoad | None = None

    def __repr__(self) -> str:
        return f"MongoDemo({self.server!r})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def storefront(self) -> Storefront:
        if self._storefront is None:
            raise DemoError("The demo of MongoDB is not running.", hint="Call start() first.")
        return self._storefront

    @property
    def operator_uri(self) -> str:
        return self.storefront.operator_uri

    def start(self) -> Self:
        """Start everything."""
        try:
            self._on_step(f"Starting MongoDB {self.server.version}, a replica set of three")
            self.server.start()
            self._on_step(f"Filling the storefront: {ORDERS:,} orders, {CUSTOMERS:,} customers")
            self._storefront = seed(self.server)
            self._load = LiveLoad(self._storefront).start()
            self.server.members[-1].freeze()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the load and the servers, and remove the directory; harmless when stopped."""
        if self.server.members:
            self.server.members[-1].thaw()
        if self._load:
            self._load.stop()
        self.server.stop()
        self._storefront = self._load = None
