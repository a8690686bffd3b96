"""grant_permission and revoke_permission: exactly the difference, what a role can really do, and the way back."""

from __future__ import annotations

import secrets
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.postgresql import plugin
from tests.integration.postgresql_stage import (
    Run,
    attached,
    execute,
    on_loop,
    performed,
    planned,
    role,
    transaction,
    value,
)
from tests.postgres import new_database

SEED = """
CREATE TABLE orders (id serial PRIMARY KEY, status text, total numeric);
CREATE TABLE items (id int, k int);
CREATE VIEW paid AS SELECT * FROM orders WHERE status = 'paid';
CREATE SCHEMA apart;
CREATE TABLE apart."Mixed Case" (id int, "Weird Col" text);
CREATE FUNCTION total(a int, b text[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION total(a int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE tidy() LANGUAGE sql AS 'SELECT 1';
"""


@contextmanager
def seeded(server):
    with new_database(server) as dsn:
        execute(dsn, SEED)
        yield dsn


@pytest.fixture
def shop(pg18):
    with seeded(pg18) as dsn:
        yield dsn


@contextmanager
def roles(dsn, *rights, count=2):
    """Roles without a login that exist for a while; {} to {n} in the rights stand for them."""
    names = [f"g_{secrets.token_hex(4)}" for _ in range(count)]
    execute(dsn, *(f"CREATE ROLE {name}" for name in names), *(right.format(*names) for right in rights))
    try:
        yield names
    finally:
        execute(dsn, f"DROP OWNED BY {', '.join(names)}", f"DROP ROLE {', '.join(names)}")


def can(dsn, role, privilege, table="orders"):
    return value(dsn, "SELECT has_table_privilege(%s, %s, %s)", (role, table, privilege))


def acl(dsn):
    """Every right on relations and their columns, as the catalog keeps it."""
    tables = "SELECT string_agg(relname || coalesce(relacl::text, ''), '|' ORDER BY relname) FROM pg_class"
    where = " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S')"
    columns = "SELECT string_agg(attrelid::regclass || attname || attacl::text, '|' ORDER BY 1) FROM pg_attribute"
    return value(dsn, tables + where), value(dsn, f"{columns} WHERE attacl IS NOT NULL AND attrelid > 16383")


@on_loop
async def test_the_undo_brings_back_exactly_the_rights_of_before(every_pg):
    """On every release: only what is new is taken back; a right that was there before the grant stays."""
    with seeded(every_pg) as dsn, roles(dsn, "GRANT SELECT ON orders TO {0}") as (app, _):
        async with attached(dsn) as db:
            before = acl(dsn)
            run = Run(
                "grant_permission",
                await planned(db, "grant_permission", role=app, object="orders", privileges="select, insert"),
            )
            effect = await run.perform(db)
            probed = await run.probe(db)
        assert effect.state == probed.state == "succeeded"
        assert run.plan.statements == (f"GRANT SELECT, INSERT ON TABLE public.orders TO {app}",)
        assert run.plan.size == "now: SELECT; then: SELECT and INSERT"
        assert run.plan.undo == f"REVOKE INSERT ON TABLE public.orders FROM {app}"
        assert can(dsn, app, "INSERT")
        execute(dsn, run.plan.undo)
        assert acl(dsn) == before
        assert can(dsn, app, "SELECT")


@on_loop
async def test_revoking_and_giving_back_leaves_no_trace(every_pg):
    """On every release: grants on columns, the right to pass on, and what was passed on go and come back, by whom they came."""
    rights = (
        "GRANT USAGE ON SCHEMA public TO {0}",
        "GRANT SELECT, UPDATE ON orders TO {0} WITH GRANT OPTION",
        "GRANT SELECT (total) ON orders TO {0}",
        "SET ROLE {0}; GRANT SELECT ON orders TO {1}; RESET ROLE",
    )
    with seeded(every_pg) as dsn, roles(dsn, *rights) as (app, other):
        before = acl(dsn)
        asked = {"role": app, "object": "orders", "privileges": ["SELECT"]}
        async with attached(dsn) as db:
            with pytest.raises(PreconditionFailed, match=f"SELECT of {other}, granted by {app}") as refusal:
                await planned(db, "revoke_permission", **asked)
            plan = await planned(db, "revoke_permission", **asked, cascade=True)
            effect = await Run("revoke_permission", plan).perform(db)
        assert "cascade=true" in refusal.value.hint
        assert plan.risk is Risk.CRITICAL
        assert any(f"SELECT (total) of {app}" in caution for caution in plan.cautions)
        assert effect.state == "succeeded"
        assert not can(dsn, app, "SELECT")
        assert not can(dsn, other, "SELECT")
        execute_script(dsn, plan.undo)
        assert acl(dsn) == before


