"""create_user: a login role exactly as approved, whose password one person sees once and no server, file or log ever does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import nbformat
import psycopg
import pytest
from nbclient import NotebookClient
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from opsagent_jupyter.api import Call, OpsAgent
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import (
    InvalidArguments,
    MissingRight,
    NotAllowedToReveal,
    PluginError,
    PreconditionFailed,
    SecretMissing,
    SecretRevealed,
)
from opsagent_jupyter.models import Actor, Assessment, Plan, Risk
from opsagent_jupyter.plugins.postgresql import plugin
from opsagent_jupyter.plugins.postgresql.changes.create_user import ALPHABET, LENGTH, PLACEHOLDER, filled
from tests.adversarial.test_planted_secrets import forms
from tests.integration.postgresql_stage import Run, attached, eventually, execute, on_loop, planned, role, value
from tests.kernels import ROOT
from tests.postgres import new_database

REASON = "the new reporting service starts tonight"
STATEMENT = re.compile(r"(CREATE ROLE .*?PASSWORD )'SCRAM-SHA-256\$[^']+'")


@pytest.fixture
def pg(pg18: EmbeddedPostgres) -> EmbeddedPostgres:
    """Most of this is the same on every release; what differs asks for ``every_database``."""
    return pg18


@pytest.fixture
def database(database18: str) -> str:
    return database18


@pytest.fixture
def every_database(every_pg: EmbeddedPostgres) -> Iterator[str]:
    with new_database(every_pg) as dsn:
        yield dsn


@pytest.fixture
def ops(database: str, store_url: str) -> Iterator[OpsAgent]:
    """An OpsAgent that is attached to the test's database as a superuser, and whose statements the server logs."""
    with attached_ops(database, store_url) as opened:
        yield opened


@contextmanager
def attached_ops(database: str, store_url: str) -> Iterator[OpsAgent]:
    logging = f"{database}?options={quote('-c log_statement=all -c log_min_duration_statement=0', safe='')}"
    with OpsAgent(store_url) as opened:
        opened.attach("postgresql", "shop", environment="development", dsn=logging)
        yield opened


@pytest.fixture
def made(database: str) -> Iterator[list[str]]:
    """Roles that the test makes; they belong to the server, so they are dropped afterwards."""
    names: list[str] = []
    yield names
    with psycopg.connect(database, autocommit=True) as connection:
        for name in names:
            connection.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(name)))


def created(ops: OpsAgent, made: list[str], name: str, **arguments: object) -> Call:
    """Ask for a role, approve it, and see it through."""
    made.append(name)
    call = ops.run("create_user", name=name, **arguments)
    assert call.status == "waiting", call.summary
    ops.approve(call.record.approval, reason=REASON)
    call.wait(30)
    assert call.status == "succeeded", call.summary
    return call


def login(dsn: str, name: str, password: str) -> str:
    """Log in over the network as the new role, and return who the server says it is."""
    with psycopg.connect(make_conninfo(dsn, user=name, password=password)) as connection:
        assert connection.pgconn.used_password
        row = connection.execute("SELECT current_user").fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.parametrize("name", ["reporting", 'Mixed "Case" Wörld', "n" * 63])
def test_the_new_role_logs_in_with_the_password_that_is_shown(
    ops: OpsAgent, database: str, made: list[str], name: str
) -> None:
    """Over a real connection, by SCRAM; another password does not do, and the password is strong."""
    call = created(ops, made, name)
    with ops.reveal(call.record.approval) as password:
        assert login(database, name, password) == name
        assert len(password) == LENGTH
        assert set(password) <= set(ALPHABET)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            login(database, name, password[:-1])
    kept = value(database, "SELECT rolpassword FROM pg_authid WHERE rolname = %s", (name,))
    assert kept.startswith("SCRAM-SHA-256$")
    hba = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'"
    assert value(database, hba) == 0


