"""EXPLAIN changes nothing, whatever it is given: every case of both files, on real servers, judged by lasting effect."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import postgast
import psycopg
import pytest
from psycopg import pq

from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import CallRefused, InvalidArguments, MissingRight, OpsAgentError, StatementRefused
from opsagent_jupyter.plugins.postgresql import explain as explaining
from opsagent_jupyter.plugins.postgresql.explain import ExplainedPlan, explain
from opsagent_jupyter.plugins.postgresql.statement import Names, Statement
from tests.postgres import PIXELTABLE_MAJOR, SOURCES, debian_major

HERE = Path(__file__).parent
CASES = {name: json.loads((HERE.parent / "cases" / name).read_text(encoding="utf-8"))["cases"]
         for name in ("explain_safety.json", "explain_safety_more.json")}  # fmt: skip
PASSWORDS = {"postgres": "sentinelpw", "opsagent_ro": "observerpw"}
PROBES = Path("/dev/shm")

#: The wheel of this major has no contrib; a directory given by OPSAGENT_TEST_PG_BINDIRS is expected to.
MAJORS = [major for major, source in SOURCES.items() if major != PIXELTABLE_MAJOR or hasattr(source, "args")]


class Guarded:
    """A server with the fixture's database, a monitor's eye on it, and a session that traps try to kill."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("ALTER ROLE postgres PASSWORD 'sentinelpw'")
            conn.execute("CREATE DATABASE guarded")
        self.monitor = psycopg.connect(self.dsn("postgres", "monitor"), autocommit=True)
        for statement in postgast.split((HERE / "explain_fixture.sql").read_text(encoding="utf-8")):
            self.monitor.execute(statement)
        self.monitor.execute("VACUUM acct")
        self.sentinel: psycopg.Connection | None = None
        self.query = (HERE / "explain_fingerprint.sql").read_text(encoding="utf-8")
        while not self.fingerprint()["table statistics"][0]:
            time.sleep(0.05)  # up to 14 statistics arrive a little later

    def dsn(self, role: str, application: str) -> str:
        dsn = self.server.dsn_for("guarded", role, PASSWORDS[role])
        return f"{dsn}{'&' if '?' in dsn else '?'}application_name={application}"

    def watch(self) -> None:
        """See that the sentinel lives; it belongs to the observer, so that both roles could end it."""
        row = self.monitor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sentinel' AND state = 'active'"
        ).fetchone()
        if row == (1,):
            return
        self.dismiss()
        self.sentinel = psycopg.connect(self.dsn("opsagent_ro", "sentinel"), autocommit=True)
        self.sentinel.pgconn.send_query(b"SELECT pg_sleep(3600)")
        while self.fingerprint()["sentinel"] is None or "active" not in self.fingerprint()["sentinel"][0]:
            pass

    def dismiss(self) -> None:
        if self.sentinel is not None:
            self.sentinel.close()

    def fingerprint(self) -> dict:
        row = self.monitor.execute(self.query).fetchone()
        return row[0] | {"files": sorted(path.name for path in PROBES.glob("opsagent_probe_*"))}

    def close(self) -> None:
        self.dismiss()
        self.monitor.close()
        for path in PROBES.glob("opsagent_probe_*"):
            path.unlink()


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"pg{major}")
def guarded(request) -> Iterator[Guarded]:
    settings = {"wal_level": "logical", "autovacuum": False}
    with EmbeddedPostgres(SOURCES[request.param](), settings) as server:
        place = Guarded(server)
        yield place
        place.close()