def execute_script(dsn, text):
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in text.split(";\n"):
            connection.execute(statement)


@on_loop
async def test_what_changes_nothing_is_refused_and_says_why(shop):
    """The server would report success: instead the answer says where the right comes from."""
    with roles(shop, "GRANT SELECT ON items TO {0}", "GRANT SELECT ON orders TO PUBLIC", "GRANT {1} TO {0}") as (
        app,
        _,
    ):
        async with attached(shop) as db:
            with pytest.raises(PreconditionFailed, match="Nothing to do"):
                await planned(db, "grant_permission", role=app, object="items", privileges=["SELECT"])
            with pytest.raises(PreconditionFailed, match="SELECT: through PUBLIC") as public:
                await planned(db, "revoke_permission", role=app, object="orders", privileges=["SELECT"])
            with pytest.raises(PreconditionFailed, match="Nothing to do") as nothing:
                await planned(db, "revoke_permission", role=app, object="items", privileges=["INSERT"])
    assert "Revoke it from public" in public.value.hint
    assert "does not have it" in nothing.value.hint


@on_loop
async def test_a_right_that_remains_is_named_with_its_reason(shop):
    """Through PUBLIC, another role, the owner, a predefined role: the card says so before, the report after."""
    rights = (
        "GRANT SELECT ON orders TO {0}, {1}",
        "GRANT {1} TO {0}",
        "GRANT INSERT ON orders TO {0}, PUBLIC",
        "GRANT pg_read_all_data TO {0}",
    )
    with roles(shop, *rights) as (app, team):
        async with attached(shop) as db:
            plan = await planned(db, "revoke_permission", role=app, object="orders", privileges=["SELECT", "INSERT"])
            effect = await Run("revoke_permission", plan).perform(db)
    assert plan.size == "now: SELECT and INSERT; then: SELECT and INSERT"
    assert any(f"keeps SELECT: {app} has pg_read_all_data and through {team}" in caution for caution in plan.cautions)
    assert any("keeps INSERT: through PUBLIC" in caution for caution in plan.cautions)
    assert effect.state == "succeeded"
    assert "still has SELECT and INSERT by other ways" in effect.summary


@on_loop
async def test_only_grants_that_are_ours_to_take_go(shop):
    """What another role granted stays, and is named; when nothing else is there the request is refused."""
    rights = (
        "GRANT USAGE ON SCHEMA public TO {0}",
        "GRANT SELECT ON orders TO {0} WITH GRANT OPTION",
        "SET ROLE {0}; GRANT SELECT ON orders TO {1}; RESET ROLE",
    )
    with roles(shop, *rights) as (giver, app):
        async with attached(shop) as db:
            with pytest.raises(PreconditionFailed, match=f"granted by {giver}") as refusal:
                await planned(db, "revoke_permission", role=app, object="orders", privileges=["SELECT"])
            execute(shop, f"GRANT SELECT ON orders TO {app}")
            plan = await planned(db, "revoke_permission", role=app, object="orders", privileges=["SELECT"])
            effect = await Run("revoke_permission", plan).perform(db)
    assert f"Only {giver} takes back" in refusal.value.hint
    assert any("What other roles granted stays" in caution for caution in plan.cautions)
    assert "still has SELECT" in effect.summary


@on_loop
async def test_the_card_says_what_the_right_still_lacks(shop):
    """USAGE on the schema and on the sequence of a serial column are told, and offered as requests that work."""
    with roles(shop, "REVOKE USAGE ON SCHEMA public FROM PUBLIC") as (app, _):
        async with attached(shop) as db:
            run = Run(
                "grant_permission",
                await planned(db, "grant_permission", role=app, object="orders", privileges=["INSERT"]),
            )
            effect = await run.perform(db)
            for offered in effect.suggestions:
                assert (await performed(db, offered.tool.rpartition(".")[2], **offered.arguments)).state == "succeeded"
        text = " ".join(run.plan.cautions)
        assert "lacks USAGE on schema public" in text
        assert "public.orders_id_seq" in text
        inserts = f"SET ROLE {app}; INSERT INTO public.orders (status) VALUES ('new'); RESET ROLE"
        execute(shop, inserts)