def test_each_role_has_a_password_of_its_own(ops: OpsAgent, made: list[str]) -> None:
    """186 bits of the operating system's randomness, each time."""
    shown = {ops.reveal(created(ops, made, f"own_{n}").record.approval).show() for n in range(3)}
    assert len(shown) == 3


def test_what_is_sent_is_what_was_approved_but_for_the_verifier(
    ops: OpsAgent, pg: EmbeddedPostgres, database: str, made: list[str]
) -> None:
    """The server's own log, with the verifier put back into its place, holds the approved statements and no other change."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    call = created(
        ops, made, "As Approved", attributes=["createdb"], connection_limit=4, member_of=["pg_monitor"],
        valid_until=until.isoformat(),
    )  # fmt: skip
    approval = call.approval
    assert approval is not None
    log = Path(pg._log).read_text(errors="replace")  # what the server wrote itself
    sent = [line.split("execute <unnamed>: ", 1)[1] for line in log.splitlines() if "execute <unnamed>: " in line]
    mine = [text for text in sent if '"As Approved"' in text and not text.startswith(("SELECT", "WITH"))]
    assert [STATEMENT.sub(rf"\g<1>{PLACEHOLDER}", text) for text in mine] == [approval.plan.statements[1]]
    assert approval.plan.statements == ("BEGIN", approval.plan.statements[1], "COMMIT")
    assert approval.plan.statements[1].endswith(f" PASSWORD {PLACEHOLDER}")
    assert sent[sent.index(mine[0]) - 1 : sent.index(mine[0]) + 2] == ["BEGIN", mine[0], "COMMIT"]


VERIFIER = "SCRAM-SHA-256$4096:c2FsdA==$a2V5:c2VydmVy"


def test_only_the_open_place_at_the_end_is_filled() -> None:
    """A name that spells the place, or a statement without it, stays to the letter; a verifier is nothing else."""
    sly = f'CREATE ROLE "x {PLACEHOLDER}" WITH LOGIN PASSWORD {PLACEHOLDER}'
    assert filled(sly, VERIFIER) == f"CREATE ROLE \"x {PLACEHOLDER}\" WITH LOGIN PASSWORD '{VERIFIER}'"
    for closed in ("BEGIN", "COMMIT", f'CREATE ROLE "{PLACEHOLDER}"', f"{PLACEHOLDER} "):
        assert filled(closed, VERIFIER) == closed
    for wrong in ("hunter2", f"{VERIFIER}' SUPERUSER --", "", f"{VERIFIER}\n"):
        with pytest.raises(PluginError):
            filled(sly, wrong)


def test_no_server_takes_the_statement_as_it_is_shown(database: str, made: list[str]) -> None:
    """Whoever copies it from the card makes no role without a password."""
    made.append("copied")
    with pytest.raises(psycopg.errors.SyntaxError):
        execute(database, f"CREATE ROLE copied WITH LOGIN PASSWORD {PLACEHOLDER}")


def test_the_role_is_as_it_was_approved_on_every_release(every_database: str, store_url: str) -> None:
    """Attributes, limit, end of the password and memberships are read back, none that was not asked for is there, the
    password logs in, and the statement on the card takes the role back."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    execute(every_database, "CREATE ROLE staff NOLOGIN")
    made: list[str] = []
    with attached_ops(every_database, store_url) as ops:
        whole = created(
            ops, made, "Whole One", attributes="CREATEDB,noinherit", connection_limit=4, valid_until=until.isoformat(),
            member_of=["staff", "pg_monitor"],
        )  # fmt: skip
        plain = created(ops, made, "plain")
        expected = (True, False, False, True, False, False, False, 4, until, ["pg_monitor", "staff"])
        assert facts(every_database, "Whole One") == expected
        expected = (True, True, False, False, False, False, False, -1, None, [])
        assert facts(every_database, "plain") == expected
        for name, call in (("Whole One", whole), ("plain", plain)):
            assert login(every_database, name, ops.reveal(call.record.approval).show()) == name
            assert call.approval is not None
            execute(every_database, call.approval.plan.undo)
            assert facts(every_database, name) is None
    execute(every_database, "DROP ROLE staff")


