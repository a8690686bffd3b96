"""create_user, drop_user, grant_roles, revoke_roles: exactly what was approved, a password that no text holds, never us."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.errors import (
    InvalidArguments,
    MissingRight,
    OutcomeUnknown,
    PluginError,
    PreconditionFailed,
    SecretRevealed,
)
from opsagent_jupyter.models import Risk
from opsagent_jupyter.plugins.mongodb import plugin, statements
from opsagent_jupyter.plugins.mongodb.changes import accounts
from opsagent_jupyter.plugins.mongodb.changes.create_user import LENGTH, PLACEHOLDER
from tests.adversarial.test_planted_secrets import forms
from tests.integration.mongodb_stage import Run, attached, on_loop, planned
from tests.integration.mongodb_wire import assert_sent_as_shown, relayed
from tests.mongo import connected, eventually, running

REASON = "the new reporting service starts tonight"


class Seen(Run):
    """A run that keeps the secret of its note, as the store would."""

    secret = ""

    async def note(self, evidence, *, secret=None):
        await super().note(evidence)
        self.secret = secret() if secret else ""


def new_name():
    return f"u_{secrets.token_hex(4)}"


@contextmanager
def account(server, *roles, database="shop", **more) -> Iterator[tuple[str, str]]:
    """A user for a while; its name and its URI. ``role@database`` or a role of its own database."""
    name, password = new_name(), secrets.token_hex(8)
    documents = [accounts.parsed(role, database).document for role in roles]
    with server.client() as root:
        root[database].command("createUser", name, pwd=password, roles=documents, **more)
        try:
            yield name, server.uri_for("shop", name, password, source=database)
        finally:
            with suppress(OperationFailure):
                root[database].command("dropUser", name)


@contextmanager
def made(server, *names, database="shop"):
    """Users that a test makes are dropped afterwards."""
    try:
        yield
    finally:
        with server.client() as root:
            for name in names:
                with suppress(OperationFailure):
                    root[database].command("dropUser", name)


def user_of(server, name, database="shop"):
    with server.client() as root:
        found = root[database].command("usersInfo", {"user": name, "db": database}, showPrivileges=True)["users"]
    return found[0] if found else None


def roles_of(server, name):
    return {f"{each['role']}@{each['db']}" for each in user_of(server, name)["roles"]}


@pytest.fixture
def root(mongo_auth):
    return mongo_auth.uri_of("root")


# -- create_user


def test_the_new_user_logs_in_with_the_password_that_is_shown_once_and_stands_nowhere(mongo_auth, store_url, tmp_path):
    """Through the gate: no store, audit, server log or profile at level 2 holds it; only who asked sees it, once."""
    server, name = mongo_auth.server, new_name()
    with server.client() as client, made(server, name), OpsAgent(store_url) as ops:
        for database in ("shop", "admin"):
            client[database].command("profile", 2)
        try:
            ops.attach("mongodb", "shop", environment="development", dsn=mongo_auth.uri_of("root"))
            call = ops.run("create_user", name=name, roles="read")
            assert call.status == "waiting", call.summary
            ops.approve(call.record.approval, reason=REASON)
            assert call.wait(30).status == "succeeded", call.summary
            password = ops.reveal(call.record.approval).show()
            with pytest.raises(SecretRevealed):
                ops.reveal(call.record.approval)
            profiled = [str(each) for db in ("shop", "admin") for each in client[db].system.profile.find()]
            shown = ops.approval(call.record.approval).model_dump_json()
            with MongoClient(server.uri_for("shop", name, password, source="shop")) as theirs:
                assert theirs.shop.orders.find_one({"_id": 1})
                with pytest.raises(OperationFailure):
                    theirs.shop.orders.insert_one({"_id": "x"})
        finally:
            for database in ("shop", "admin"):
                client[database].command("profile", 0)
                client[database].drop_collection("system.profile")
    assert len(password) == LENGTH
    places = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places |= {str(path): path.read_bytes() for path in server.directory.glob("*.log")}
    places |= {"profile": "".join(profiled).encode(), "approval": shown.encode()}
    assert any(name.encode() in held for held in places.values())
    for form in forms(password):
        assert [place for place, held in places.items() if form.encode() in held] == []


@on_loop
async def test_what_is_sent_is_what_was_shown_but_for_the_password(mongo_auth, root):
    """One named place is filled in, and nothing else; each run makes a password of its own."""
    name = new_name()
    with made(mongo_auth.server, name), relayed(root) as (uri, wire):
        async with attached(uri) as db:
            plan = await planned(db, "create_user", name=name, roles=["readWrite", "read@other"])
            run = Seen("create_user", plan)
            effect = await run.perform(db)
            probed = await run.probe(db)
        assert_sent_as_shown(wire, plan, pwd=run.secret)
        found = user_of(mongo_auth.server, name)
        with connected(uri) as client:
            client.shop.command(statements.read(plan.undo)[1])
        assert user_of(mongo_auth.server, name) is None
    assert effect.state == probed.state == "succeeded"
    assert len(run.secret) == LENGTH
    assert run.secret not in plan.model_dump_json() + effect.model_dump_json() + str(run.evidence)
    assert statements.read(plan.statements[0])[1]["pwd"] == PLACEHOLDER
    assert any(PLACEHOLDER in caution and "shown" not in caution for caution in plan.cautions)
    assert plan.risk is Risk.HIGH
    assert "It also reaches other databases: read@other." in plan.cautions
    assert {f"{each['role']}@{each['db']}" for each in found["roles"]} == {"readWrite@shop", "read@other"}
    assert found["mechanisms"] == ["SCRAM-SHA-256"]


@on_loop
async def test_a_command_that_has_to_wait_does_not_show_its_password(mongo, shop):
    """While it waits for a lock, $currentOp does not have it; that it has for some milliseconds stands on the card."""
    name = new_name()
    with connected(shop) as client:
        client.get_default_database().orders.insert_one({})
        async with attached(shop) as db:
            run = Seen("create_user", await planned(db, "create_user", name=name, database="admin"))
            client.admin.command("fsync", lock=True)
            try:
                task = run.start(db)
                await asyncio.to_thread(eventually, lambda: running(client, {"waitingForLock": True}))
                rows = running(client, {})
            finally:
                client.admin.command("fsyncUnlock")
            effect = await task
        client.admin.command("dropUser", name)
    assert effect.state == "succeeded"
    assert run.secret
    assert run.secret not in str(rows)
    assert any("$currentOp" in caution for caution in run.plan.cautions)


@on_loop
async def test_a_text_without_the_named_place_gets_no_password(mongo_auth, root):
    """Nothing but the placeholder is ever replaced."""
    async with attached(root) as db:
        plan = await planned(db, "create_user", name=new_name())
        other = plan.model_copy(update={"statements": (plan.statements[0].replace(PLACEHOLDER, "chosen"),)})
        with relayed(root) as (uri, wire):
            async with attached(uri) as through:
                with pytest.raises(PluginError, match="nothing was sent"):
                    await Seen("create_user", other).perform(through)
            assert "createUser" not in [next(iter(each)) for each in wire.commands]


@on_loop
async def test_a_name_that_is_taken_is_refused_and_a_rival_is_not_touched(mongo_auth, root):
    """Before, and in the moment of the command (51003)."""
    server, name = mongo_auth.server, new_name()
    async with attached(root) as db:
        with account(server, "read") as (there, _), pytest.raises(PreconditionFailed, match="already"):
            await planned(db, "create_user", name=there)
        run = Seen("create_user", await planned(db, "create_user", name=name, roles="readWrite"))
        with made(server, name):
            with server.client() as client:
                client.shop.command("createUser", name, pwd="theirs", roles=["read"])
            effect = await run.perform(db)
            assert roles_of(server, name) == {"read@shop"}
    assert effect.state == "failed"
    assert effect.error_code == "51003"
    assert "not touched" in effect.summary


@on_loop
async def test_a_lost_answer_is_unknown_until_the_user_is_found(mongo_auth, root):
    """Its password is kept for whoever asked."""
    name = new_name()
    with made(mongo_auth.server, name), relayed(root) as (uri, wire):
        async with attached(uri) as db:
            run = Seen("create_user", await planned(db, "create_user", name=name, roles="read"))
            assert (await run.probe(db)).state == "failed"
            wire.cut = "createUser"
            with pytest.raises(OutcomeUnknown) as unknown:
                await run.perform(db)
            wire.cut = ""
            probed = await run.probe(db)
    assert run.secret not in str(unknown.value)
    assert probed.state == "succeeded"


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"roles": "raed"}, InvalidArguments, "no role 'raed' in database shop.*read"),
        ({"roles": "read@"}, InvalidArguments, "is no role"),
        ({"database": "shopp"}, InvalidArguments, "no database 'shopp'"),
        ({"database": "local"}, PreconditionFailed, "Users of local"),
        ({"name": "x@$external"}, PreconditionFailed, "external"),
        ({"name": "a\u200bb"}, InvalidArguments, "not seen"),
        ({"name": " "}, InvalidArguments, "needs a name"),
    ],
)
@on_loop
async def test_what_cannot_be_is_refused(mongo_auth, root, arguments, error, match):
    """Roles and databases that are not there, users of others, names that deceive."""
    async with attached(root) as db:
        with pytest.raises(error, match=match):
            await planned(db, "create_user", **{"name": new_name(), **arguments})


@pytest.mark.parametrize("tool", ["create_user", "grant_roles", "revoke_roles"])
@pytest.mark.parametrize(
    ("roles", "risk"),
    [
        ("read", Risk.HIGH),
        ("readWrite@other, dbAdmin", Risk.HIGH),
        ("dbOwner", Risk.CRITICAL),
        ("read, userAdmin@shop", Risk.CRITICAL),
        ("readAnyDatabase", Risk.CRITICAL),
        ("hostManager", Risk.CRITICAL),
        ("backup", Risk.CRITICAL),
        ("root", Risk.CRITICAL),
    ],
)
def test_roles_like_a_superusers_are_critical_by_their_name(tool, roles, risk):
    """Before the server is asked anything."""
    spec = plugin.toolbox.tools[tool]
    named = {"name": "x"} if tool == "create_user" else {"user": "x"}
    assert spec.assess(spec.parse({"roles": roles, **named})).risk is risk


@pytest.mark.parametrize(
    ("privileges", "inherited", "risk"),
    [
        ([{"resource": {"db": "shop", "collection": "orders"}, "actions": ["find"]}], [], Risk.HIGH),
        ([{"resource": {"anyResource": True}, "actions": ["find"]}], [], Risk.CRITICAL),
        ([{"resource": {"db": "shop", "collection": ""}, "actions": ["find", "grantRole"]}], [], Risk.CRITICAL),
        ([{"resource": {"db": "", "collection": ""}, "actions": ["find"]}], [], Risk.CRITICAL),
        ([], [{"role": "dbOwner", "db": "shop"}], Risk.CRITICAL),
        ([], [{"role": "read", "db": "shop"}], Risk.HIGH),
    ],
)
@on_loop
async def test_a_role_that_somebody_made_is_judged_by_what_it_allows(mongo_auth, root, privileges, inherited, risk):
    """Its name says nothing."""
    with mongo_auth.server.client() as client:
        client.admin.command("createRole", "harmless", privileges=privileges, roles=inherited)
        try:
            async with attached(root) as db:
                plan = await planned(db, "create_user", name=new_name(), roles="harmless@admin")
        finally:
            client.admin.command("dropRole", "harmless")
    assert plan.risk is risk
    assert any("harmless@admin" in reason for reason in plan.reasons) == (risk is Risk.CRITICAL)


@pytest.mark.parametrize(
    ("tool", "arguments", "right"),
    [
        ("create_user", {"name": "x", "roles": "read"}, "createUser on shop"),
        ("drop_user", {"user": "x"}, "usersInfo on shop"),
        ("grant_roles", {"user": "x", "roles": "read"}, "usersInfo on shop"),
        ("revoke_roles", {"user": "x", "roles": "read"}, "usersInfo on shop"),
    ],
)
@on_loop
async def test_a_missing_role_is_named(mongo_auth, tool, arguments, right):
    """The executor manages indexes, not users."""
    async with attached(mongo_auth.uri_of("executor")) as db:
        with pytest.raises(MissingRight, match=right) as refusal:
            await planned(db, tool, **arguments)
    assert "userAdmin on the database" in refusal.value.hint


@on_loop
async def test_roles_of_another_database_need_the_right_there(mongo_auth):
    """A user administrator of shop gives nothing of other."""
    async with attached(mongo_auth.uri_of("usermin")) as db:
        with pytest.raises(MissingRight, match="grantRolesToUser on other"):
            await planned(db, "create_user", name=new_name(), roles="read@other")
        plan = await planned(db, "create_user", name=new_name(), roles="read")
    assert plan.risk is Risk.HIGH


# -- drop_user


@on_loop
async def test_a_dropped_user_loses_its_rights_at_once_and_can_be_made_again(mongo_auth, root):
    """The card shows roles and live connections; its undo is the same user with a new password."""
    server = mongo_auth.server
    restrictions = [{"clientSource": ["127.0.0.1"]}]
    with account(server, "read", "dbAdmin@other", customData={"team": "a"}, authenticationRestrictions=restrictions) as (
        name, uri,
    ), connected(uri) as theirs:  # fmt: skip
        assert theirs.shop.orders.find_one()
        before = user_of(server, name)
        with relayed(root) as (through, wire):
            async with attached(through) as db:
                plan = await planned(db, "drop_user", user=name)
                run = Run("drop_user", plan)
                effect = await run.perform(db)
                assert_sent_as_shown(wire, plan)
                probed = await run.probe(db)
        with pytest.raises(OperationFailure):
            theirs.shop.orders.find_one()
        assert user_of(server, name) is None
        database, again = statements.read(plan.undo)
        with server.client() as client:
            client[database].command({**again, "pwd": "a new one"})
        after = user_of(server, name)
    assert plan.risk is Risk.CRITICAL
    assert "roles: dbAdmin@other and read@shop" in plan.size
    assert "connection" in plan.size
    assert "checkout" in plan.size
    assert effect.state == probed.state == "succeeded"
    for part in ("roles", "mechanisms"):
        assert sorted(map(str, after[part])) == sorted(map(str, before[part]))
    assert again["customData"] == {"team": "a"}
    assert again["authenticationRestrictions"] == restrictions


@pytest.mark.parametrize("tool", ["drop_user", "revoke_roles"])
@on_loop
async def test_nobody_takes_from_the_user_that_we_are(mongo_auth, root, tool):
    """The root user could drop itself; OpsAgent does not."""
    rest = {"roles": "root"} if tool == "revoke_roles" else {}
    async with attached(root) as db:
        for written in ({"user": "root@admin"}, {"user": "root", "database": "admin"}):
            with pytest.raises(PreconditionFailed, match="OpsAgent itself is logged in as"):
                await planned(db, tool, **written, **rest)
    assert user_of(mongo_auth.server, "root", "admin")


@on_loop
async def test_the_last_user_administrator_is_neither_dropped_nor_stripped(mongo, shop):
    """On a server where there is no other; with a second one it is allowed."""
    with connected(shop) as client:
        client.admin.command("createUser", "chief", pwd="x", roles=["userAdminAnyDatabase"])
        try:
            async with attached(shop) as db:
                for tool, rest in (("drop_user", {}), ("revoke_roles", {"roles": "userAdminAnyDatabase"})):
                    with pytest.raises(
                        PreconditionFailed, match="the last one who administers the users of all databases"
                    ):
                        await planned(db, tool, user="chief", database="admin", **rest)
                client.admin.command("createUser", "deputy", pwd="x", roles=["root"])
                plan = await planned(db, "drop_user", user="chief", database="admin")
                assert plan.risk is Risk.CRITICAL
        finally:
            for name in ("chief", "deputy"):
                with suppress(OperationFailure):
                    client.admin.command("dropUser", name)


@on_loop
async def test_an_administrator_is_not_dropped_where_no_other_can_be_seen(mongo_auth):
    """A user administrator of one database does not see whether another one is left for all."""
    with account(mongo_auth.server, "userAdminAnyDatabase@admin") as (name, _):
        async with attached(mongo_auth.uri_of("usermin")) as db:
            with pytest.raises(PreconditionFailed, match="cannot be seen"):
                await planned(db, "drop_user", user=name)
    with account(mongo_auth.server, "userAdmin") as (name, _):
        async with attached(mongo_auth.uri_of("usermin")) as db:
            assert await planned(db, "drop_user", user=name)


@on_loop
async def test_an_unknown_user_is_not_guessed(mongo_auth, root):
    """Near names, and where a user of that name really is."""
    with account(mongo_auth.server, "read") as (name, _):
        async with attached(root) as db:
            with pytest.raises(InvalidArguments, match=name):
                await planned(db, "drop_user", user=name[:-1])
            with pytest.raises(InvalidArguments) as refusal:
                await planned(db, "drop_user", user=f"{name}@other")
    assert f"{name}@shop" in refusal.value.hint


@on_loop
async def test_another_user_of_the_same_name_is_another_one(mongo_auth, root):
    """The approval is bound to the server's id of the user and to its roles."""
    server = mongo_auth.server
    with account(server, "read") as (name, _):
        async with attached(root) as db:
            first = await planned(db, "drop_user", user=name)
            with server.client() as client:
                client.shop.command("dropUser", name)
                client.shop.command("createUser", name, pwd="x", roles=["read"])
            second = await planned(db, "drop_user", user=name)
            probe = Run("drop_user", first, {"comment": "opsagent of then"})
            probed = await probe.probe(db)
    assert first.statements == second.statements
    assert first.preconditions != second.preconditions
    assert "another of that name" in probed.summary


