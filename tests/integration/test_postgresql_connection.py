"""A connection says who it is, reads without a trace, cancels in the server, and stays usable."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import psycopg
import pytest

from opsagent_jupyter.errors import (
    AuthenticationFailed,
    DatabaseError,
    DeadlineExceeded,
    MalformedDsn,
    OpsAgentError,
    TargetUnreachable,
    TlsRefused,
)
from opsagent_jupyter.plugin import Connection, Limits
from opsagent_jupyter.plugins.postgresql import connection, plugin
from opsagent_jupyter.plugins.postgresql.connection import BUDGET
from tests.integration.postgresql_stage import OBSERVER, attached, eventually_async, execute, on_loop, role, value

SECRET = "s3cr3t/p@ss word"
ENCODED = "s3cr3t%2Fp%40ss%20word"


# -- connection strings


def test_importing_the_plugin_loads_no_driver():
    """The toolbox with its argument schemas works without psycopg."""
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from opsagent_jupyter.plugins.postgresql import plugin\n"
        "print(len([tool.schema() for tool in plugin.toolbox.tools.values()]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 12


def test_a_missing_driver_is_named_with_its_remedy():
    """Without psycopg the first use says which extra to install."""
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from opsagent_jupyter.plugins.postgresql import plugin\n"
        "try: plugin.describe('host=x')\n"
        "except Exception as error: print(error.code, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("config.missing_extra")
    assert "opsagent_jupyter[postgresql]" in done.stdout


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://ann:{ENCODED}@db.example:5433/shop?sslmode=require",
        f"host=db.example port=5433 dbname=shop user=ann sslmode=require password='{SECRET}'",
    ],
)
def test_a_connection_string_is_described_without_its_secrets(dsn):
    """Host, port, database, user and TLS are shown; the password is not."""
    described = plugin.describe(dsn)
    expected = {"host": "db.example", "port": "5433", "database": "shop", "user": "ann", "sslmode": "require"}
    assert described == expected


def test_every_form_of_a_password_is_struck_out():
    """Redactions hold the password as typed and as decoded."""
    found = plugin.redactions(f"postgresql://ann:{ENCODED}@h/shop?sslpassword=key%2Fpass")
    assert {SECRET, ENCODED, "key/pass", "key%2Fpass"} <= set(found)


def test_the_password_of_an_unreadable_string_is_struck_out_too():
    """Even a string that cannot be parsed gives its password away to the redactor."""
    assert "hunter2%zz" in plugin.redactions("postgresql://ann:hunter2%zz@h/shop")


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        f"postgresql://ann:{SECRET}%zz@h/shop",
        f"pass {SECRET}",
        f"host=h password={ENCODED} nonsense=1",
        f"postgresql+psycopg://ann:{ENCODED}@h/shop",
        f"mysql://ann:{ENCODED}@h/shop",
        f"host=h port=abc password={ENCODED}",
        f"host=h sslmode=maybe password={ENCODED}",
        f"host=h connect_timeout=soon password={ENCODED}",
    ],
)
def test_a_malformed_string_is_refused_without_repeating_it(dsn):
    """The message says what to write and holds no part of the string."""
    with pytest.raises(MalformedDsn) as refusal:
        plugin.describe(dsn)
    assert "hunter2" not in str(refusal.value)
    assert "s3cr3t" not in str(refusal.value)
    assert refusal.value.hint


@on_loop
async def test_a_service_is_followed_and_its_password_struck_out(pg18, tmp_path, monkeypatch):
    """service= takes host, port, user and password from the service file."""
    own = psycopg.conninfo.conninfo_to_dict(pg18.dsn)
    lines = "\n".join(f"{key}={text}" for key, text in own.items())
    (tmp_path / "services").write_text(f"[other]\nhost=nowhere\n[stage]\n{lines}\n", encoding="utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    assert plugin.describe("service=stage")["port"] == str(own["port"])
    assert own["password"] in plugin.redactions("service=stage")
    async with attached("service=stage") as db:
        assert (await db.health()).ok


@on_loop
async def test_an_unknown_service_is_malformed():
    """A service that is in no file is named as the mistake."""
    with pytest.raises(MalformedDsn, match="not found"):
        await plugin.connect("x", "service=there_is_none", Limits())


# -- connecting


@on_loop
async def test_a_wrong_password_is_told_from_an_unreachable_server(pg):
    """Each reason has its own error and hint, and none repeats the password."""
    own = psycopg.conninfo.conninfo_to_dict(pg.dsn)
    wrong = psycopg.conninfo.make_conninfo(pg.dsn, password=SECRET)
    with pytest.raises(AuthenticationFailed) as refusal:
        await plugin.connect("x", wrong, Limits())
    assert SECRET not in str(refusal.value)
    assert refusal.value.hint
    with pytest.raises(TargetUnreachable):
        await plugin.connect("x", f"host=127.0.0.1 port=1 user=ann password={SECRET!r}", Limits())
    with pytest.raises(TargetUnreachable):
        await plugin.connect("x", "host=no-such-host.invalid user=ann", Limits())
    with pytest.raises(TargetUnreachable, match="does not exist"):
        await plugin.connect("x", psycopg.conninfo.make_conninfo(pg.dsn, dbname="there_is_none"), Limits())
    assert own["password"] not in str(refusal.value)


@on_loop
async def test_a_server_without_tls_refuses_sslmode_require(pg18):
    """TLS that cannot be had is its own error."""
    with pytest.raises(TlsRefused) as refusal:
        await plugin.connect("x", psycopg.conninfo.make_conninfo(pg18.dsn, sslmode="require"), Limits())
    assert "sslmode" in refusal.value.hint


@on_loop
async def test_a_connection_shows_nothing_of_its_secret(pg18):
    """No repr of the connection or its pool holds the password."""
    password = psycopg.conninfo.conninfo_to_dict(pg18.dsn)["password"]
    async with attached(pg18.dsn) as db:
        await db.health()
        assert password not in repr(db)
        assert password not in repr(db._pool)
        assert isinstance(db, Connection)


# -- who and how


@on_loop
async def test_the_identity_tells_databases_and_roles_apart(database, pg):
    """The system identifier, database, role and search path are bound into every approval."""
    async with attached(database) as db, attached(pg.dsn) as other:
        mine, others = await db.identity(), await other.identity()
    assert mine["system_identifier"] == others["system_identifier"] != ""
    assert mine["database"] != others["database"]
    assert mine["database_oid"] != others["database_oid"]
    assert {"version", "role", "search_path"} <= set(mine)
    assert str(mine["version"]).split(".")[0] == str(pg.major)


@on_loop
async def test_without_the_right_to_the_system_identifier_the_address_stands_in(database):
    """A refusal of pg_control_system() leaves an identity that still says where the database is."""
    execute(database, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    try:
        with role(database) as dsn:
            async with attached(dsn) as db:
                identity = await db.identity()
    finally:
        execute(database, "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
    assert identity["system_identifier"] == ""
    assert str(identity["address"]).startswith("127.0.0.1:")


@on_loop
async def test_health_warns_of_a_superuser_and_not_of_an_observer(database):
    """Rights that are too many and rights that are missing are both named."""
    async with attached(database) as db:
        strong = await db.health()
    with role(database, *OBSERVER) as dsn:
        async with attached(dsn) as db:
            observer = await db.health()
    with role(database, attributes="CREATEROLE") as dsn:
        async with attached(dsn) as db:
            weak = await db.health()
    assert strong.ok
    assert any("superuser" in warning for warning in strong.warnings)
    assert not any("rights" in warning or "GRANT" in warning for warning in observer.warnings)
    assert any("CREATEROLE" in warning for warning in weak.warnings)
    assert any("GRANT pg_monitor" in warning for warning in weak.warnings)


@on_loop
async def test_the_health_of_a_closed_connection_is_an_answer(pg18):
    """Health reports trouble, it does not raise it."""
    db = await plugin.connect("stage", pg18.dsn, Limits())
    await db.close()
    health = await db.health()
    assert not health.ok
    assert health.error_code


@on_loop
async def test_the_catalog_writes_names_as_they_must_be_typed(database):
    """Visible names are bare, others qualified, odd ones quoted; columns stand with their table."""
    execute(database, 'CREATE TABLE "Odd Name" (id int)', "CREATE SCHEMA apart", "CREATE TABLE apart.t (a int, b int)")
    async with attached(database) as db:
        catalog = await db.catalog()
    assert {'"Odd Name"', "apart.t"} <= set(catalog.names["table"])
    assert catalog.columns["apart.t"] == ("a", "b")
    assert "postgres" in catalog.names["role"]


# -- reading


@on_loop
async def test_a_read_cannot_write(database):
    """Reads run in READ ONLY transactions that are rolled back, whatever they try."""
    execute(database, "CREATE TABLE t (a int)")
    async with attached(database) as db:
        with pytest.raises(DatabaseError) as refusal:
            await db.rows("INSERT INTO t VALUES (1) RETURNING a")
        with pytest.raises(OpsAgentError):
            await db.rows("SELECT 1; DROP TABLE t")
        await db.rows("SELECT set_config('default_transaction_read_only', 'off', false)")
    assert refusal.value.facts["native_code"] == "25006"
    assert value(database, "SELECT count(*) FROM t") == 0


def running(dsn, text):
    """How many sessions run a statement with this text."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"
    return value(dsn, query, (f"%{text}%",))