def facts(dsn: str, name: str) -> tuple[object, ...] | None:
    query = """SELECT rolcanlogin, rolinherit, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
                      rolconnlimit, rolvaliduntil,
                      ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                            WHERE m.member = r.oid ORDER BY 1)
               FROM pg_roles r WHERE rolname = %s"""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query, (name,)).fetchone()


# -- risk and refusals --------------------------------------------------------------------------------------------------


def assessed(**arguments: object) -> Assessment:
    tool = plugin.toolbox.tools["create_user"]
    return tool.assess(tool.parse({"name": "x", **arguments}))


@pytest.mark.parametrize(
    ("arguments", "risk"),
    [
        ({}, Risk.HIGH),
        ({"attributes": ["createdb", "noinherit"], "member_of": ["pg_monitor"]}, Risk.HIGH),
        ({"attributes": ["superuser"]}, Risk.CRITICAL),
        ({"attributes": ["CREATEROLE"]}, Risk.CRITICAL),
        ({"attributes": "replication"}, Risk.CRITICAL),
        ({"attributes": ["bypassrls"]}, Risk.CRITICAL),
        ({"member_of": ["pg_execute_server_program"]}, Risk.CRITICAL),
        ({"member_of": ['"pg_read_server_files"']}, Risk.CRITICAL),
        ({"member_of": ["PG_Write_Server_Files"]}, Risk.CRITICAL),
        ({"member_of": ["pg_of_a_later_release"]}, Risk.CRITICAL),
    ],
)
def test_the_arguments_alone_decide_the_level(arguments: dict[str, object], risk: Risk) -> None:
    """Like a superuser is critical, and a predefined role that is not known counts as one."""
    assert assessed(**arguments).risk is risk


@on_loop
async def test_the_catalog_raises_the_level_of_a_harmless_name(database):
    """A group that leads, over another, to a superuser-like role makes the request critical, and says why."""
    groups = ("outer_group", "inner_group", "harmless_group")
    make = [statement for name in groups for statement in (f"DROP ROLE IF EXISTS {name}", f"CREATE ROLE {name}")]
    execute(database, *make, "GRANT inner_group TO outer_group", "GRANT pg_write_server_files TO inner_group")
    try:
        async with attached(database) as db:
            grave = await planned(db, "create_user", name="new_one", member_of=["outer_group"])
            plain = await planned(db, "create_user", name="new_one", member_of=["harmless_group"])
    finally:
        execute(database, *(f"DROP ROLE {name}" for name in groups))
    assert assessed(member_of=["outer_group"]).risk is Risk.HIGH
    assert grave.risk is Risk.CRITICAL
    assert any("pg_write_server_files" in reason for reason in grave.reasons)
    assert plain.risk is Risk.HIGH