@on_loop
async def test_a_drop_that_was_not_done_is_a_failure(mongo_auth, root):
    """Our rights were taken meanwhile: the user is still there, and the report says what lacked."""
    server = mongo_auth.server
    with account(server, "read") as (name, _), account(server, "userAdmin") as (boss, uri):
        async with attached(uri) as db:
            run = Run("drop_user", await planned(db, "drop_user", user=name))
            with server.client() as client:
                roles = [{"role": "viewer", "db": "shop"}]
                seeing = {"resource": {"db": "shop", "collection": ""}, "actions": ["viewUser"]}
                client.shop.command("createRole", "viewer", privileges=[seeing], roles=[])
                try:
                    client.shop.command("updateUser", boss, roles=roles)
                    effect = await run.perform(db)
                finally:
                    client.shop.command("dropRole", "viewer")
        assert user_of(server, name)
    assert effect.state == "failed"
    assert effect.error_code == "13"
    assert "still there" in effect.summary
    assert "dropUser on shop" in effect.summary


def test_through_the_gate_roles_are_granted_and_a_user_is_dropped(mongo_auth, store_url):
    """What stands on the cards, the command with its placeholder too, is taken for no secret."""
    with account(mongo_auth.server, "read") as (name, _), OpsAgent(store_url) as ops:
        ops.attach("mongodb", "shop", environment="development", dsn=mongo_auth.uri_of("root"))
        for tool, arguments in (
            ("grant_roles", {"roles": "readWrite"}),
            ("revoke_roles", {"roles": "readWrite"}),
            ("drop_user", {}),
        ):
            call = ops.run(tool, user=name, **arguments)
            assert call.status == "waiting", call.summary
            ops.approve(call.record.approval, reason=REASON)
            assert call.wait(30).status == "succeeded", call.summary
        assert user_of(mongo_auth.server, name) is None