@on_loop
async def test_cancelling_a_read_cancels_it_in_the_server(database):
    """A cancelled task ends its statement in the server at once, and the next read works on the same connection."""
    async with attached(database) as db:
        task = asyncio.ensure_future(db.rows("SELECT pg_sleep(60), 'cancel me'", statement_ms=60_000))
        await eventually_async(lambda: running(database, "cancel me") == 1)
        pids = db.pids()
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 2
        await eventually_async(lambda: running(database, "cancel me") == 0)
        assert (await db.one("SELECT 1 AS one"))["one"] == 1
        assert db.pids() == pids


@on_loop
async def test_a_deadline_cancels_in_the_server(database):
    """asyncio.timeout around a read reaches the server too."""
    async with attached(database) as db:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await db.rows("SELECT pg_sleep(60), 'in time'", statement_ms=60_000)
        await eventually_async(lambda: running(database, "in time") == 0)
        assert (await db.health()).ok


@on_loop
async def test_a_read_over_its_own_limit_says_so(database):
    """The server's statement_timeout is a deadline, with seconds in its message."""
    async with attached(database) as db:
        with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
            await db.rows("SELECT pg_sleep(60)", statement_ms=200)
        assert (await db.health()).ok


@on_loop
async def test_a_killed_connection_is_replaced(database):
    """A connection that the server has ended meanwhile is not lent again."""
    async with attached(database) as db:
        before = db.pids()
        for pid in before:
            execute(database, f"SELECT pg_terminate_backend({pid})")
        await eventually_async(
            lambda: value(database, "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", (list(before),)) == 0
        )
        assert (await db.one("SELECT 1 AS one"))["one"] == 1
        assert not db.pids() & before