@on_loop
async def test_the_card_says_what_there_is_to_know(database):
    """Where the role exists, how it is taken back, how the name is written, and who sees the password."""
    async with attached(database) as db:
        plan = await planned(db, "create_user", name="Mixed", valid_until="2099-01-01T00:00:00+02:00")
    assert isinstance(plan, Plan)
    assert plan.title == 'Create the login role "Mixed"'
    assert plan.undo == 'DROP ROLE "Mixed"'
    assert "whole server" in plan.size
    said = " ".join(plan.cautions)
    for words in ("see it once", '"Mixed"', "VALID UNTIL", "pg_hba.conf"):
        assert words in said
    assert "VALID UNTIL '2099-01-01T00:00:00+02:00'" in plan.statements[1]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"name": "pg_mine"}, InvalidArguments, "begin with pg_"),
        ({"name": "public"}, InvalidArguments, "reserved"),
        ({"name": "none"}, InvalidArguments, "reserved"),
        ({"name": "n" * 64}, InvalidArguments, "64 bytes"),
        ({"name": "ä" * 32}, InvalidArguments, "64 bytes"),
        ({"name": ""}, InvalidArguments, "empty"),
        ({"name": " x"}, InvalidArguments, "space"),
        ({"name": "a\u202eb"}, InvalidArguments, "not seen"),
        ({"name": "a\0b"}, InvalidArguments, "not seen"),
        ({"name": "postgres"}, PreconditionFailed, "already"),
        ({"name": "x", "member_of": ["nobody_here"]}, InvalidArguments, "no role"),
        ({"name": "x", "member_of": ["public"]}, InvalidArguments, "PUBLIC"),
        ({"name": "x", "attributes": ["login"]}, InvalidArguments, "attributes"),
        ({"name": "x", "attributes": ["SUPERUSER PASSWORD 'x'"]}, InvalidArguments, "attributes"),
        ({"name": "x", "password": "hunter22"}, InvalidArguments, "no argument 'password'"),
        ({"name": "x", "valid_until": "2020-01-01T00:00:00Z"}, InvalidArguments, "ended already"),
        ({"name": "x", "valid_until": "2099-01-01T00:00:00"}, InvalidArguments, "valid_until"),
        ({"name": "x", "valid_until": "infinity'; DROP ROLE y; --"}, InvalidArguments, "valid_until"),
        ({"name": "x", "connection_limit": -2}, InvalidArguments, "connection_limit"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(database18, arguments, error, says) -> None:
    """Each refusal names the argument or the reason; a password is never an argument."""

    @on_loop
    async def scene() -> None:
        async with attached(database18) as db:
            with pytest.raises(error, match=re.escape(says)):
                await planned(db, "create_user", **arguments)

    scene()


@on_loop
async def test_a_role_without_the_right_is_told_which_one_it_lacks(every_pg, every_database):
    """By the rules of each release: from 16 on nobody gives what they do not have."""
    modern = every_pg.major >= 16
    cases = [
        ("", {}, "CREATEROLE"),
        ("CREATEROLE", {"attributes": ["superuser"]}, "SUPERUSER"),
        ("CREATEROLE", {"attributes": ["replication"]}, "REPLICATION" if modern else "SUPERUSER"),
        ("CREATEROLE", {"attributes": ["bypassrls"]}, "BYPASSRLS" if modern else "SUPERUSER"),
        ("CREATEROLE", {"attributes": ["createdb"]}, "CREATEDB" if modern else ""),
        ("CREATEROLE", {"member_of": ["pg_monitor"]}, "ADMIN OPTION on pg_monitor" if modern else ""),
        ("CREATEROLE", {"member_of": ["postgres"]}, "SUPERUSER"),
        ("CREATEROLE CREATEDB", {"attributes": ["createdb", "createrole"]}, ""),
        ("CREATEROLE REPLICATION", {"attributes": ["replication"]}, "" if modern else "SUPERUSER"),
    ]
    for attributes, arguments, right in cases:
        with role(every_database, attributes=attributes) as dsn:
            async with attached(dsn) as db:
                if right:
                    with pytest.raises(MissingRight) as refusal:
                        await planned(db, "create_user", name="never_made", **arguments)
                    assert refusal.value.right == right
                    assert refusal.value.hint
                else:
                    await performed_and_dropped(db, dsn, arguments)
    assert value(every_database, "SELECT count(*) FROM pg_roles WHERE rolname = 'never_made'") == 0


async def performed_and_dropped(db, dsn, arguments):
    """What preflight lets pass, the server lets pass too."""
    run = Kept("create_user", await planned(db, "create_user", name="made_by_maker", **arguments))
    effect = await run.perform(db)
    assert effect.state == "succeeded", effect.summary
    execute(dsn, "DROP ROLE made_by_maker")


class Kept(Run):
    """A run whose note takes a secret, as the gate's does."""

    async def note(self, evidence, *, secret=None):
        assert secret is not None
        self.evidence.update(evidence)


# -- the secret ---------------------------------------------------------------------------------------------------------


def test_the_password_is_shown_once(ops: OpsAgent, made: list[str]) -> None:
    """The second time says who was shown it and when; the object itself shows nothing."""
    call = created(ops, made, "once")
    shown = ops.reveal(call.record.approval)
    text = shown.show()
    assert text not in f"{shown!r} {shown} {shown:>40}"
    with pytest.raises(TypeError):
        json.dumps(shown)
    with pytest.raises(SecretRevealed, match=re.escape(ops.actor.name)) as refusal:
        ops.reveal(call.record.approval)
    assert (refusal.value.by, refusal.value.at[:4]) == (ops.actor.name, str(datetime.now(UTC).year))
    assert list(ops.audit(status="revealed")["actor_name"]) == [ops.actor.name]
    approval = call.approval
    assert approval is not None
    assert approval.evidence["secret"] == "revealed"
    assert ops.verify().ok


def test_it_is_shown_to_who_asked_or_approved_and_to_nobody_else(ops: OpsAgent, made: list[str]) -> None:
    """Not to a third person, and not to the model that asks in somebody's name; both attempts are audited."""
    bob, eve = (Actor(id=f"os:{name.lower()}", name=name, via="kernel") for name in ("Bob", "Eve"))
    made.append("for_two")
    call = ops.run("create_user", name="for_two")
    gate = ops.runtime.executor
    ops.runtime.call(gate.decide(call.record.approval, "approve", bob, REASON))
    other = ops.run("create_user", name="never_approved")
    with pytest.raises(SecretMissing, match="pending"):
        ops.reveal(other.record.approval)
    assert call.wait(30).status == "succeeded"
    for stranger in (eve, ops.actor.model_copy(update={"agent": True})):
        with pytest.raises(NotAllowedToReveal):
            ops.runtime.call(gate.reveal(call.record.approval, stranger))
    assert set(ops.audit(status="denied")["actor_name"]) == {"Eve", ops.actor.name}
    assert len(ops.runtime.call(gate.reveal(call.record.approval, bob))()) == LENGTH
    with pytest.raises(SecretRevealed, match="Bob"):
        ops.reveal(call.record.approval)


HOLDERS = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE ROLE contested WITH%%'"
)
ENDS = {
    "taken": "duplicate key",
    "lock time-out": "lock timeout",
    "cancelled": "cancelled",
    "terminated": "",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_role_that_was_not_made_leaves_no_password(ops: OpsAgent, database: str, made: list[str], end: str) -> None:
    """Somebody else is about to take the name: however the wait for them ends, nothing is left and the secret is deleted."""
    made.append("contested")
    call = ops.run("create_user", name="contested")
    with psycopg.connect(database) as other:  # holds the name without showing it
        other.execute("CREATE ROLE contested NOLOGIN")
        ops.approve(call.record.approval, reason=REASON)
        eventually(lambda: value(database, HOLDERS) is not None)
        if end == "cancelled":
            assert ops.cancel(call.record.approval)
        elif end == "terminated":
            execute(database, f"SELECT pg_terminate_backend(pid) FROM ({HOLDERS.replace('%%', '%')}) AS waiting")
        elif end == "taken":
            other.commit()
        if end != "taken":
            call.wait(30)
            other.rollback()
    assert call.wait(30).status == "failed"
    assert "contested" in call.summary
    assert ENDS[end] in call.summary
    assert "nothing was changed" in call.summary
    assert ops.runtime.store.one_time_secrets() == {}
    with pytest.raises(SecretMissing, match="deleted"):
        ops.reveal(call.record.approval)
    logs_in = value(database, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'contested'")
    assert logs_in is (False if end == "taken" else None)


def test_the_password_is_in_no_file_log_view_or_audit(
    ops: OpsAgent,
    pg: EmbeddedPostgres,
    database: str,
    made: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before and after it was shown: the store's files, every row, DuckDB, our log, and what the server keeps and logs."""
    if value(database, "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'"):
        execute(database, "CREATE EXTENSION pg_stat_statements")
    call = created(ops, made, "nowhere")
    before = everything(ops, pg, database, tmp_path)
    password = ops.reveal(call.record.approval).show()
    after = everything(ops, pg, database, tmp_path)
    seen = {**before, **{f"{place}, later": text for place, text in after.items()}, "log": caplog.text.encode()}
    found = [place for place, text in seen.items() if any(form.encode() in text for form in forms(password))]
    assert found == []
    assert b"nowhere" in before["server.log"]
    assert b"nowhere" in b"".join(text for place, text in before.items() if "opsagent.db" in place)


def everything(ops: OpsAgent, pg: EmbeddedPostgres, database: str, folder: Path) -> dict[str, bytes]:
    """Whatever could hold it, by place."""
    ops.audit()
    seen = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    seen["server.log"] = Path(pg._log).read_bytes()
    seen["audit"] = ops.audit().to_json(date_format="iso").encode()
    seen["approvals"] = ops.approvals("all").to_json(date_format="iso").encode()
    seen["requests"] = repr([ops.approval(each) for each in ops.approvals("all")["id"]]).encode()
    views = ["pg_stat_activity", "pg_authid"]
    if value(database, "SELECT to_regclass('pg_stat_statements') IS NOT NULL"):
        views.append("pg_stat_statements")
    with psycopg.connect(database) as connection:
        for view in views:
            rows = connection.execute(SQL("SELECT t::text FROM {} AS t").format(Identifier(view))).fetchall()
            seen[view] = repr(rows).encode()
    return seen


NOTEBOOK = """
%load_ext opsagent_jupyter
%opsagent attach postgresql shop --dsn-env SHOP_DSN --environment development
call = %opsagent run create_user --name in_a_notebook
assert call.status == "waiting", call.summary
id = call.record.approval
done = %opsagent --vars approve {id} --wait 30
%opsagent --vars reveal {id}
%opsagent --vars show {id}
%opsagent ask create a user named in_a_chat
_ops.approval(id).evidence["secret"]
secret = _ops.reveal(id); secret
secret, str(secret), call, done
_ = open(SEEN, "w").write(secret.show())
%opsagent --vars reveal {id}
%opsagent --vars show {id}
%opsagent audit --status revealed
"""


def test_the_password_is_in_no_saved_notebook(
    database18: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_url: str
) -> None:
    """Outputs, records and widget state of a notebook that asks, approves, looks and reveals; it says where to look."""
    seen = tmp_path / "seen"
    monkeypatch.setenv("SHOP_DSN", database18)
    monkeypatch.setenv("OPSAGENT_STORE_URL", store_url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = [nbformat.v4.new_code_cell(line) for line in [f"SEEN = {str(seen)!r}", *NOTEBOOK.strip().splitlines()]]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    password, saved = seen.read_text(), nbformat.writes(notebook)
    assert login(database18, "in_a_notebook", password) == "in_a_notebook"
    execute(database18, "DROP ROLE in_a_notebook")
    assert [form for form in forms(password) if form in saved] == []
    for words in ("opsagent reveal", "OneTimeSecret(***)", "keeps no password", "secret.revealed"):
        assert words in saved


def test_a_conversation_neither_tells_the_password_nor_speaks_again_when_it_is_shown(
    ops: OpsAgent, database: str, made: list[str]
) -> None:
    """The model proposes, a person approves, the answer says where to look, and no message ever holds it."""
    made.append("in_a_chat")
    turn = ops.ask("create a user named in_a_chat", on="shop")
    (call,) = turn.calls
    assert call.status == "waiting"
    ops.approve(call.record.approval, reason=REASON)
    turn.wait(30)
    assert "opsagent reveal" in turn.text
    before = ops.messages(turn.session_id)
    password = ops.reveal(call.record.approval).show()
    assert login(database, "in_a_chat", password) == "in_a_chat"
    other = ops.ask("list the connections", on="shop", session=turn.session_id, wait=30)
    after = ops.messages(turn.session_id)
    assert [message.text for message in after[: len(before)]] == [message.text for message in before]
    assert [message.turn for message in after[len(before) :]] == [other.id] * (len(after) - len(before))
    assert not any(form in repr(after) for form in forms(password))