# -- grant_roles and revoke_roles


@on_loop
async def test_granted_roles_count_at_once_and_the_undo_takes_exactly_them_back(mongo_auth, root):
    """Before and after stand on the card; what is held already is not granted again."""
    server = mongo_auth.server
    with account(server, "read") as (name, uri), connected(uri) as theirs, relayed(root) as (through, wire):
        with pytest.raises(OperationFailure):
            theirs.shop.granted.insert_one({})
        async with attached(through) as db:
            plan = await planned(db, "grant_roles", user=name, roles="read, readWrite, dbAdmin@other")
            run = Run("grant_roles", plan)
            effect = await run.perform(db)
            assert_sent_as_shown(wire, plan)
            probed = await run.probe(db)
            theirs.shop.granted.insert_one({})
            assert roles_of(server, name) == {"read@shop", "readWrite@shop", "dbAdmin@other"}
            with pytest.raises(PreconditionFailed, match="already: nothing would change"):
                await planned(db, "grant_roles", user=name, roles="read")
        with server.client() as client:
            client.shop.command(statements.read(plan.undo)[1])
            client.shop.drop_collection("granted")
        assert roles_of(server, name) == {"read@shop"}
    sent = statements.read(plan.statements[0])[1]
    assert {each["role"] for each in sent["roles"]} == {"readWrite", "dbAdmin"}
    assert plan.risk is Risk.HIGH
    assert "It has read@shop already." in plan.cautions
    assert effect.state == probed.state == "succeeded"


