"""The SQL for an observer and an operator: run as printed on every release, it makes roles that do their work and no more."""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import Identifier

from opsagent_jupyter.cli.main import cli
from opsagent_jupyter.commands import Door, words
from opsagent_jupyter.doctor import examine
from opsagent_jupyter.errors import ConfigError, InvalidArguments, MissingRight
from opsagent_jupyter.models import Plan, Result
from opsagent_jupyter.plugin import Accounts
from opsagent_jupyter.plugins.postgresql import plugin
from opsagent_jupyter.plugins.postgresql.accounts import Ground, Owner, account_sql
from tests.integration.postgresql_stage import OBSERVER, attached, call, execute, on_loop, role, transaction
from tests.postgres import new_database

SEED = """
CREATE SCHEMA shop AUTHORIZATION {owner};
SET ROLE {owner};
CREATE TABLE shop.orders (id bigint PRIMARY KEY, status text);
INSERT INTO shop.orders SELECT i, 'new' FROM generate_series(1, 100) AS i;
CREATE INDEX orders_status ON shop.orders (status);
RESET ROLE;
CREATE TABLE superusers_own (a int);
ANALYZE shop.orders;
"""


@contextmanager
def made(server, observer, operator):
    """A database whose tables an ordinary role owns, and both roles made by the printed SQL; their DSNs."""
    owner, password = f"own_{secrets.token_hex(4)}", secrets.token_hex(12)
    with new_database(server) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {owner}")
            connection.execute(SEED.format(owner=owner))
        try:
            execute(dsn, script := printed(dsn, observer, operator))
            for name in (observer, operator):
                execute(dsn, f"ALTER ROLE {quoted(name)} PASSWORD '{password}'")
            logins = [make_conninfo(dsn, user=name, password=password) for name in (observer, operator)]
            yield dsn, script, *logins
        finally:
            names = f"{quoted(observer)}, {quoted(operator)}"
            execute(dsn, f"DROP OWNED BY {names}, {owner} CASCADE", f"DROP ROLE {names}, {owner}")


def quoted(name):
    return Identifier(name).as_string(None)


def printed(dsn, observer, operator):
    """What the plugin prints, without the lines that only psql takes."""
    found = []

    @on_loop
    async def ask():
        async with attached(dsn) as db:
            found.append(await plugin.account_sql(db, observer, operator))

    ask()
    return re.sub(r"^\\password .*$", "", found[0], flags=re.MULTILINE)


@pytest.fixture(params=["plain_{}", 'Mixed Case "{}"'], ids=["plain", "quoted"])
def names(request):
    token = secrets.token_hex(3)
    return tuple(request.param.format(f"{kind}{token}") for kind in ("observer", "operator"))


READS = {"sql": "SELECT * FROM shop.orders WHERE id = 1"}


def test_the_observer_can_do_all_reading_and_no_change(every_pg):
    """Each read tool answers without a missing right, and nothing can be written, by hand neither."""
    token = secrets.token_hex(3)
    with made(every_pg, f"see_{token}", f"do_{token}") as (_, _script, observer, _operator):

        @on_loop
        async def check():
            async with attached(observer) as db:
                health = await db.health()
                for tool in [tool for tool in plugin.toolbox.tools.values() if not tool.changes]:
                    given = {name: READS[arg.slot] for name, arg in tool.slots.items() if arg.slot in READS}
                    result = await call(db, tool.name, **given)
                    assert isinstance(result, Result), tool.name
                    assert not any("GRANT" in note for note in result.notes), (tool.name, result.notes)
                assert not any(db.server.role in warning for warning in health.warnings), health.warnings
                for refused in ({"table": "shop.orders", "columns": ["status"]},):
                    with pytest.raises(MissingRight):
                        await call(db, "create_index", **refused)

        check()
        for statement in ("INSERT INTO shop.orders VALUES (1000, 'x')", "UPDATE shop.orders SET status = 'x'"):
            with psycopg.connect(observer, autocommit=True) as connection:
                connection.execute("SET default_transaction_read_only = off")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


