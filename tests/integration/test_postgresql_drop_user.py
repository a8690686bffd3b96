"""drop_user: a role goes from the whole server, database by database, or is only closed; nothing is lost unseen."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from opsagent_jupyter.errors import InvalidArguments, MissingRight, PreconditionFailed, ReasonRequired
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.postgresql import plugin
from opsagent_jupyter.plugins.postgresql.changes.drop_user import place_of, placed
from tests.integration.postgresql_stage import (
    Run,
    attached,
    eventually_async,
    execute,
    on_loop,
    performed,
    planned,
    role,
    transaction,
    value,
)
from tests.postgres import new_database


@dataclass
class Stage:
    """Two databases, a role that owns something and has rights in both, and one that can inherit."""

    home: str
    other: str
    app: str
    heir: str
    password: str

    @property
    def login(self):
        return make_conninfo(self.home, user=self.app, password=self.password)

    def exists(self):
        return value(self.home, "SELECT count(*) FROM pg_roles WHERE rolname = %s", (self.app,)) == 1

    def owner(self, dsn, table):
        return value(dsn, "SELECT relowner::regrole::text FROM pg_class WHERE oid = %s::regclass", (table,))


@contextmanager
def staged(server):
    app, heir, password = f"d_{secrets.token_hex(4)}", f"h_{secrets.token_hex(4)}", secrets.token_hex(12)
    with new_database(server) as home, new_database(server) as other:
        stage = Stage(home, other, app, heir, password)
        execute(
            home,
            f"CREATE ROLE {app} LOGIN PASSWORD '{password}' CONNECTION LIMIT 7",
            f"CREATE ROLE {heir}",
            "CREATE TABLE mine (a int)",
            f"ALTER TABLE mine OWNER TO {app}",
            "CREATE TABLE granted (a int)",
            f"GRANT SELECT ON granted TO {app}",
        )
        execute(
            other,
            f"CREATE SCHEMA theirs AUTHORIZATION {app}",
            "CREATE TABLE theirs.t (a int)",
            f"GRANT INSERT ON theirs.t TO {app}",
        )
        try:
            yield stage
        finally:
            for dsn in (home, other):
                for name in (app, heir):
                    if value(dsn, "SELECT count(*) FROM pg_roles WHERE rolname = %s", (name,)):
                        execute(dsn, f"DROP OWNED BY {name} CASCADE")
            execute(home, f"DROP ROLE IF EXISTS {app}", f"DROP ROLE IF EXISTS {heir}")


@pytest.fixture
def stage(pg18):
    with staged(pg18) as found:
        yield found


async def dropping(db, stage, **more):
    return await planned(db, "drop_user", name=stage.app, reassign_to=stage.heir, drop_owned=True, **more)


def database_of(dsn):
    return psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]


@on_loop
async def test_a_role_goes_from_every_database_and_what_it_owned_goes_to_the_heir(every_pg):
    """On every release: owned objects are kept by the heir, rights go, and the card has named each of them."""
    with staged(every_pg) as stage:
        async with attached(stage.home) as db:
            run = Run("drop_user", await dropping(db, stage))
            effect = await run.perform(db)
            probed = await run.probe(db)
        text = " ".join(run.plan.cautions)
        assert run.plan.risk is Risk.CRITICAL
        for named in ("table mine", "schema theirs", "rights on table granted", "rights on table theirs.t"):
            assert named in text
        assert stage.password not in run.plan.model_dump_json()
        assert "SCRAM" not in run.plan.model_dump_json()
        assert "CONNECTION LIMIT 7" in run.plan.undo_note
        assert effect.state == probed.state == "succeeded"
        assert not stage.exists()
        assert stage.owner(stage.home, "mine") == stage.heir
        assert (
            value(stage.other, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'theirs'")
            == stage.heir
        )


@on_loop
async def test_what_runs_is_what_is_shown_in_that_order_and_in_those_databases(stage, pg18):
    """The server's own log holds the plan's statements, letter by letter, each in the database that its first line names."""
    execute(stage.home, "ALTER ROLE postgres SET log_statement = 'all'")
    execute(stage.home, "ALTER SYSTEM SET log_line_prefix = '<%d> '", "SELECT pg_reload_conf()")
    file = pg18.data_dir.parent / "server.log"
    try:
        async with attached(stage.home) as db:
            plan = await dropping(db, stage)
            before = len(file.read_text())
            await Run("drop_user", plan).perform(db)
            log = file.read_text()[before:].replace("\n\t", "\n")
    finally:
        execute(stage.home, "ALTER ROLE postgres RESET log_statement")
        execute(stage.home, "ALTER SYSTEM RESET log_line_prefix", "SELECT pg_reload_conf()")
    position = 0
    for statement in plan.statements:
        position = log.index(statement, position)
        line = log[log.rindex("\n<", 0, position) + 1 : position]
        assert line.startswith(f"<{place_of(statement)}> ")
    changing = ("REASSIGN", "DROP", "BEGIN", "COMMIT")
    ran = [line for line in log.splitlines() if line.startswith(changing) and "READ ONLY" not in line]
    assert ran == [statement.partition("\n")[2] for statement in plan.statements]


def test_the_line_that_names_the_database_can_be_read_back():
    """Whatever a database is called, its line says exactly that name, or the plan is refused."""
    for name in ("shop", "Mixed Case", 'with "quotes"', "--", "é", "x" * 63):
        assert place_of(placed(name, "DROP ROLE x")) == name
    with pytest.raises(PreconditionFailed):
        placed("two\nlines", "DROP ROLE x")
    with pytest.raises(InvalidArguments):
        place_of("DROP ROLE x")


@on_loop
async def test_nothing_is_given_away_or_lost_without_being_asked_for(stage):
    """Owned objects need an heir, rights need drop_owned; each refusal lists them and offers the way that can be taken back."""
    async with attached(stage.home) as db:
        with pytest.raises(PreconditionFailed, match="owns objects") as owner:
            await planned(db, "drop_user", name=stage.app, drop_owned=True)
        with pytest.raises(PreconditionFailed, match=r"rights on table theirs\.t") as rights:
            await planned(db, "drop_user", name=stage.app, reassign_to=stage.heir)
    assert database_of(stage.other) in str(owner.value)
    assert "disable_only=true" in owner.value.hint
    assert "disable_only=true" in rights.value.hint
    assert stage.exists()


@on_loop
async def test_closing_a_role_can_be_taken_back(stage):
    """disable_only forbids the login, leaves everything else, is high instead of critical, and its undo opens it again."""
    async with attached(stage.home) as db:
        plan = await planned(db, "drop_user", name=stage.app, disable_only=True)
        effect = await Run("drop_user", plan).perform(db)
        with pytest.raises(PreconditionFailed, match="Nothing to do"):
            await planned(db, "drop_user", name=stage.app, disable_only=True)
    assert plan.risk is Risk.HIGH
    assert plan.statements == (f"ALTER ROLE {stage.app} NOLOGIN",)
    assert effect.state == "succeeded"
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(stage.login)
    execute(stage.home, plan.undo)
    psycopg.connect(stage.login).close()


def test_only_closing_is_less_than_critical():
    """The arguments alone make it critical, unless it is only the login that is forbidden."""
    tool = plugin.toolbox.tools["drop_user"]
    assert tool.risk is Risk.CRITICAL
    assert tool.assess(tool.parse({"name": "app"})).risk is Risk.CRITICAL
    assert tool.assess(tool.parse({"name": "app", "disable_only": True})).risk is Risk.HIGH


@on_loop
async def test_live_sessions_are_told_and_can_be_ended_afterwards(stage):
    """They go on running without their role: the card names them, the report offers to end each."""
    with transaction(stage.login, "SELECT 1", application="old worker") as session:
        async with attached(stage.home) as db:
            plan = await dropping(db, stage)
            effect = await Run("drop_user", plan).perform(db)
            pid = session.info.backend_pid
            assert any(f"pid {pid} (old worker" in caution for caution in plan.cautions)
            assert effect.state == "succeeded"
            assert "1 session of it goes on running" in effect.summary
            (offered,) = effect.suggestions
            assert offered.arguments == {"pid": pid}
            assert (await performed(db, "kill_connection", **offered.arguments)).state == "succeeded"


@on_loop
async def test_a_failure_in_one_database_says_what_is_done_in_the_others(stage):
    """The databases before it stay done, its own work is rolled back, the role is there, and all of that is reported."""
    with transaction(stage.home, "LOCK TABLE mine IN ACCESS SHARE MODE") as reader:
        async with attached(stage.home) as db:
            run = Run("drop_user", await dropping(db, stage))
            effect = await run.perform(db)
            probed = await run.probe(db)
        (holder,) = run.plan.waits
        assert f"pid {reader.info.backend_pid} (checkout" in holder
    assert effect.state == probed.state == "failed"
    assert effect.error_code == "55P03"
    assert effect.residue
    assert database_of(stage.other) in effect.residue[0]
    assert "still there" in effect.summary
    assert stage.exists()
    assert stage.owner(stage.home, "mine") == stage.app
    assert value(stage.other, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'theirs'") == stage.heir
    async with attached(stage.home) as db:
        assert (await Run("drop_user", await dropping(db, stage)).perform(db)).state == "succeeded"


@on_loop
async def test_a_database_that_cannot_be_reached_stops_the_plan_only_when_something_hangs_there(stage, pg18):
    """With a dependency in it the plan is refused, without one the drop goes on."""
    other = database_of(stage.other)
    execute(stage.home, f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS false')
    try:
        async with attached(stage.home) as db:
            with pytest.raises(PreconditionFailed, match="does not take connections"):
                await dropping(db, stage)
    finally:
        execute(stage.home, f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS true')
    execute(stage.other, f"REASSIGN OWNED BY {stage.app} TO {stage.heir}", f"DROP OWNED BY {stage.app}")
    execute(stage.home, f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS false')
    try:
        async with attached(stage.home) as db:
            effect = await Run("drop_user", await dropping(db, stage)).perform(db)
    finally:
        execute(stage.home, f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS true')
    assert effect.state == "succeeded"


@on_loop
async def test_a_database_that_is_gone_at_the_run_is_a_known_failure(stage):
    """When another database stops taking connections after the approval, nothing was sent to it and the role is there."""
    other = database_of(stage.other)
    async with attached(stage.home) as db:
        plan = await dropping(db, stage)
        execute(stage.home, f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS false')
        try:
            effect = await Run("drop_user", plan).perform(db)
        finally:
            execute(stage.home, f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS true')
    assert effect.state == "failed"
    assert stage.exists()


@on_loop
async def test_a_database_that_the_role_owns_goes_to_the_heir(stage):
    """Ownership of a database counts as owned, and is named; REASSIGN moves it."""
    name = database_of(stage.other)
    execute(stage.home, f'ALTER DATABASE "{name}" OWNER TO {stage.app}')
    async with attached(stage.home) as db:
        with pytest.raises(PreconditionFailed, match="1 database owned"):
            await planned(db, "drop_user", name=stage.app, drop_owned=True)
        plan = await dropping(db, stage)
        effect = await Run("drop_user", plan).perform(db)
    assert any(f"database {name}" in caution for caution in plan.cautions)
    assert effect.state == "succeeded"
    owner = "SELECT datdba::regrole::text FROM pg_database WHERE datname = %s"
    assert value(stage.home, owner, (name,)) == stage.heir
    execute(stage.home, f'ALTER DATABASE "{name}" OWNER TO postgres')


@on_loop
async def test_memberships_settings_policies_and_default_privileges_are_told(stage):
    """Whatever goes silently with the role stands on the card."""
    execute(
        stage.home,
        f"GRANT {stage.heir} TO {stage.app}",
        f"ALTER ROLE {stage.app} SET work_mem = '8MB'",
        "ALTER TABLE granted ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY part ON granted TO {stage.app} USING (true)",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {stage.app} GRANT SELECT ON TABLES TO {stage.heir}",
    )
    async with attached(stage.home) as db:
        plan = await dropping(db, stage)
        effect = await Run("drop_user", plan).perform(db)
    text = " ".join(plan.cautions)
    for told in (f"in {stage.heir}", "work_mem", "policy part on table granted", "default privileges"):
        assert told in text
    assert f"GRANT {stage.heir} TO {stage.app}" in plan.undo_note
    assert effect.state == "succeeded"


@on_loop
async def test_what_hangs_on_the_role_and_its_sessions_are_bound_to_the_approval(stage):
    """A grant in any database, and a session that comes, change the preconditions; a stranger's does not."""
    async with attached(stage.home) as db:
        first = await dropping(db, stage)
        execute(stage.other, f"GRANT SELECT ON theirs.t TO {stage.heir}")
        same = await dropping(db, stage)
        with transaction(stage.login, "SELECT 1"):
            connected = await dropping(db, stage)
        execute(stage.other, "CREATE TABLE more (a int)", f"GRANT SELECT ON more TO {stage.app}")
        granted = await dropping(db, stage)
    assert first.preconditions == same.preconditions
    assert first.preconditions["sessions"] != connected.preconditions["sessions"]
    assert first.preconditions["dependencies"] != granted.preconditions["dependencies"]