@on_loop
async def test_revoked_roles_are_gone_at_once_and_come_back_by_the_undo(mongo_auth, root):
    """The next write is refused."""
    server = mongo_auth.server
    with account(server, "readWrite", "read@other") as (name, uri), connected(uri) as theirs:
        theirs.shop.revoked.insert_one({})
        with relayed(root) as (through, wire):
            async with attached(through) as db:
                plan = await planned(db, "revoke_roles", user=name, roles="readWrite")
                run = Run("revoke_roles", plan)
                effect = await run.perform(db)
                assert_sent_as_shown(wire, plan)
                probed = await run.probe(db)
        with pytest.raises(OperationFailure):
            theirs.shop.revoked.insert_one({})
        with server.client() as client:
            client.shop.command(statements.read(plan.undo)[1])
            client.shop.drop_collection("revoked")
        assert roles_of(server, name) == {"readWrite@shop", "read@other"}
    assert "after: read@other" in plan.size
    assert effect.state == probed.state == "succeeded"
    assert "no longer has readWrite@shop" in effect.summary


@on_loop
async def test_a_right_that_stays_through_another_role_is_named(mongo_auth, root):
    """Success is not effect: the card says that nothing changes."""
    with account(mongo_auth.server, "readWrite", "read") as (name, _):
        async with attached(root) as db:
            less = await planned(db, "revoke_roles", user=name, roles="read")
            real = await planned(db, "revoke_roles", user=name, roles="readWrite")
    with account(mongo_auth.server, "readWrite") as (name, _):
        async with attached(root) as db:
            more = await planned(db, "grant_roles", user=name, roles="read")
    assert any("keeps all of these rights through readWrite@shop" in caution for caution in less.cautions)
    assert not any("keeps all" in caution for caution in real.cautions)
    assert any("may do all of that already" in caution for caution in more.cautions)