OBJECTS = [
    ({"object": "orders", "privileges": ["ALL"]}, "ON TABLE public.orders"),
    ({"object": "orders", "privileges": ["UPDATE"], "columns": ["status", "total"]}, "UPDATE (status, total) ON TABLE"),
    ({"object": 'apart."Mixed Case"', "privileges": ["SELECT"], "columns": ["Weird Col"]}, 'SELECT ("Weird Col")'),
    ({"kind": "view", "object": "paid", "privileges": ["SELECT"]}, "ON TABLE public.paid"),
    ({"kind": "sequence", "object": "orders_id_seq", "privileges": ["ALL"]}, "ON SEQUENCE public.orders_id_seq"),
    ({"kind": "schema", "object": "apart", "privileges": ["USAGE", "CREATE"]}, "USAGE, CREATE ON SCHEMA apart"),
    ({"kind": "function", "object": "total(int, text[])", "privileges": ["EXECUTE"]}, "ON FUNCTION public.total("),
    ({"kind": "function", "object": "tidy", "privileges": ["EXECUTE"]}, "ON PROCEDURE public.tidy()"),
    ({"kind": "all_tables", "object": "public", "privileges": ["SELECT"]}, "ON ALL TABLES IN SCHEMA public"),
    (
        {"kind": "future_tables", "object": "apart", "privileges": ["SELECT"]},
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres",
    ),
]


@on_loop
async def test_every_kind_of_object_is_granted_and_revoked(every_pg):
    """On every release, each kind goes there and back: the second revoke finds nothing left to do."""
    with seeded(every_pg) as dsn, roles(dsn) as (app, team):
        objects = [*OBJECTS, ({"kind": "role", "object": team}, f"GRANT {team} TO {app}")]
        database = value(dsn, "SELECT current_database()")
        objects.append(({"kind": "database", "object": database, "privileges": ["CREATE", "TEMPORARY"]}, "ON DATABASE"))
        async with attached(dsn) as db:
            for asked, expected in objects:
                plan = await planned(db, "grant_permission", role=app, **asked)
                assert expected in plan.statements[0], asked
                assert (await Run("grant_permission", plan).perform(db)).state == "succeeded", asked
                assert (await performed(db, "revoke_permission", role=app, **asked)).state == "succeeded", asked
                with pytest.raises(PreconditionFailed, match="Nothing to do"):
                    await planned(db, "revoke_permission", role=app, **asked)


@on_loop
async def test_future_tables_are_those_of_one_role(shop):
    """The rights appear on a table that this role makes afterwards, on no other."""
    with roles(shop, "GRANT CREATE ON SCHEMA public TO {1}") as (app, maker):
        async with attached(shop) as db:
            asked = {
                "role": app,
                "kind": "future_tables",
                "object": "public",
                "privileges": ["SELECT"],
                "made_by": maker,
            }
            effect = await performed(db, "grant_permission", **asked)
        execute(shop, f"SET ROLE {maker}; CREATE TABLE public.later (a int); RESET ROLE", "CREATE TABLE other (a int)")
        assert effect.state == "succeeded"
        assert can(shop, app, "SELECT", "later")
        assert not can(shop, app, "SELECT", "other")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"role": "public", "object": "orders", "privileges": ["SELECT"]}, "PUBLIC"),
        ({"role": "{0}", "object": "orders", "privileges": ["SELECT"], "grantable": True}, "pass it on"),
        ({"role": "{0}", "object": "public", "kind": "all_tables", "privileges": ["SELECT"]}, "all"),
        ({"role": "{0}", "object": "{1}", "kind": "role", "grantable": True}, "pass it on"),
        ({"role": "{0}", "object": "pg_execute_server_program", "kind": "role"}, "superuser"),
        ({"role": "{0}", "object": "postgres", "kind": "role"}, "is a superuser"),
    ],
    ids=["to-public", "grant-option", "all-tables", "admin-option", "dangerous-role", "superuser"],
)
def test_far_reaching_grants_are_critical(shop, asked, reason):
    """The level and its reason come from arguments and catalog, never lower than high."""

    @on_loop
    async def check():
        with roles(shop) as names:
            filled = {k: v.format(*names) if isinstance(v, str) else v for k, v in asked.items()}
            async with attached(shop) as db:
                plan = await planned(db, "grant_permission", **filled)
        assert plan.risk is Risk.CRITICAL
        assert any(reason in text for text in plan.reasons)

    check()