@on_loop
async def test_roles_that_must_stay_are_refused(stage):
    """The server's own roles, the one it was made with, and ourselves cannot be dropped or closed."""
    async with attached(stage.home) as db:
        for name in ("pg_monitor", "postgres"):
            for more in ({}, {"disable_only": True}):
                with pytest.raises(PreconditionFailed):
                    await planned(db, "drop_user", name=name, **more)
        with pytest.raises(InvalidArguments, match="another role"):
            await planned(db, "drop_user", name=stage.app, reassign_to=stage.app)
        with pytest.raises(InvalidArguments, match="no role"):
            await planned(db, "drop_user", name="nobody_at_all")
    with role(stage.home, attributes="SUPERUSER") as mine:
        async with attached(mine) as db:
            with pytest.raises(PreconditionFailed, match="connected as"):
                await planned(db, "drop_user", name=db.server.role)


@on_loop
async def test_who_may_not_drop_is_told_the_missing_right(every_pg):
    """CREATEROLE, from release 16 ADMIN on the role, the rights of the roles whose objects change hands, SUPERUSER."""
    with staged(every_pg) as stage, role(stage.home) as nobody, role(stage.home, attributes="CREATEROLE") as maker:
        async with attached(nobody) as db:
            with pytest.raises(MissingRight) as none:
                await dropping(db, stage)
        async with attached(maker) as db:
            with pytest.raises(MissingRight) as some:
                await dropping(db, stage)
            major = db.server.major
    assert none.value.facts["right"] == "CREATEROLE"
    expected = "ADMIN OPTION on role" if major >= 16 else "membership in"
    assert some.value.facts["right"] == f"{expected} {stage.app}"


