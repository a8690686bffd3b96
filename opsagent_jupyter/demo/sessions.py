"""The sessions of the demo's shop: a light, steady load, and three that misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg.types.numeric import Int4

from opsagent_jupyter.errors import DemoError

#: Seconds between two rounds of the light load.
ROUND = 0.25
#: Seconds after which a lost connection of the light load is opened again.
RECONNECT = 1.0
#: Rounds that the seed runs at once, so that the statistics of the statements have something to show.
WARM_UP_ROUNDS = 60
#: Seconds until the sessions must be as described, and seconds that they get to end.
START_LIMIT = STOP_LIMIT = 10.0

_NIGHTLY_REPORT = Path(__file__).with_name("nightly_report.sql").read_bytes()
_BLOCKED = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
_RESERVE = "UPDATE inventory SET reserved = reserved + 1 WHERE product_id = 42"
# An UPDATE would wait with a snapshot, and every CREATE INDEX CONCURRENTLY in this database would wait for it in turn.
# LOCK TABLE waits without one, if the session knows the table already: looking it up in the catalog takes a snapshot.
_TAKE_STOCK = "LOCK TABLE public.inventory IN SHARE ROW EXCLUSIVE MODE"
_SYNC_STOCK = "UPDATE inventory SET counted_at = now() WHERE product_id <= 100"


@dataclass(frozen=True)
class Statement:
    """One statement of the light load: run in every n-th round, with parameters made from the round's number."""

    text: LiteralString
    every: int
    parameters: Callable[[int], tuple[int | str, ...]]

    def run(self, connection: psycopg.Connection, number: int) -> None:
        """Run it for this round. One type for all numbers: PostgreSQL counts a statement apart for each type."""
        values = [Int4(each) if isinstance(each, int) else each for each in self.parameters(number)]
        connection.execute(self.text, values)


#: The three slow ones first; at four rounds a second all together take about a twentieth of one core.
STATEMENTS = (
    Statement(
        "SELECT id, status, total_cents, created_at FROM orders WHERE customer_id = %s"
        " ORDER BY created_at DESC LIMIT 20",
        2,
        lambda n: (1 + n * 7919 % 20000,),
    ),
    Statement(
        "SELECT id, name, region FROM customers WHERE lower(email) = %s",
        4,
        lambda n: (f"customer{1 + n * 613 % 20000}@example.com",),
    ),
    Statement(
        "SELECT p.category, sum(i.quantity * i.price_cents) AS revenue_cents FROM order_items i"
        " JOIN products p ON p.id = i.product_id GROUP BY p.category ORDER BY revenue_cents DESC",
        20,
        lambda _: (),
    ),
    Statement("SELECT status, ship_to, note FROM orders WHERE id = %s", 1, lambda n: (1 + n * 7919 % 200000,)),
    Statement(
        "SELECT product_id, quantity, price_cents FROM order_items WHERE order_id = %s",
        2,
        lambda n: (1 + n * 7919 % 200000,),
    ),
    Statement("SELECT id, customer_id FROM orders ORDER BY created_at DESC LIMIT %s", 4, lambda _: (10,)),
    Statement(
        "SELECT id, customer_id FROM orders WHERE status = 'open' ORDER BY created_at DESC LIMIT %s", 4, lambda _: (20,)
    ),
    Statement(
        "UPDATE carts SET touched_at = now() WHERE id BETWEEN %s AND %s",
        4,
        lambda n: (1 + n * 20 % 2000, 20 + n * 20 % 2000),
    ),
    Statement(
        "INSERT INTO orders (customer_id, total_cents) VALUES (%s, %s)",
        8,
        lambda n: (1 + n * 613 % 20000, 900 + n * 7919 % 90000),
    ),
)


def run_round(connection: psycopg.Connection, number: int) -> None:
    """The statements of the light load that are due in this round."""
    for statement in STATEMENTS:
        if number % statement.every == 0:
            statement.run(connection, number)