def test_the_arguments_alone_say_what_is_critical():
    """Before the database is asked, PUBLIC, all tables, passing on and cascading are critical; the rest is high."""
    grant, revoke = plugin.toolbox.tools["grant_permission"], plugin.toolbox.tools["revoke_permission"]
    plain = {"role": "app", "object": "orders", "privileges": ["SELECT"]}

    def level(tool, **more):
        return tool.assess(tool.parse({**plain, **more})).risk

    assert level(grant) is level(revoke) is Risk.HIGH
    for more in ({"role": "Public"}, {"kind": "all_tables"}, {"grantable": True}):
        assert level(grant, **more) is Risk.CRITICAL
    assert level(revoke, cascade=True) is Risk.CRITICAL


@on_loop
async def test_who_may_not_grant_is_told_the_missing_right(every_pg):
    """On every release: neither owner nor grant option, and for membership no ADMIN OPTION."""
    with seeded(every_pg) as dsn, roles(dsn) as (app, team), role(dsn) as nobody:
        async with attached(nobody) as db:
            with pytest.raises(MissingRight, match="not the owner") as table:
                await planned(db, "grant_permission", role=app, object="public.orders", privileges=["SELECT"])
            with pytest.raises(MissingRight) as member:
                await planned(db, "grant_permission", role=app, object=team, kind="role")
            with pytest.raises(MissingRight) as superuser:
                await planned(db, "grant_permission", role=app, object="postgres", kind="role")
            with pytest.raises(MissingRight) as future:
                await planned(
                    db,
                    "grant_permission",
                    role=app,
                    object="public",
                    kind="future_tables",
                    privileges=["SELECT"],
                    made_by=team,
                )
    assert "WITH GRANT OPTION" in table.value.facts["right"]
    assert member.value.facts["right"] == f"ADMIN OPTION on role {team}"
    assert superuser.value.facts["right"] == "SUPERUSER"
    assert future.value.facts["right"] == f"membership in {team}"


@on_loop
async def test_a_grant_option_is_enough_and_the_grant_is_in_its_name(every_pg):
    """Who was allowed to pass a right on grants it in their own name, and takes back only that."""
    with seeded(every_pg) as dsn, roles(dsn, "GRANT USAGE ON SCHEMA public TO PUBLIC") as (app, _):
        rights = ("GRANT SELECT ON orders TO {} WITH GRANT OPTION",)
        with role(dsn, *rights) as giver:
            async with attached(giver) as db:
                granted = await performed(db, "grant_permission", role=app, object="orders", privileges=["SELECT"])
                assert can(dsn, app, "SELECT")
                revoked = await performed(db, "revoke_permission", role=app, object="orders", privileges=["SELECT"])
    assert granted.state == revoked.state == "succeeded"


@on_loop
async def test_membership_options_come_back_as_they_were(every_pg):
    """The undo of revoking a membership restores ADMIN, and from release 16 INHERIT and SET."""
    options = "WITH ADMIN TRUE, INHERIT FALSE, SET TRUE" if every_pg.binaries.major >= 16 else "WITH ADMIN OPTION"
    state = "SELECT to_jsonb(m) - 'oid' FROM pg_auth_members AS m WHERE roleid = %s::regrole"
    with seeded(every_pg) as dsn, roles(dsn, "GRANT {1} TO {0} " + options) as (app, team):
        before = value(dsn, state, (team,))
        async with attached(dsn) as db:
            plan = await planned(db, "revoke_permission", role=app, object=team, kind="role")
            effect = await Run("revoke_permission", plan).perform(db)
        assert effect.state == "succeeded"
        assert value(dsn, state, (team,)) is None
        execute_script(dsn, plan.undo)
        assert value(dsn, state, (team,)) == before


@on_loop
async def test_a_change_by_somebody_else_breaks_the_precondition(shop):
    """A grant that appears between approval and run changes what the approval was bound to; one to a stranger does not."""
    with roles(shop) as (app, other):
        async with attached(shop) as db:
            asked = {"role": app, "object": "orders", "privileges": ["SELECT", "INSERT"]}
            first = await planned(db, "grant_permission", **asked)
            execute(shop, f"GRANT DELETE ON orders TO {other}")
            second = await planned(db, "grant_permission", **asked)
            execute(shop, f"GRANT INSERT ON orders TO {app}")
            third = await planned(db, "grant_permission", **asked)
    assert first.preconditions == second.preconditions
    assert first.preconditions != third.preconditions