@on_loop
async def test_an_operator_with_the_rights_drops_without_being_a_superuser(every_pg):
    """CREATEROLE, ADMIN on the role, and the rights of the heir and of the owners that granted are enough, in every database."""
    with staged(every_pg) as stage:
        rights = (f"GRANT {stage.app} TO {{}} WITH ADMIN OPTION", f"GRANT {stage.heir} TO {{}}")
        execute(stage.other, f'GRANT CREATE ON DATABASE "{database_of(stage.other)}" TO {stage.heir}')
        execute(
            stage.home, f"GRANT CREATE ON SCHEMA public TO {stage.heir}", f"ALTER TABLE granted OWNER TO {stage.heir}"
        )
        with role(stage.home, *rights, attributes="CREATEROLE") as operator:
            async with attached(operator) as db:
                with pytest.raises(MissingRight, match=r"INSERT on table theirs\.t, granted by postgres") as refusal:
                    await dropping(db, stage)
                execute(stage.other, f"ALTER TABLE theirs.t OWNER TO {stage.heir}")
                effect = await Run("drop_user", await dropping(db, stage)).perform(db)
        assert refusal.value.facts["right"] == "membership in postgres"
        assert effect.state == "succeeded", effect.summary
        assert not stage.exists()


@on_loop
async def test_a_grant_that_drop_owned_leaves_is_found_beforehand(stage):
    """What somebody else than the owner granted blocks the drop in the server; the plan names it, and what was passed on."""
    execute(
        stage.home,
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        f"GRANT SELECT, INSERT ON granted TO {stage.heir}, {stage.app} WITH GRANT OPTION",
        f"SET ROLE {stage.app}; GRANT INSERT ON granted TO {stage.heir}; RESET ROLE",
        f"SET ROLE {stage.heir}; GRANT SELECT ON granted TO {stage.app}; RESET ROLE",
    )
    async with attached(stage.home) as db:
        with pytest.raises(PreconditionFailed, match=f"SELECT on table granted, granted by {stage.heir}"):
            await dropping(db, stage)
        execute(stage.home, f"SET ROLE {stage.heir}; REVOKE SELECT ON granted FROM {stage.app}; RESET ROLE")
        plan = await dropping(db, stage)
        effect = await Run("drop_user", plan).perform(db)
    assert any(
        f"INSERT on table granted of {stage.heir}, which the role passed on" in caution for caution in plan.cautions
    )
    assert effect.state == "succeeded"