def connect(dsn: str, application_name: str, *, autocommit: bool = True) -> psycopg.Connection:
    return psycopg.connect(dsn, autocommit=autocommit, application_name=application_name, sslmode="disable")


class LiveSessions:
    """The open sessions of the shop, each with a connection of its own, until stop().

    `checkout` idles in a transaction and blocks `stock-sync`; `nightly-report` does not end; `orders-api` is the light
    load. A session that somebody terminates stays away, only `orders-api` comes back, as a real one would.
    """

    def __init__(self, shop_dsn: str, reports_dsn: str) -> None:
        self._shop_dsn = shop_dsn
        self._reports_dsn = reports_dsn
        self._stopping = threading.Event()
        self._connections: dict[str, psycopg.Connection] = {}
        self._threads: list[threading.Thread] = []

    def __repr__(self) -> str:
        return f"LiveSessions({', '.join(self._connections) or 'none'})"

    @property
    def pids(self) -> dict[str, int]:
        """The backend of each session by application name, as it was opened last."""
        return {name: each.info.backend_pid for name, each in self._connections.items() if not each.closed}

    def start(self) -> None:
        """Open all sessions, and return when `stock-sync` is seen to be blocked."""
        self._stopping.clear()
        try:
            stock = self._open("stock-sync", self._shop_dsn, autocommit=False)
            stock.execute(_TAKE_STOCK)
            stock.commit()
            self._open("checkout", self._shop_dsn, autocommit=False).execute(_RESERVE)
            self._begin(self._sync_stock, stock)
            self._begin(self._report, self._open("nightly-report", self._reports_dsn))
            self._begin(self._load, self._open("orders-api", self._shop_dsn))
            self._await_block()
        except psycopg.Error as error:
            self.stop()
            raise DemoError(f"The demo's sessions could not be opened: {str(error).strip()}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel what runs, and close all sessions."""
        self._stopping.set()
        deadline = time.monotonic() + STOP_LIMIT
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline:
            self._cancel_all()  # again, since a statement may begin just after a cancel
            for thread in self._threads:
                thread.join(0.05)
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._threads.clear()

    def _open(self, name: str, dsn: str, *, autocommit: bool = True) -> psycopg.Connection:
        connection = connect(dsn, name, autocommit=autocommit)
        self._connections[name] = connection
        return connection

    def _begin(self, work: Callable[[psycopg.Connection], None], connection: psycopg.Connection) -> None:
        thread = threading.Thread(target=work, args=(connection,), name=f"demo-{work.__name__}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _sync_stock(self, connection: psycopg.Connection) -> None:
        with suppress(psycopg.Error):
            connection.execute(_TAKE_STOCK)
            connection.execute(_SYNC_STOCK)
            connection.commit()

    def _report(self, connection: psycopg.Connection) -> None:
        with suppress(psycopg.Error):
            while not self._stopping.is_set():
                connection.execute(_NIGHTLY_REPORT)

    def _load(self, connection: psycopg.Connection) -> None:
        for number in count(WARM_UP_ROUNDS):
            if self._stopping.wait(ROUND):
                return
            try:
                run_round(connection, number)
            except psycopg.Error:
                connection = self._reopened(connection)

    def _reopened(self, lost: psycopg.Connection) -> psycopg.Connection:
        """The load's next connection, or the lost one while there is none to be had."""
        lost.close()
        if not self._stopping.wait(RECONNECT):
            with suppress(psycopg.Error):
                return self._open("orders-api", self._shop_dsn)
        return lost

    def _await_block(self) -> None:
        waiting = self._connections["stock-sync"].info.backend_pid
        deadline = time.monotonic() + START_LIMIT
        with connect(self._shop_dsn, "demo") as witness:
            while witness.execute(_BLOCKED, [waiting]).fetchone() != (True,):
                if time.monotonic() > deadline:
                    raise DemoError("The demo's session stock-sync was not blocked by checkout.")
                time.sleep(0.02)

    def _cancel_all(self) -> None:
        for connection in list(self._connections.values()):
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=2)