#: One call of every tool that changes something; a tool that is missing here fails the test.
CHANGES = {
    "create_index": {"table": "shop.orders", "columns": ["status", "id"]},
    "drop_index": {"index": "shop.orders_status"},
    "reindex_table": {"table": "shop.orders"},
    "vacuum_table": {"table": "shop.orders"},
    "analyze_table": {"table": "shop.orders"},
    "grant_permission": {"role": "{app}", "object": "shop.orders", "privileges": ["select"]},
    "revoke_permission": {"role": "{owner}", "object": "shop.orders", "privileges": ["trigger"]},
    "kill_connection": {"pid": "{pid}"},
    "create_user": {"name": "fresh_{app}"},
    "drop_user": {"name": "{app}"},
}
#: Those that need the line that the script leaves commented out.
WITH_ROLES = {"create_user", "drop_user"}


def test_the_operator_can_plan_every_change(every_pg):
    """With the printed rights every changing tool plans; those for roles need the line that is left to the administrator."""
    token = secrets.token_hex(3)
    with made(every_pg, f"see_{token}", f"do_{token}") as (dsn, script, _observer, operator), role(dsn) as app:
        known = psycopg.conninfo.conninfo_to_dict
        filled = {"app": known(app)["user"], "owner": owner_of(dsn)}

        @on_loop
        async def check():
            assert {tool.name for tool in plugin.toolbox.tools.values() if tool.changes} == {*CHANGES}
            with transaction(app, "SELECT 1") as session:
                filled["pid"] = session.info.backend_pid
                async with attached(operator) as db:
                    assert not any("rights" in warning for warning in (await db.health()).warnings)
                    for name in [*CHANGES]:
                        if name in WITH_ROLES:
                            with pytest.raises(MissingRight):
                                await call(db, name, **arguments(name, filled))
                        else:
                            assert isinstance(await call(db, name, **arguments(name, filled)), Plan), name
                    uncomment(dsn, script, db.server.role, filled["app"], db.server.major)
                    for name in WITH_ROLES:
                        assert isinstance(await call(db, name, **arguments(name, filled)), Plan), name

        check()


def owner_of(dsn):
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'orders'").fetchone()[0]


def arguments(name, filled):
    """The arguments of a call, as a person would type them."""
    return {key: value.format(**filled) if isinstance(value, str) else value for key, value in CHANGES[name].items()}


def uncomment(dsn, script, operator, app, major):
    """Run the lines about roles that the script leaves to the administrator."""
    lines = [line[3:] for line in script.splitlines() if line.startswith(("-- ALTER ROLE", "-- GRANT some_role"))]
    assert len(lines) == (2 if major >= 16 else 1)
    execute(dsn, *(line.replace("some_role", app) for line in lines))


def test_any_name_is_quoted_where_it_must_be(pg18, names):
    """Roles with spaces, capitals and quotes in their names come out exactly as they were given."""
    with made(pg18, *names) as (_, _script, observer, operator):
        for login, name in ((observer, names[0]), (operator, names[1])):
            with psycopg.connect(login) as connection:
                assert connection.execute("SELECT current_user").fetchone()[0] == name


def test_what_the_script_says_fits_the_release():
    """pg_read_all_data from 14, pg_maintain from 17; a superuser's tables never make the operator a member of a superuser."""
    owners = (Owner("shop_owner", 3, superuser=False), Owner("postgres", 2, superuser=True))
    texts = {major: account_sql(Ground(f"{major}.1", major, "shop", ("shop",), owners)) for major in range(13, 19)}
    for major, text in texts.items():
        assert ("GRANT pg_read_all_data TO" in text) == (major >= 14)
        assert ('GRANT SELECT ON ALL TABLES IN SCHEMA "shop"' in text) == (major == 13)
        assert ("GRANT pg_maintain TO" in text) == (major >= 17)
        assert "GRANT shop_owner TO opsagent_operator;" in text
        assert "GRANT postgres" not in text
        assert 'GRANT "postgres"' not in text
        assert "PASSWORD '" not in text
        assert text.count("\n\\password ") == 2