def test_through_the_gate_a_drop_needs_a_reason_and_closing_needs_none(ops, stage):
    """Critical asks the approver why; only forbidding the login is high."""
    ops.attach("postgresql", "shop", server="one", environment="development", dsn=stage.home)
    closing = ops.run("drop_user", on="shop", name=stage.app, disable_only=True)
    assert closing.risk is Risk.HIGH
    ops.approve(closing.approval.id)
    assert closing.wait(timeout=60).status == "succeeded"
    dropping = ops.run("drop_user", on="shop", name=stage.app, reassign_to=stage.heir, drop_owned=True)
    assert dropping.risk is Risk.CRITICAL
    with pytest.raises(ReasonRequired):
        ops.approve(dropping.approval.id)
    ops.approve(dropping.approval.id, reason="the application was retired in March, owner informed")
    assert dropping.wait(timeout=60).status == "succeeded"
    assert not stage.exists()


@contextmanager
def stuck(stage):
    """Somebody reads the role's table, so that giving it away has to wait."""
    with transaction(stage.home, "LOCK TABLE mine IN ACCESS SHARE MODE"):
        yield


def waits(stage, run):
    pid = run.evidence.get("pid")
    return pid is not None and value(stage.home, "SELECT cardinality(pg_blocking_pids(%s)) > 0", (pid,))


