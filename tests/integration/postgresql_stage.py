"""What the tests of the PostgreSQL plugin stand on: a small sick database, other people's sessions, and stage.py."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from opsagent_jupyter.plugins.postgresql import plugin
from tests.integration import stage

#: Seconds that a test waits for something that happens in another process.
PATIENCE = 30.0

SEED = """
CREATE TABLE customers (id bigint PRIMARY KEY, name text, region text);
INSERT INTO customers SELECT i, 'name ' || i % 400, 'r' || i % 7 FROM generate_series(1, 500) AS i;
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint REFERENCES customers, created_at timestamptz, status text,
                     total numeric);
INSERT INTO orders SELECT i, 1 + i % 500, now() - i * interval '1 min', (array['new', 'paid', 'sent'])[1 + i % 3], i % 100
FROM generate_series(1, 20000) AS i;
CREATE INDEX orders_created_at_idx ON orders (created_at);
CREATE INDEX orders_created_at_dup ON orders (created_at);
CREATE INDEX orders_status_idx ON orders (status);
CREATE INDEX orders_status_created_idx ON orders (status, created_at);
CREATE TABLE "Mixed Case" (id int PRIMARY KEY, "Weird Col" text);
CREATE SCHEMA apart;
CREATE TABLE apart.hidden_away (id int, k int);
CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
CREATE INDEX parts_id ON parts (id);
ANALYZE customers; ANALYZE orders;
"""


on_loop = stage.on_loop


class Run(stage.Run):
    """One approved plan of this plugin."""

    toolbox = plugin.toolbox


_stage = stage.Stage(plugin, Run)
attached, call, read = _stage.attached, _stage.call, _stage.read
planned, performed = _stage.planned, _stage.performed


def seed(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SEED)


def execute(dsn: str, *statements: str) -> None:
    """Statements of somebody else, each its own transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def value(dsn: str, statement: str, values: tuple[Any, ...] = ()) -> Any:
    """The first column of the first row of somebody else's query; None without a row."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(statement, values or None).fetchone()
    return row[0] if row else None


def leave_invalid_index(dsn: str, name: str = "customers_name_uq") -> None:
    """The rest of a unique concurrent build that met equal values."""
    try:
        execute(dsn, f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON customers (name)")
    except psycopg.errors.UniqueViolation:
        return
    raise AssertionError("the build should have failed")


@contextmanager
def transaction(dsn: str, *statements: str, application: str = "checkout") -> Iterator[psycopg.Connection]:
    """Somebody else's session with an open transaction that ran these statements; rolled back at the end."""
    with psycopg.connect(make_conninfo(dsn, application_name=application)) as connection:
        for statement in statements:
            connection.execute(statement)
        yield connection
        with suppress(psycopg.OperationalError):  # the test may have ended it
            connection.rollback()


@contextmanager
def waiting(dsn: str, *statements: str, application: str = "worker") -> Iterator[int]:
    """Somebody else's session that is busy with statements, one after the other, for a while; its pid."""
    with psycopg.connect(make_conninfo(dsn, application_name=application), autocommit=True) as connection:
        thread = threading.Thread(target=_endure, args=(connection, statements), daemon=True)
        thread.start()
        pid = connection.info.backend_pid
        eventually(lambda: value(dsn, "SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,)) == "active")
        try:
            yield pid
        finally:
            execute(dsn, f"SELECT pg_terminate_backend({pid})")
            thread.join(PATIENCE)


def _endure(connection: psycopg.Connection, statements: tuple[str, ...]) -> None:
    try:
        for statement in statements:
            connection.execute(statement)
    except psycopg.Error:
        return  # it was ended, as intended


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


async def eventually_async(condition: Callable[[], bool]) -> None:
    """The same without blocking the loop."""
    await asyncio.to_thread(eventually, condition)


@contextmanager
def role(dsn: str, *rights: str, attributes: str = "") -> Iterator[str]:
    """A login role with these rights ({} stands for it) that exists for a while; its DSN."""
    name, password = f"r_{secrets.token_hex(4)}", secrets.token_hex(8)
    with psycopg.connect(dsn, autocommit=True) as connection:
        create = SQL("CREATE ROLE {} LOGIN PASSWORD {} " + attributes)
        connection.execute(create.format(Identifier(name), Literal(password)))
        for right in rights:
            connection.execute(SQL(right).format(Identifier(name)))
        try:
            yield make_conninfo(dsn, user=name, password=password)
        finally:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
            connection.execute(end, (name,))
            connection.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
            connection.execute(SQL("DROP ROLE {}").format(Identifier(name)))


OBSERVER = ("GRANT pg_monitor, pg_read_all_data TO {}",)