@on_loop
async def test_a_read_leaves_no_transaction_open(database):
    """Nobody waits for the ROLLBACK after a read, but the server has it at once; the connection is used again."""
    own = "FROM pg_stat_activity WHERE application_name = 'opsagent:stage' AND datname = current_database()"
    async with attached(database) as db:
        for _ in range(3):
            await db.rows("SELECT count(*) FROM pg_class")
            await eventually_async(
                lambda: value(database, f"SELECT array_agg(state || ': ' || query) {own}") == ["idle: ROLLBACK"]
            )
        async with db.together() as reads:
            pids = {(await reads.one("SELECT pg_backend_pid() AS pid"))["pid"]}
        assert db.pids() == pids
        with pytest.raises(DatabaseError):
            await db.rows("SELECT 1 / 0")
        await eventually_async(lambda: value(database, f"SELECT array_agg(state) {own}") == ["idle"])
        assert db.pids() == pids


@on_loop
async def test_a_connection_that_does_not_roll_back_is_replaced(database, monkeypatch):
    """Whoever is next waits a little for the server's word, and then gets another connection; cancelled while waiting,
    nothing is kept."""
    async with attached(database) as db:
        before = db.pids()
        monkeypatch.setattr(connection, "_ROLLBACK", b"SELECT pg_sleep(3)")
        await db.rows("SELECT 1")
        monkeypatch.undo()
        waiting = asyncio.ensure_future(db.rows("SELECT 1"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert db.pids() == frozenset()
        monkeypatch.setattr(connection, "_ROLLBACK", b"SELECT pg_sleep(3)")
        await db.rows("SELECT 1")
        monkeypatch.undo()
        monkeypatch.setattr(connection, "ROLLBACK_SECONDS", 0.05)
        assert await db.rows("SELECT 1 AS one") == [{"one": 1}]
        assert not db.pids() & before


@on_loop
async def test_a_connection_killed_in_the_middle_is_reported_and_replaced(database):
    """A read whose backend is ended says that the connection was lost; the next one works."""
    async with attached(database) as db:
        task = asyncio.ensure_future(db.rows("SELECT pg_sleep(60), 'kill me'", statement_ms=60_000))
        await eventually_async(lambda: running(database, "kill me") == 1)
        (pid,) = db.pids()
        execute(database, f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(TargetUnreachable):
            await task
        assert (await db.one("SELECT 1 AS one"))["one"] == 1


@on_loop
async def test_many_reads_at_once_stay_within_the_budget(database):
    """Twenty reads and two changes at once never hold more than three connections."""
    most = 0

    async def watch(db):
        nonlocal most
        while True:
            most = max(most, len(db.pids()))
            await asyncio.sleep(0.005)

    async def change(db):
        async with db.changing({"lock_timeout": "1s"}) as connection:
            await connection.run("SELECT pg_sleep(0.1)")

    async with attached(database) as db:
        watcher = asyncio.ensure_future(watch(db))
        reads = (db.rows("SELECT pg_sleep(0.02)") for _ in range(20))
        await asyncio.gather(*reads, change(db), change(db))
        watcher.cancel()
    assert 2 <= most <= BUDGET


def test_one_database_works_on_two_loops_after_each_other(pg18):
    """A connection made on one event loop is left behind when another loop asks."""
    db = asyncio.run(plugin.connect("stage", pg18.dsn, Limits()))
    assert asyncio.run(db.one("SELECT 1 AS one")) == {"one": 1}
    assert asyncio.run(db.one("SELECT 2 AS one")) == {"one": 2}
    asyncio.run(db.close())


@on_loop
async def test_nothing_is_left_in_the_server_after_close(database):
    """Closing ends every session of the instance."""
    async with attached(database) as db:
        await asyncio.gather(*(db.rows("SELECT pg_sleep(0.05)") for _ in range(4)))
    own = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'opsagent:stage' AND datname = current_database()"
    await eventually_async(lambda: value(database, own) == 0)


@on_loop
async def test_sessions_carry_the_name_of_the_instance(database):
    """A DBA sees in pg_stat_activity whose sessions these are."""
    async with attached(database) as db:
        row = await db.one(
            "SELECT current_setting('application_name') AS name, current_setting('transaction_read_only') AS ro"
        )
    assert row == {"name": "opsagent:stage", "ro": "on"}


@on_loop
async def test_reads_together_share_a_transaction_that_an_error_does_not_end(database):
    """One process of the server and one transaction for all; after an error the next read has a new one, and the connection
    comes back idle."""
    seen = "SELECT pg_backend_pid() AS pid, now() AS begun"
    async with attached(database) as db:
        async with db.together() as reads:
            first, second = await reads.one(seen), await reads.one(seen)
            with pytest.raises(DatabaseError):
                await reads.one("SELECT 1 / 0 AS nothing")
            third = await reads.one(seen)
            with pytest.raises(DatabaseError):
                await reads.rows("CREATE TABLE t (a int)")
        assert first == second
        assert third["pid"] == first["pid"]
        assert third["begun"] > first["begun"]
        after = await db.one(seen)
        assert after["pid"] == first["pid"]
        assert after["begun"] > third["begun"]