@on_loop
async def test_a_cancel_reaches_the_database_and_what_was_done_is_reported(stage):
    """The waiting statement is cancelled in the server; the databases before it are named as done."""
    async with attached(stage.home) as db:
        run = Run("drop_user", await dropping(db, stage))
        with stuck(stage):
            task = run.start(db)
            await eventually_async(lambda: waits(stage, run))
            task.cancel()
            effect = await task
    assert effect.state == "failed"
    assert effect.error_code == "57014"
    assert database_of(stage.other) in effect.residue[0]
    assert run.evidence["done"] == [database_of(stage.other)]
    assert stage.owner(stage.home, "mine") == stage.app


@on_loop
async def test_a_connection_that_is_killed_midway_leaves_a_state_that_can_be_read_back(stage):
    """The backend's transaction is rolled back; report and probe agree on what is done and what is not."""
    async with attached(stage.home) as db:
        run = Run("drop_user", await dropping(db, stage))
        with stuck(stage):
            task = run.start(db)
            await eventually_async(lambda: waits(stage, run))
            execute(stage.home, f"SELECT pg_terminate_backend({run.evidence['pid']})")
            effect = await task
            probed = await run.probe(db)
    assert effect.state == probed.state == "failed"
    assert effect.residue == probed.residue
    assert stage.exists()
    assert stage.owner(stage.home, "mine") == stage.app


@on_loop
async def test_while_the_backend_still_works_a_probe_says_unknown(stage):
    """A host that died leaves a running backend: nothing is claimed before it has ended."""
    async with attached(stage.home) as db:
        run = Run("drop_user", await dropping(db, stage))
        with stuck(stage):
            task = run.start(db)
            await eventually_async(lambda: waits(stage, run))
            early = await run.probe(db)
            task.cancel()
            await task
    assert early.state == "unknown"
    assert "may still be running" in early.summary