@on_loop
async def test_success_without_effect_is_a_failure(shop):
    """A REVOKE that reports success while the grant is there again is found out by reading back."""
    with roles(shop, "GRANT SELECT ON orders TO {0}") as (app, _):
        async with attached(shop) as db:
            plan = await planned(db, "revoke_permission", role=app, object="orders", privileges=["SELECT"])
            harmless = plan.model_copy(update={"statements": (f"REVOKE INSERT ON TABLE public.orders FROM {app}",)})
            effect = await Run("revoke_permission", harmless).perform(db)
            probed = await Run("revoke_permission", plan, {"pid": 1, "backend_start": "2020-01-01"}).probe(db)
    assert effect.state == probed.state == "failed"
    assert effect.error_code == "execution.effect_missing"
    assert "SELECT is still there" in effect.summary


@pytest.mark.parametrize(
    "asked",
    [
        {"object": "orders", "privileges": ["USAGE"]},
        {"object": "orders", "privileges": []},
        {"object": "orders", "privileges": ["DELETE"], "columns": ["id"]},
        {"object": "nowhere", "privileges": ["SELECT"]},
        {"object": "total", "kind": "function", "privileges": ["EXECUTE"]},
        {"object": "orders; DROP TABLE orders", "privileges": ["SELECT"]},
        {"object": "orders", "kind": "sequence", "privileges": ["USAGE"]},
        {"object": "orders", "privileges": ["SELECT"], "made_by": "postgres"},
        {"object": "total(int); DROP TABLE orders; --", "kind": "function", "privileges": ["EXECUTE"]},
    ],
)
def test_what_is_outside_the_vocabulary_is_refused(shop, asked):
    """No text reaches a statement but names that were resolved and words of a closed list."""

    @on_loop
    async def check():
        with roles(shop) as (app, _):
            async with attached(shop) as db:
                with pytest.raises(InvalidArguments):
                    await planned(db, "grant_permission", role=app, **asked)

    check()


@on_loop
async def test_the_catalog_itself_is_left_alone(shop):
    """No grant opens the system's tables or schemas."""
    with roles(shop) as (app, _):
        async with attached(shop) as db:
            for asked in (
                {"object": "pg_authid", "privileges": ["SELECT"]},
                {"object": "pg_catalog", "kind": "schema", "privileges": ["CREATE"]},
                {"object": "pg_catalog", "kind": "all_tables", "privileges": ["SELECT"]},
            ):
                with pytest.raises(PreconditionFailed):
                    await planned(db, "grant_permission", role=app, **asked)


@on_loop
async def test_maintain_came_with_release_17(every_pg):
    """Below 17 the answer says so; from 17 on it is granted."""
    with seeded(every_pg) as dsn, roles(dsn) as (app, _):
        async with attached(dsn) as db:
            asked = {"role": app, "object": "orders", "privileges": ["MAINTAIN"]}
            if db.server.major >= 17:
                assert (await performed(db, "grant_permission", **asked)).state == "succeeded"
            else:
                with pytest.raises(InvalidArguments, match="came with PostgreSQL 17"):
                    await planned(db, "grant_permission", **asked)


def test_through_the_gate_a_grant_runs_once_and_only_on_the_state_that_was_approved(ops, shop):
    """Approved and run it is there; when somebody grants meanwhile the approval is stale and nothing is sent."""
    ops.attach("postgresql", "shop", server="one", environment="development", dsn=shop)
    with roles(shop) as (app, other):
        call = ops.run("grant_permission", on="shop", role=app, object="orders", privileges=["select"])
        assert call.status == "waiting"
        assert not can(shop, app, "SELECT")
        ops.approve(call.approval.id)
        assert call.wait(timeout=60).status == "succeeded"
        assert can(shop, app, "SELECT")
        late = ops.run("grant_permission", on="shop", role=other, object="orders", privileges=["select", "insert"])
        execute(shop, f"GRANT SELECT ON orders TO {other}")
        ops.approve(late.approval.id)
        assert late.wait(timeout=60).record.error_code == "call.precondition_changed"
        assert not can(shop, other, "INSERT")


@on_loop
async def test_a_grant_that_waits_gives_up_and_says_so(shop):
    """While somebody else's change of the same rights is not committed, it fails in time and leaves nothing."""
    with roles(shop) as (app, other):
        async with attached(shop) as db:
            run = Run(
                "grant_permission",
                await planned(db, "grant_permission", role=app, object="orders", privileges="select"),
            )
            with transaction(shop, f"GRANT SELECT ON orders TO {other}"):
                effect = await run.perform(db)
    assert effect.state == "failed"
    assert effect.error_code == "55P03"
    assert effect.figures == {"rights_before": [], "rights_after": []}