@pytest.mark.parametrize("name", ["", "pg_mine", "two\nlines", "x" * 64, "opsagent_operator"])
def test_names_that_no_role_can_have_are_refused(name):
    """Before anything is printed: nothing that a name holds can end a comment or a statement."""
    with pytest.raises(InvalidArguments):
        account_sql(Ground("18.1", 18, "shop"), name, "opsagent_operator")


@on_loop
async def test_too_much_right_is_warned_of(database18):
    """Each attribute and each role that one can become is a warning of its own, also when it is not inherited."""
    execute(database18, "CREATE TABLE plain (a int)")
    for rights, attributes, expected in (
        ((), "CREATEROLE", "CREATEROLE"),
        ((), "CREATEDB", "CREATEDB"),
        ((), "BYPASSRLS", "BYPASSRLS"),
        ((), "REPLICATION", "REPLICATION"),
        (("GRANT pg_write_server_files TO {}",), "", "pg_write_server_files"),
        (("GRANT pg_execute_server_program TO {}",), "NOINHERIT", "pg_execute_server_program"),
        (("GRANT pg_read_server_files TO {}",), "", "pg_read_server_files"),
        (("GRANT pg_write_all_data TO {}",), "", "pg_write_all_data"),
        (("GRANT postgres TO {}",), "NOINHERIT", "can become postgres"),
    ):
        with role(database18, *OBSERVER, *rights, attributes=attributes) as dsn:
            async with attached(dsn) as db:
                warnings = (await db.health()).warnings
        assert any(expected in warning for warning in warnings), expected
    with role(database18, *OBSERVER) as dsn:
        async with attached(dsn) as db:
            assert not any("fewer rights" in warning for warning in (await db.health()).warnings)


@on_loop
async def test_an_instance_that_only_reads_says_what_its_role_could_change(database18):
    """Owned and writable tables, schemas to create in, a superuser; nothing for an observer."""
    assert isinstance(plugin, Accounts)
    execute(database18, "CREATE TABLE plain (a int)", "CREATE TABLE other (a int)")
    with role(database18, "ALTER TABLE plain OWNER TO {}", "GRANT CREATE ON SCHEMA public TO {}") as owner:
        async with attached(owner) as db:
            (text,) = await plugin.excess(db)
        execute(database18, "ALTER TABLE plain OWNER TO postgres")
    assert "owns 1 table" in text
    assert "may create in public" in text
    with role(database18, *OBSERVER) as observer:
        async with attached(observer) as db:
            assert await plugin.excess(db) == ()
    async with attached(database18) as db:
        assert "superuser" in (await plugin.excess(db))[0]


def test_the_command_prints_and_the_doctor_warns(ops, pg18):
    """``roles NAME`` is a word of both doors and runs nothing; the doctor points to it and tells what a reader could change."""
    assert cli.commands["roles"] is words.commands["roles"]
    with new_database(pg18) as dsn:
        ops.attach("postgresql", "shop", server="one", environment="development", dsn=dsn, read_only=True)
        door = Door(lambda: ops, lambda _question: "")
        line = ["roles", "shop", "--observer", "see_all", "--operator", "do_it"]
        text = words.main(args=line, prog_name="%opsagent", standalone_mode=False, obj=door)
        findings = {finding.name: finding for finding in examine(ops).findings}
        with psycopg.connect(dsn) as connection:
            made = connection.execute("SELECT count(*) FROM pg_roles WHERE rolname IN ('see_all', 'do_it')").fetchone()
        with pytest.raises(ConfigError, match="ledger"):
            words.main(args=["roles", "books"], prog_name="%opsagent", standalone_mode=False, obj=door)
    assert "CREATE ROLE see_all LOGIN" in text
    assert "CREATE ROLE do_it LOGIN" in text
    assert made == (0,)
    assert not findings["shop"].ok
    assert "is a superuser" in findings["shop"].found
    assert "nothing but OpsAgent keeps it" in findings["shop"].found
    assert "opsagent roles shop" in findings["shop"].fix