@asynccontextmanager
async def connected(place: Guarded, role: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(place.dsn(role, "explainer"), autocommit=True) as conn:
        conn.add_notice_handler(lambda _: None)
        yield conn


SESSION = """SELECT jsonb_build_array(
    (SELECT md5(string_agg(name || setting, ',' ORDER BY name)) FROM pg_settings WHERE name !~ '[.]'),
    pg_my_temp_schema() = 0, ARRAY(SELECT pg_listening_channels()), ARRAY(SELECT name FROM pg_cursors WHERE name <> ''),
    ARRAY(SELECT name FROM pg_prepared_statements WHERE name NOT LIKE '\\_pg3\\_%'))"""


async def session_state(conn: psycopg.AsyncConnection) -> object:
    return await (await conn.execute(SESSION)).fetchone()


async def outcome(conn: psycopg.AsyncConnection, case: dict) -> ExplainedPlan | OpsAgentError:
    try:
        return await explain(conn, case["sql"], analyze=case["analyze"], statement_timeout_ms=400)
    except OpsAgentError as error:
        return error


def complaint(case: dict, major: int, role: str, got: ExplainedPlan | OpsAgentError) -> str:
    """What is wrong with an outcome; empty if nothing is."""
    holds = case.get("from", 0) <= major <= case.get("to", 99) and role in case.get("roles", [role])
    expect = case["expect"] if holds else "either"
    lacks_right = isinstance(got, MissingRight) and role != "postgres" and not case["analyze"]
    if expect == "deny" and not isinstance(got, CallRefused):
        return f"not refused: {got!r}"
    if expect == "allow" and not isinstance(got, ExplainedPlan) and not lacks_right:
        return f"not answered: {got}"
    return ""


async def judge(place: Guarded, role: str, cases: list[dict]) -> list[str]:
    """Run all cases over one connection; return what was wrong, statement by statement."""
    wrong = []
    async with connected(place, role) as conn:
        place.watch()
        before = place.fingerprint()
        for case in cases:
            await conn.execute("SELECT set_config('search_path', %s, false)", [case.get("path", "public")])
            session = await session_state(conn)
            what = complaint(case, place.server.major, role, await outcome(conn, case))
            after = place.fingerprint()
            what += "".join(f" changed {key}" for key in before if before[key] != after[key])
            what += " closed the connection" if conn.closed else ""
            what += " changed the session" if not conn.closed and await session_state(conn) != session else ""
            if what:
                wrong.append(f"{case['sql']!r} analyze={case['analyze']}: {what}")
                place.watch()
                after = place.fingerprint()
            before = after
    await asyncio.sleep(0.2)  # for a signal that is still on its way
    late = place.fingerprint()
    return wrong + [f"changed {key} at last" for key in before if before[key] != late[key]]


@pytest.mark.parametrize("role", PASSWORDS)
@pytest.mark.parametrize("name", CASES)
def test_every_case_is_judged_right_and_leaves_nothing(guarded, role, name):
    """Deny gives no plan, allow gives one, and neither leaves an effect in the server or in the session."""
    assert asyncio.run(judge(guarded, role, CASES[name])) == []


def test_case_files_are_whole():
    """The files hold the cases that they count, no case twice, and hundreds on either side."""
    for name in CASES:
        document = json.loads((HERE.parent / "cases" / name).read_text(encoding="utf-8"))
        kinds = [case["expect"] for case in document["cases"]]
        assert document["total"] == len(kinds)
        assert document["counts"] == {kind: kinds.count(kind) for kind in document["counts"]}
    keys = [(case["sql"], case["analyze"], case.get("path")) for cases in CASES.values() for case in cases]
    assert len(keys) == len(set(keys)) > 700


LIVE = {
    # Without the guard each of these leaves a lasting effect: (statement, analyze).
    "terminate": ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='sentinel'", True),
    "cancel": ("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name='sentinel'", True),
    "function called like a column": (
        "SELECT (pid).pg_terminate_backend FROM pg_stat_activity WHERE application_name = 'sentinel'",
        True,
    ),
    "immutable at plan time": ("SELECT * FROM acct WHERE v = f_kill_immutable()", False),
    "inlined at plan time": ("SELECT f_inlined()", False),
    "default at plan time": ("SELECT f_kill_default_volatile()", False),
    "sequence at plan time": ("SELECT 1 WHERE 1 = f_nextval_immutable()", False),
    "estimate of an operator": ("SELECT * FROM acct WHERE v ### 3", False),
    "implicit cast": ("SELECT m + 1 FROM moods", True),
    "domain without its name": ("SELECT lag(b, 1, 'x') OVER () FROM evil_table RIGHT JOIN (SELECT 1) x ON true", True),
    "sorting": ("SELECT * FROM words ORDER BY w", True),
    "index expression at plan time": ("SELECT * FROM indexed WHERE id = 1", False),
    "column default at plan time": ("INSERT INTO defaulted (v) VALUES (1)", False),
    "rule at plan time": ("INSERT INTO ruled VALUES (1)", False),
    "view": ("SELECT * FROM v_deep", True),
    "foreign program": ("SELECT * FROM ft_program", True),
    "aggregate": ("SELECT evil_sum(v) FROM acct", True),
    "created table": ("CREATE TABLE newt AS SELECT * FROM acct", True),
    "large object": ("SELECT lo_create(777)", True),
    "advisory lock": ("SELECT pg_advisory_lock(4242)", True),
    "statistics": ("SELECT pg_stat_reset_shared('bgwriter')", True),
    "write": ("UPDATE acct SET v = v + 1", True),
}


@contextmanager
def unguarded(place: Guarded) -> Iterator[psycopg.Connection]:
    with psycopg.connect(place.dsn("postgres", "unguarded"), autocommit=True) as conn:
        yield conn


@pytest.mark.parametrize("trap", LIVE)
def test_traps_are_live(guarded, trap):
    """The fixture's traps do work and the fingerprint does see it, so that its silence above means something."""
    statement, analyze = LIVE[trap]
    guarded.watch()
    with unguarded(guarded) as conn:
        before = guarded.fingerprint()
        with suppress(psycopg.OperationalError):  # it may end a session
            conn.execute(f"EXPLAIN {'ANALYZE ' if analyze else ''}{statement}")
        effect = changed(guarded, before)
    undo(guarded)
    assert effect


def changed(place: Guarded, before: dict) -> bool:
    """Whether the server changes within a moment: a signalled backend ends a little later."""
    end = time.monotonic() + 5
    while place.fingerprint() == before:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def undo(place: Guarded) -> None:
    for statement in (
        "DROP TABLE IF EXISTS newt",
        "SELECT lo_unlink(777) FROM pg_largeobject_metadata WHERE oid = 777",
    ):
        place.monitor.execute(statement)
    for path in PROBES.glob("opsagent_probe_*"):
        path.unlink()


# --- each layer alone ------------------------------------------------------------------------------------------------


def unread(text: str) -> Statement:
    """A statement that no parser of ours has looked at."""
    return Statement(text, "select", (), (), 0, True, Names())


async def past_the_guards(place: Guarded, text: str, *, analyze: bool) -> ExplainedPlan:
    async with connected(place, "postgres") as conn:
        conn.prepare_threshold = None  # the setting for poolers, under which psycopg ignores prepare=True
        async with explaining._transaction(conn, unread(text), 400, 200) as inside:
            await conn.execute("SET LOCAL search_path = public")
            inside.circumstances.enter("parse")
            return await inside.plan(analyze=analyze)


@pytest.mark.parametrize(
    "text", ["SELECT 1; DELETE FROM acct", "COMMIT; DELETE FROM acct", "SELECT 1; COMMIT; SELECT 2"]
)
@pytest.mark.parametrize("analyze", [False, True])
def test_protocol_alone_takes_one_statement(guarded, text, analyze):
    """Even a text that passed every check of ours by mistake reaches the server as one Parse, which takes one statement."""
    before = guarded.fingerprint()
    with pytest.raises(InvalidArguments, match="multiple commands"):
        asyncio.run(past_the_guards(guarded, text, analyze=analyze))
    assert guarded.fingerprint() == before


@pytest.mark.parametrize("text", ["SET TRANSACTION READ WRITE", "COMMIT", "EXPLAIN ANALYZE DELETE FROM acct", "VACUUM acct",
                                  "COPY acct TO PROGRAM 'touch /dev/shm/opsagent_probe_protocol'"])  # fmt: skip
def test_protocol_alone_explains_no_utility(guarded, text):
    """EXPLAIN EXECUTE of a utility statement runs nothing and gives no plan."""
    before = guarded.fingerprint()
    with pytest.raises(OpsAgentError):
        asyncio.run(past_the_guards(guarded, text, analyze=True))
    assert guarded.fingerprint() == before


@pytest.mark.parametrize(
    "text",
    ["UPDATE acct SET v = v + 1", "SELECT bump()", "SELECT nextval('s1')", "SELECT bump_secdef()", "TABLE v_bump"],
)
def test_transaction_alone_takes_no_write(guarded, text):
    """READ ONLY refuses a write that no check of ours has seen."""
    before = guarded.fingerprint()
    with pytest.raises(StatementRefused, match="READ ONLY"):
        asyncio.run(past_the_guards(guarded, text, analyze=True))
    assert guarded.fingerprint() == before


@pytest.mark.parametrize("text", ["CREATE TABLE newt AS SELECT 1 AS a", "SELECT 1 AS a INTO newt", "SELECT pg_advisory_lock(9)",
                                  "SELECT set_config('work_mem', '1MB', false)"])  # fmt: skip
def test_rollback_alone_leaves_no_table_lock_or_setting(guarded, text):
    """What READ ONLY lets through is rolled back, and advisory locks are released."""
    before = guarded.fingerprint()
    with suppress(OpsAgentError):
        asyncio.run(past_the_guards(guarded, text, analyze=True))
    after = guarded.fingerprint()
    assert {**after, "transaction ids": ""} == {**before, "transaction ids": ""}


def test_string_syntax_is_pinned(guarded):
    """With standard_conforming_strings off in the session the server still reads strings as our parser does."""

    async def scene():
        async with connected(guarded, "postgres") as conn:
            await conn.execute("SET standard_conforming_strings = off")
            await conn.execute("SET escape_string_warning = off")
            with pytest.raises(StatementRefused):
                await explain(conn, r"SELECT '\', pg_advisory_lock(1), '", analyze=True)
            # To our parser one string; to a server with the setting off a string, a call, and a comment.
            explained = await explain(conn, r"SELECT '\'', pg_advisory_lock(4747) --'", analyze=True)
            row = await (await conn.execute("SHOW standard_conforming_strings")).fetchone()
            return explained, row

    before = guarded.fingerprint()
    explained, row = asyncio.run(scene())
    assert explained.plan["Node Type"] == "Result"
    assert row == ("off",)
    assert guarded.fingerprint()["advisory locks"] == before["advisory locks"]


def test_connection_is_left_as_it_was(guarded):
    """After a plan, a refusal, a failure and a time-out the session is idle, in autocommit and without leftovers."""

    async def scene():
        async with connected(guarded, "postgres") as conn:
            before = await session_state(conn)
            for text in ("TABLE acct", "SELECT bump()", "SELECT 1/0", "SELECT count(*) FROM generate_series(1, 1e12)"):
                await outcome(conn, {"sql": text, "analyze": True})
                assert conn.pgconn.transaction_status == pq.TransactionStatus.IDLE
            return before, await session_state(conn)

    before, after = asyncio.run(scene())
    assert before == after


def test_source_of_debian_is_used_when_there():
    """The newest server of the system is among those tested."""
    assert debian_major() in MAJORS