@on_loop
async def test_the_report_says_what_the_role_could_do_before_and_can_do_now(shop):
    """Read from the server on both sides, not taken from the request."""
    with roles(shop, "GRANT UPDATE ON orders TO {0}", "GRANT USAGE ON SCHEMA public TO {0}") as (app, _):
        async with attached(shop) as db:
            effect = await performed(db, "grant_permission", role=app, object="orders", privileges=["select", "update"])
    assert effect.figures["rights_before"] == ["UPDATE"]
    assert effect.figures["rights_after"] == ["SELECT", "UPDATE"]


@on_loop
async def test_taking_a_right_from_ourselves_is_critical(shop):
    """The role that we are connected as is named in the reasons."""
    with role(shop, "ALTER TABLE items OWNER TO {}") as owner:
        async with attached(owner) as db:
            plan = await planned(
                db, "revoke_permission", role=db.server.role, object="public.items", privileges=["delete"]
            )
        execute(shop, "ALTER TABLE items OWNER TO postgres")
    assert plan.risk is Risk.CRITICAL
    assert any("connected as" in reason for reason in plan.reasons)


@on_loop
async def test_a_table_that_is_locked_exclusively_does_not_hide_its_rights(pg):
    """Planning answers; below release 18 the grant does not even wait, from then on the card names the holder and it gives up."""
    with (
        seeded(pg) as dsn,
        roles(dsn) as (app, _),
        transaction(dsn, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE") as holder,
    ):
        async with attached(dsn) as db:
            plan = await planned(db, "grant_permission", role=app, object="orders", privileges=["select"])
            effect = await Run("grant_permission", plan).perform(db)
        pid = holder.info.backend_pid
    if pg.binaries.major < 18:
        assert plan.waits == ()
        assert effect.state == "succeeded"
    else:
        assert f"pid {pid}" in plan.waits[0]
        assert "ACCESS SHARE" in plan.lock
        assert (effect.state, effect.error_code) == ("failed", "55P03")


@pytest.mark.parametrize(
    "name",
    ["A" + "ö" * 31, 'with "quotes" and ; -- \'', "select", "Public"],
    ids=["63 bytes", "quotes", "keyword", "capital"],
)
def test_any_name_of_role_schema_and_table_is_taken_letter_by_letter(shop, name):
    """The statement, the undo and the reading back hold for names that need quoting."""
    quoted = Identifier(name).as_string(None)
    schema_and_table = SQL("{0}.{0}").format(Identifier(name)).as_string(None)
    execute(shop, f"CREATE ROLE {quoted}", f"CREATE SCHEMA {quoted}", f"CREATE TABLE {schema_and_table} ({quoted} int)")

    @on_loop
    async def check():
        async with attached(shop) as db:
            for asked in (
                {"object": schema_and_table, "privileges": ["all"]},
                {"object": schema_and_table, "privileges": ["select"], "columns": [name]},
                {"object": quoted, "kind": "schema", "privileges": ["usage"]},
                {"object": quoted, "kind": "future_tables", "privileges": ["select"]},
            ):
                before = acl(shop)
                plan = await planned(db, "grant_permission", role=quoted, **asked)
                assert (await Run("grant_permission", plan).perform(db)).state == "succeeded"
                execute_script(shop, plan.undo)
                assert acl(shop) == before
            gone = await performed(db, "drop_user", name=quoted, drop_owned=True)
            assert gone.state == "succeeded"

    try:
        check()
    finally:
        if value(shop, "SELECT count(*) FROM pg_roles WHERE rolname = %s", (name,)):
            execute(shop, f"DROP OWNED BY {quoted} CASCADE", f"DROP ROLE {quoted}")


@on_loop
async def test_a_standby_is_told_from_its_primary(pg18):
    """Rights are changed on the primary: a standby refuses all three tools before anything is sent."""
    with EmbeddedPostgres(pg18.binaries) as primary:
        standby = primary.add_standby("rights")
        async with attached(standby.dsn) as db:
            for tool, asked in (
                (
                    "grant_permission",
                    {"role": "pg_monitor", "object": "public", "kind": "schema", "privileges": ["usage"]},
                ),
                (
                    "revoke_permission",
                    {"role": "public", "object": "public", "kind": "schema", "privileges": ["usage"]},
                ),
                ("drop_user", {"name": "postgres"}),
            ):
                with pytest.raises(PreconditionFailed, match="standby"):
                    await planned(db, tool, **asked)