@on_loop
async def test_roles_that_are_not_there_or_not_held_are_refused(mongo_auth, root):
    """One bad role would fail the whole command, one that is not held would do nothing."""
    with account(mongo_auth.server, "readWrite") as (name, _):
        async with attached(root) as db:
            with pytest.raises(InvalidArguments, match="no role 'reed'"):
                await planned(db, "grant_roles", user=name, roles="read, reed")
            with pytest.raises(PreconditionFailed, match="was not granted read@shop"):
                await planned(db, "revoke_roles", user=name, roles="read")
            with pytest.raises(InvalidArguments, match="at least one"):
                await planned(db, "grant_roles", user=name, roles="")


@on_loop
async def test_a_role_that_goes_away_meanwhile_fails_the_grant_whole(mongo_auth, root):
    """Error 31, and nothing was granted."""
    server = mongo_auth.server
    with server.client() as client, account(server, "read") as (name, _):
        client.shop.command("createRole", "passing", privileges=[], roles=["read"])
        async with attached(root) as db:
            run = Run("grant_roles", await planned(db, "grant_roles", user=name, roles="passing, dbAdmin"))
            client.shop.command("dropRole", "passing")
            effect = await run.perform(db)
        assert roles_of(server, name) == {"read@shop"}
    assert effect.state == "failed"
    assert effect.error_code == "31"


@on_loop
async def test_granting_to_ourselves_is_critical(mongo_auth):
    """A user administrator can make itself owner; the card says whose account it is."""
    with account(mongo_auth.server, "userAdmin") as (name, uri):
        async with attached(uri) as db:
            plan = await planned(db, "grant_roles", user=name, roles="readWrite")
    assert plan.risk is Risk.CRITICAL
    assert "OpsAgent itself is logged in as" in plan.reasons[0]


@pytest.mark.parametrize("tool", ["grant_roles", "revoke_roles"])
@on_loop
async def test_a_lost_answer_about_roles_is_unknown_until_it_is_probed(mongo_auth, root, tool):
    """Cut off after the server had done it; before that the probe says that nothing has changed."""
    command = "grantRolesToUser" if tool == "grant_roles" else "revokeRolesFromUser"
    with account(mongo_auth.server, "read") as (name, _), relayed(root) as (uri, wire):
        async with attached(uri) as db:
            roles = "readWrite" if tool == "grant_roles" else "read"
            run = Run(tool, await planned(db, tool, user=name, roles=roles))
            run.evidence["comment"] = "opsagent noted and never sent"
            assert (await run.probe(db)).state == "failed"
            wire.cut = command
            with pytest.raises(OutcomeUnknown):
                await run.perform(db)
            wire.cut = ""
            assert (await run.probe(db)).state == "succeeded"


@on_loop
async def test_planning_again_gives_the_same_text_and_preconditions(mongo_auth, root):
    """Nothing that is bound changes while the server does not."""
    with account(mongo_auth.server, "read", "dbAdmin") as (name, _):
        async with attached(root) as db:
            for tool, arguments in (
                ("create_user", {"name": "someone_new", "roles": "read, dbAdmin"}),
                ("drop_user", {"user": name}),
                ("grant_roles", {"user": name, "roles": "readWrite, read@other"}),
                ("revoke_roles", {"user": name, "roles": "read"}),
            ):
                first, again = [await planned(db, tool, **arguments) for _ in range(2)]
                assert first.statements == again.statements
                assert first.preconditions == again.preconditions
