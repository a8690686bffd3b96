"""What a clumsy, unlucky or hostile user meets: a message that says what to do, a stable code, and nothing lost.

The same mistake is made at three doors: the Python API, ``%opsagent`` in a real kernel, and the command line.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import nbformat
import psycopg
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import (
    AuditUnavailable,
    KeyMalformed,
    OpsAgentError,
    SchemaTooNew,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
)
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.stores.store import open_store
from tests.kernels import ROOT, Kernel, kernel
from tests.ledger_plugin import Ledger
from tests.ledger_plugin import plugin as ledger
from tests.model_server import Turn, serving
from tests.postgres import new_database

SECRET = "ge%Heim-9x"  # planted in every connection string of this file
#: What a person who is no programmer cannot read, or should not.
JARGON = re.compile(
    r"Traceback|Errno|0x[0-9a-f]{6}|psycopg\d?\.|sqlalchemy\.|pydantic|duckdb\.|asyncio|NoneType|\w+Exception\b|<class",
    re.IGNORECASE,
)


def reads_well(text: str) -> None:
    """A message is plain, short, ends, and holds no secret."""
    assert not JARGON.search(text), text
    assert SECRET not in text
    assert "ge%25Heim-9x" not in text
    assert text.strip()[-1] in ".;?!)`'\"", text
    assert len(text) < 700, text
    assert not re.search(r"[?!]\.( |$)|[^.]\.\.( |$)|\S  \S| \.( |$)", text), text


@dataclass(frozen=True)
class Said:
    """How a door refused: the stable code and everything it said."""

    code: str
    text: str


@dataclass
class House:
    """One store with its three doors, on a real PostgreSQL server."""

    home: Path
    server: EmbeddedPostgres
    dsn: str
    key: str
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment = {
            "JUPYTER_DATA_DIR": str(self.home / "jupyter"),
            "IPYTHONDIR": str(self.home / "ipython"),
            "OPSAGENT_STORE_URL": self.store,
            "PLUGIN_ENCRYPTION_KEY": self.key,
        }

    @property
    def store(self) -> str:
        return f"sqlite:///{self.home / 'store' / 'opsagent.db'}"

    @contextmanager
    def agent(self) -> Iterator[OpsAgent]:
        """An OpsAgent of this process, with the key of the house."""
        os.environ["PLUGIN_ENCRYPTION_KEY"] = self.key
        try:
            with OpsAgent(self.store) as ops:
                yield ops
        finally:
            os.environ.pop("PLUGIN_ENCRYPTION_KEY")

    def cli(self, *line: str, typed: str = "", **environment: str | None) -> subprocess.CompletedProcess[str]:
        """Run the command line; a variable that is None is not there."""
        given = {**os.environ, **self.environment, **environment, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "opsagent_jupyter.cli", *line],
            env={name: value for name, value in given.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=60,
            input=typed,
            check=False,
        )


@pytest.fixture(scope="module")
def house(pg18: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with new_database(pg18) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE orders (id int PRIMARY KEY, customer_id int)")
            connection.execute("CREATE TABLE secret_orders (id int)")
            connection.execute(f"CREATE ROLE weak LOGIN PASSWORD '{SECRET}'")
            connection.execute("CREATE ROLE outsider LOGIN PASSWORD 'ge%Heim-9x'")
            connection.execute(f"REVOKE CONNECT ON DATABASE {connection.info.dbname} FROM PUBLIC")
            connection.execute(f"GRANT CONNECT ON DATABASE {connection.info.dbname} TO weak")
        yield House(tmp_path_factory.mktemp("house"), pg18, dsn, new_key())
        with psycopg.connect(dsn, autocommit=True) as connection:
            for role in ("weak", "outsider"):
                connection.execute(f"DROP OWNED BY {role}")
                connection.execute(f"DROP ROLE {role}")


@pytest.fixture(scope="module")
def cell(house: House) -> Iterator[Kernel]:
    """A kernel of this house with the shop attached."""
    with kernel(**house.environment, SHOP_DSN=house.dsn) as running:
        running.run("%load_ext opsagent_jupyter\nimport os")
        assert not running.run("%opsagent attach postgresql shop --dsn-env SHOP_DSN -e development").errors
        yield running


def dsn_as(house: House, user: str, password: str = "ge%25Heim-9x", options: str = "") -> str:
    where = urlsplit(house.dsn)
    return f"postgresql://{user}:{password}@{where.hostname}:{where.port}{where.path}{options}"


# -- connection strings, at each door -----------------------------------------------------------------------------------


def by_api(house: House, cell: Kernel, dsn: str) -> Said:
    with house.agent() as ops, pytest.raises(OpsAgentError) as caught:
        ops.attach("postgresql", "bad", dsn=dsn)
    return Said(caught.value.code, str(caught.value))


def by_command_line(house: House, cell: Kernel, dsn: str) -> Said:
    done = house.cli("--json", "attach", "postgresql", "bad", "--dsn-env", "BAD_DSN", BAD_DSN=dsn)
    assert done.returncode == 1
    assert done.stderr == ""
    error = json.loads(done.stdout)["error"]
    return Said(error["code"], f"{error['message']} {error['hint']}".strip())


def by_magic(house: House, cell: Kernel, dsn: str) -> Said:
    cell.run(f"os.environ['BAD_DSN'] = {dsn!r}")
    ran = cell.run("%opsagent attach postgresql bad --dsn-env BAD_DSN")
    assert len(ran.errors) == 1
    found = re.fullmatch(r"✗ (.*?)\n  → (.*)\n  \(([\w.]+)\)", ran.errors[0], re.DOTALL)
    assert found, ran.errors[0]
    return Said(found[3], f"{found[1]} {found[2]}")


DOORS = {"api": by_api, "cli": by_command_line, "magic": by_magic}
MISTAKES: dict[str, tuple[Callable[[House], str], str, str]] = {
    "malformed": (
        lambda _: f"postgresql//shop:{SECRET}@db/shop",
        "execution.malformed_dsn",
        "Write postgresql://user@host:5432/database",
    ),
    "a wrong port": (
        lambda _: "postgresql://shop:ge%25Heim-9x@db:99999/shop",
        "execution.malformed_dsn",
        "1 to 65535",
    ),
    "a password that is not percent-encoded": (
        lambda _: f"postgresql://shop:{SECRET}@db/shop",
        "execution.malformed_dsn",
        "%25 for a percent sign",
    ),
    "an unknown key": (
        lambda _: f"host=db paswrod={SECRET}",
        "execution.malformed_dsn",
        "does not know one of the keys",
    ),
    "another database's": (lambda _: f"mysql://root:{SECRET}@db/shop", "execution.malformed_dsn", "mysql://"),
    "for another library": (
        lambda _: f"postgresql+psycopg2://root:{SECRET}@db/shop",
        "execution.malformed_dsn",
        "Write postgresql://user@host:5432/database",
    ),
    "unreachable": (
        lambda _: "postgresql://shop:ge%25Heim-9x@127.0.0.1:1/shop",
        "execution.unreachable",
        "Check host, port, firewall and that the server runs.",
    ),
    "unresolvable": (
        lambda _: "postgresql://shop:ge%25Heim-9x@nowhere.invalid/shop",
        "execution.unreachable",
        "nowhere.invalid",
    ),
    "wrong password": (
        lambda house: dsn_as(house, "postgres"),
        "execution.authentication_failed",
        "Check user and password",
    ),
    "no password": (
        lambda house: dsn_as(house, "postgres").replace(":ge%25Heim-9x", ""),
        "execution.authentication_failed",
        "no password supplied",
    ),
    "TLS refused": (
        lambda house: dsn_as(house, "weak", options="?sslmode=require"),
        "execution.tls_refused",
        "Check sslmode, sslrootcert and the server's certificate.",
    ),
    "no right to connect": (
        lambda house: dsn_as(house, "outsider"),
        "execution.authentication_failed",
        "GRANT CONNECT ON DATABASE to this role.",
    ),
    "no such database": (
        lambda house: dsn_as(house, "weak").rpartition("/")[0] + "/nowhere",
        "execution.unreachable",
        "Check the database and role names",
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_database_that_cannot_be_attached_says_why(house: House, cell: Kernel, mistake: str, door: str) -> None:
    """The same code and words at every door; only the audit keeps that it was tried, and what was attached stays."""
    dsn, code, says = MISTAKES[mistake]
    said = DOORS[door](house, cell, dsn(house))
    assert said.code == code
    assert says in said.text
    reads_well(said.text)
    with house.agent() as ops:
        assert [instance.name for instance in ops.instances()] == ["shop"]
        assert ops.run("list_indexes", on="shop", table="orders").status == "succeeded"
        tried = ops.audit_sql("SELECT status, error_code FROM audit WHERE type = 'instance.refused' ORDER BY seq DESC")
        assert list(tried.iloc[0]) == ["failed", code]


@pytest.mark.parametrize("door", DOORS)
def test_a_password_typed_openly_is_refused_with_the_ways_that_are_not(house: House, cell: Kernel, door: str) -> None:
    """In a cell and on a command line it would be kept for good; a script's variable is another matter."""
    typed = dsn_as(house, "weak")
    if door == "api":
        with house.agent() as ops:
            assert ops.attach("postgresql", "scripted", dsn=typed).ok
            ops.detach("scripted")
        return
    if door == "cli":
        done = house.cli("--json", "attach", "postgresql", "bad", "--dsn", typed)
        said = done.stdout + done.stderr
        assert done.returncode == 1
    else:
        said = "".join(cell.run(f"%opsagent attach postgresql bad --dsn {typed}").errors)
    assert "credential.secret_in_clear" in said
    assert "--dsn-env" in said
    assert "change that password" in said
    assert "ge%25Heim-9x" not in said


def test_a_connection_string_in_the_wrong_place_is_not_repeated(house: House, cell: Kernel) -> None:
    """As name, plugin, server or variable: none of the messages holds it."""
    typed = dsn_as(house, "weak")
    for line in (
        f"attach postgresql {typed}",
        f"attach {typed} shop",
        f"attach postgresql bad --dsn-env {typed}",
        f"attach postgresql bad --service '{typed}'",
        f"attach postgresql bad --server {typed} --dsn-env SHOP_DSN",
    ):
        ran = cell.run(f"%opsagent {line}")
        assert len(ran.errors) == 1
        assert "ge%25Heim-9x" not in ran.errors[0] + ran.text
    done = house.cli("--json", "servers", "--store", "postgresql://u:ge%25Heim-9x@db/store")
    assert done.returncode in {1, 2}
    with house.agent() as ops:
        for tried in (lambda: ops.attach("postgresql", "x", dsn_env=typed), lambda: ops.attach(typed, "x", dsn="y")):
            with pytest.raises(OpsAgentError) as caught:
                tried()
            assert "ge%25Heim-9x" not in str(caught.value)


def test_a_role_without_rights_is_told_which_grant_it_needs(house: House) -> None:
    """The reading tools answer with what they may see, or name the GRANT; nothing fails raw."""
    with house.agent() as ops:
        assert ops.attach("postgresql", "modest", dsn=dsn_as(house, "weak"), environment="development").ok
        try:
            refused = ops.run("explain_query", on="modest", sql="SELECT * FROM secret_orders")
            assert (refused.status, refused.record.error_code) == ("refused", "call.missing_right")
            assert "GRANT SELECT ON public.secret_orders TO weak" in refused.summary
            change = ops.run("create_index", on="modest", table="orders", columns=["customer_id"])
            assert (change.status, change.record.error_code) == ("refused", "call.missing_right")
            for call in (refused, change):
                reads_well(call.summary)
            for tool in (
                "get_connection_stats",
                "get_locks",
                "list_indexes",
                "get_table_stats",
                "get_replication_status",
            ):
                assert ops.run(tool, on="modest").status in {"succeeded", "refused"}
        finally:
            ops.detach("modest")


# -- names, arguments and types, at each door ---------------------------------------------------------------------------

WORDS: dict[str, tuple[str, str, str]] = {
    "an unknown database": ("run list_indexes --on shpo", "plugin.unknown_instance", "did you mean shop"),
    "an unknown tool": ("run list_indxes --on shop", "plugin.unknown_tool", "did you mean list_indexes"),
    "an unknown plugin": ("run oracle.list_indexes --on shop", "plugin.unknown", "postgresql"),
    "an unknown argument": ("run list_indexes --tabel orders", "call.invalid_arguments", "no argument 'tabel'"),
    "a missing argument": ("run create_index --table orders", "call.invalid_arguments", "needs the argument 'columns'"),
    "a wrong type": ("run get_slow_queries --limit many", "call.invalid_arguments", "argument 'limit'"),
    "a wrong choice": ("run get_slow_queries --order colour", "call.invalid_arguments", "argument 'order'"),
    "a wrong list": ("run create_index --table orders --columns ,", "call.invalid_arguments", "at least one column"),
    "an unknown table": ("run list_indexes --table ordres", "call.invalid_arguments", "orders"),
    "a bare word": ("run list_indexes orders", "call.invalid_arguments", "'orders' stands alone"),
    "an unknown request": ("approve ffffffff", "approval.unknown", "%opsagent approvals"),
    "an unknown conversation": ("close ffffffff", "session.unknown", "%opsagent sessions"),
    "a wrong time": ("audit query --since yesterday", "audit.query", "2026-11-01"),
    "a wrong checkpoint": ("audit verify --checkpoint nowhere.json", "config", "opsagent audit checkpoint"),
    "a wrong environment": ("attach postgresql x --dsn-env SHOP_DSN -e prod", "config", "production, staging"),
    "an unset variable": ("attach postgresql x --dsn-env UNSET_DSN", "config", "Set UNSET_DSN before Jupyter starts"),
}


@pytest.mark.parametrize("mistake", WORDS)
def test_wrong_words_say_what_is_right(house: House, cell: Kernel, mistake: str) -> None:
    """On the command line and in a cell: a code, a message that helps, exit 1, and nothing was run."""
    line, code, says = WORDS[mistake]
    done = house.cli("--json", *line.split(), SHOP_DSN=house.dsn)
    assert done.returncode in {1, 5}, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    error = answer.get("error") or {"code": answer["error_code"], "message": answer["summary"], "hint": ""}
    assert error["code"] == code
    assert says in f"{error['message']} {error['hint']}"
    reads_well(f"{error['message']} {error['hint']}".strip())
    line = line.replace("audit query", "audit").replace("audit verify", "audit --verify")
    ran = cell.run(f"%opsagent {line}")
    assert says in ran.text + "".join(ran.errors)
    assert "Traceback" not in "".join(ran.errors)


@pytest.mark.parametrize(
    "line",
    [
        "", "nonsense", "run", "run list_indexes --wait soon", "approve", "approvals --limit 0", "audit --limit x",
        "attach postgresql", "resolve 1234 --state maybe --reason x", "ask", "servers too many", "--nonsense",
        "reject 12ab --reason don't", 'run explain_query --sql "SELECT 1',
    ],
)  # fmt: skip
def test_a_line_that_is_no_command_is_answered_with_the_way_to_help(cell: Kernel, line: str) -> None:
    """No traceback, whatever is typed; the bare word is the status."""
    ran = cell.run(f"%opsagent {line}")
    if not line:
        assert not ran.errors
        return
    assert re.fullmatch(r"✗ .+\n  → .+\n  \(call.invalid_arguments\)", "".join(ran.errors), re.DOTALL)


@pytest.mark.parametrize(
    "arguments",
    [
        {"table": 7}, {"table": None}, {"table": ["orders"]}, {"table": {"a": 1}},
        {"table": object()}, {"table": "x" * 30_000}, {"table": "orders\x00"}, {"table": "ord\ud800ers"},
        {"": "x"}, {"table; DROP TABLE orders": "x"}, {"table": "orders; DROP TABLE orders"},
        {"table": "'; DROP TABLE orders --"}, {"table": float("nan")}, {"table": "😀" * 100},
    ],
    ids=range(14),
)  # fmt: skip
def test_no_argument_breaks_the_gate(house: House, cell: Kernel, arguments: dict[str, Any]) -> None:
    """Whatever a script passes, the call ends refused with a readable reason, and the table is still there."""
    with house.agent() as ops:
        call = ops.run("list_indexes", on="shop", **arguments)
        assert call.status == "refused", repr(call)
        assert call.record.error_code == "call.invalid_arguments"
        assert "Traceback" not in call.summary
        assert ops.verify().ok
    with psycopg.connect(house.dsn) as connection:
        assert connection.execute("SELECT to_regclass('orders') IS NOT NULL").fetchone() == (True,)


# -- keys ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger_store(tmp_path: Path, ledger_file: Path) -> str:
    """A store with an attached database and one waiting request, made with the key KEY."""
    url = f"sqlite:///{tmp_path / 'kept' / 'opsagent.db'}"
    with ledger_agent(url) as ops:
        ops.attach("ledger", "books", server="desk", environment="development", dsn=str(ledger_file))
        ops.run("add_mark", text="kept")
    return url


KEY = new_key()


@contextmanager
def ledger_agent(url: str, key: str = KEY, **settings: Any) -> Iterator[OpsAgent]:
    """An OpsAgent of this test with that key."""
    before = os.environ.get("PLUGIN_ENCRYPTION_KEY")
    os.environ["PLUGIN_ENCRYPTION_KEY"] = key
    try:
        with OpsAgent(url, lease_seconds=1.5, **settings) as ops:
            ops.runtime.plugins.add(ledger)
            yield ops
    finally:
        os.environ.pop("PLUGIN_ENCRYPTION_KEY")
        if before is not None:
            os.environ["PLUGIN_ENCRYPTION_KEY"] = before


@pytest.mark.parametrize("key", ["", "abc", "g" * 64, "a" * 63, "a" * 65, f"{'a' * 64},short"])
def test_a_key_of_the_wrong_form_is_refused_without_repeating_it(ledger_store: str, key: str) -> None:
    """The message says how long it is and how to make a right one; the store is untouched."""
    before = Path(ledger_store.removeprefix("sqlite:///")).read_bytes()
    with pytest.raises(KeyMalformed) as caught, ledger_agent(ledger_store, key):
        pass
    assert "opsagent key new" in caught.value.hint
    assert caught.value.code == "credential.key_malformed"
    reads_well(str(caught.value))
    assert not key or key not in str(caught.value)
    assert Path(ledger_store.removeprefix("sqlite:///")).read_bytes() == before


@pytest.mark.parametrize("door", ["cli", "magic"])
def test_a_key_of_the_wrong_form_is_told_at_the_other_doors(house: House, door: str) -> None:
    """The same code; a kernel's first status shows it as well."""
    if door == "cli":
        done = house.cli("--json", "servers", PLUGIN_ENCRYPTION_KEY="abc")
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "credential.key_malformed")
        return
    with kernel(**house.environment | {"PLUGIN_ENCRYPTION_KEY": "abc"}) as other:
        other.run("%load_ext opsagent_jupyter")
        assert "credential.key_malformed" in other.run("%opsagent servers").errors[0]
        assert "has 3 characters instead of 64" in other.run("status = %opsagent\nstatus.card").errors[0]


def test_another_key_loses_nothing_and_says_which_one_is_needed(ledger_store: str, ledger_file: Path) -> None:
    """Databases and requests stay, calls say what to do, and the right key makes all of it work again."""
    with ledger_agent(ledger_store, new_key()) as ops:
        assert [instance.name for instance in ops.instances()] == ["books"]
        call = ops.run("list_marks")
        assert call.record.error_code == "credential.key_unknown"
        assert "PLUGIN_ENCRYPTION_KEY" in call.summary
        reads_well(call.summary)
        (health,) = ops.health()
        assert (health.ok, health.error_code) == (False, "credential.key_unknown")
        assert list(ops.approvals()["state"]) == ["pending"]
        request = ops.approvals()["id"][0]
        ops.approve(request)
        time.sleep(1)
        assert str(ops.approval(request).state) == "approved"
    assert Ledger("outside", str(ledger_file)).texts() == []
    with ledger_agent(ledger_store, f"{new_key()},{KEY}") as ops:
        assert ops.run("list_marks").status == "succeeded"
        wait_for(lambda: str(ops.approval(request).state) == "succeeded")
    assert Ledger("outside", str(ledger_file)).texts() == ["kept"]


def test_a_new_key_takes_over_while_others_work(house: House, store_url: str, ledger_file: Path) -> None:
    """`key rotate` makes one where it is kept by us; an OpsAgent that is running reads on with it."""
    with OpsAgent(store_url) as ops:
        ops.runtime.plugins.add(ledger)
        ops.attach("ledger", "books", dsn=str(ledger_file))
        key_file = file_of(store_url).with_name("opsagent.key")
        before = key_file.read_text()
        done = house.cli("--json", "key", "rotate", OPSAGENT_STORE_URL=store_url, PLUGIN_ENCRYPTION_KEY=None)
        assert done.returncode == 0, done.stdout
        assert key_file.read_text() not in (before, "")
        assert "the old one is gone" in done.stdout
        ops.attach("ledger", "more", dsn=str(ledger_file))
        assert [ops.run("list_marks", on=name).status for name in ("books", "more")] == ["succeeded"] * 2
    with OpsAgent(store_url) as ops:
        ops.runtime.plugins.add(ledger)
        assert [ops.run("list_marks", on=name).status for name in ("books", "more")] == ["succeeded"] * 2


def test_a_key_that_somebody_else_keeps_is_not_changed_for_them(house: House, ledger_store: str) -> None:
    """With one key in the environment the message says how to give two."""
    done = house.cli("--json", "key", "rotate", OPSAGENT_STORE_URL=ledger_store, PLUGIN_ENCRYPTION_KEY=KEY)
    assert done.returncode == 1
    assert "PLUGIN_ENCRYPTION_KEY=new,old" in json.loads(done.stdout)["error"]["hint"]


def wait_for(holds: Callable[[], bool], seconds: float = 15) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, "it did not come about in time"
        time.sleep(0.05)


# -- the store ----------------------------------------------------------------------------------------------------------


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@contextmanager
def holding(library: str, path: Path) -> Iterator[int]:
    """Another process that has a file of ours open for itself: its pid."""
    code = {
        "sqlite3": "db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None); db.execute('BEGIN EXCLUSIVE')",
        "duckdb": "db = duckdb.connect(sys.argv[1])",
    }[library]
    script = f"import {library}, sys; {code}; print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_store_that_is_locked_for_a_moment_costs_only_time(ledger_store: str) -> None:
    """A call during a backup of somebody else's waits and then runs."""
    with ledger_agent(ledger_store) as ops:
        with ThreadPoolExecutor() as beside, holding("sqlite3", file_of(ledger_store)):
            waiting = beside.submit(ops.run, "list_marks", on="books")
            time.sleep(2)
            assert not waiting.done()
        assert waiting.result(20).status == "succeeded"


def test_a_store_that_stays_locked_is_named(ledger_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs without its audit record; afterwards everything is as it was. In WAL what is there can be read."""
    monkeypatch.setitem(open_store.__kwdefaults__, "lock_timeout", 1.0)
    with ledger_agent(ledger_store) as ops:
        with holding("sqlite3", file_of(ledger_store)):
            with pytest.raises((StoreLocked, AuditUnavailable)) as caught:
                ops.run("list_marks", on="books")
            reads_well(str(caught.value))
            assert "locked" in str(caught.value)
            assert caught.value.hint
            with nullcontext() if ops.runtime.store.journal_mode == "wal" else pytest.raises(StoreLocked):
                assert [instance.name for instance in ops.instances()] == ["books"]
        assert ops.run("list_marks").status == "succeeded"
        assert ops.verify().ok


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * 20_000)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def text(path: Path) -> None:
    path.write_text("this is no store\n" * 100)


def somebody_elses(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE customers (id INTEGER)")
    other.close()


@pytest.mark.parametrize("damage", [zeros, truncated, text, somebody_elses])
def test_a_damaged_store_is_refused_and_left_as_it_is(
    house: House, ledger_store: str, damage: Callable[[Path], None]
) -> None:
    """At each door: the code, the file's name, a way on; not a byte of the file is changed."""
    path = file_of(ledger_store)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt) as caught, ledger_agent(ledger_store):
        pass
    reads_well(str(caught.value))
    assert path.name in str(caught.value)
    assert "OPSAGENT_STORE_URL" in caught.value.hint
    done = house.cli("--json", "servers", OPSAGENT_STORE_URL=ledger_store)
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["code"] == "store.corrupt"
    assert path.read_bytes() == before


def test_a_store_of_a_newer_release_is_left_alone(house: House, ledger_store: str) -> None:
    """The message says to upgrade the installation, not the store."""
    with sqlite3.connect(file_of(ledger_store)) as database:
        database.execute("UPDATE opsagent_version SET version_num = '9999'")
    database.close()
    before = file_of(ledger_store).read_bytes()
    with pytest.raises(SchemaTooNew, match="9999") as caught, ledger_agent(ledger_store):
        pass
    assert "pip install -U opsagent_jupyter" in caught.value.hint
    reads_well(str(caught.value))
    done = house.cli("--json", "store", "upgrade", OPSAGENT_STORE_URL=ledger_store)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (5, "store.schema_too_new")
    assert file_of(ledger_store).read_bytes() == before


@contextmanager
def small_disk(folder: Path, options: str = "size=6m") -> Iterator[Path]:
    """A file system of a few megabytes, mounted for this test."""
    if os.geteuid():
        pytest.fail("This test mounts a small disk: run the tests as root.", pytrace=False)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the space that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x")
    return ballast


def test_a_full_disk_stops_everything_and_loses_nothing(tmp_path: Path, ledger_file: Path) -> None:
    """No record, no run: reads and approvals are refused with the reason; with space again they go on."""
    with small_disk(tmp_path / "disk") as disk, ledger_agent(f"sqlite:///{disk / 'opsagent.db'}") as ops:
        ops.attach("ledger", "books", environment="development", dsn=str(ledger_file))
        request = ops.run("add_mark", text="late").record.approval
        ballast = fill(disk)
        refused = 0
        for _ in range(3):
            with suppress(OpsAgentError):
                ops.run("list_marks")
                continue
            refused += 1
        assert refused == 3
        with pytest.raises((StoreFull, AuditUnavailable)) as caught:
            ops.run("list_marks")
        reads_well(str(caught.value))
        assert "full" in str(caught.value)
        assert "Free space" in caught.value.hint
        with pytest.raises(StoreFull):
            ops.approve(request)
        assert str(ops.approval(request).state) == "pending"
        assert Ledger("outside", str(ledger_file)).texts() == []
        ballast.unlink()
        ops.approve(request)
        wait_for(lambda: str(ops.approval(request).state) == "succeeded")
        assert ops.run("list_marks").status == "succeeded"
        assert ops.verify().ok
    assert Ledger("outside", str(ledger_file)).texts() == ["late"]


def test_a_disk_that_fills_up_while_a_change_runs_does_not_lose_its_outcome(tmp_path: Path, ledger_file: Path) -> None:
    """The statement was sent, its record did not fit: it is written as soon as there is space, and nothing runs twice."""
    with small_disk(tmp_path / "disk") as disk, ledger_agent(f"sqlite:///{disk / 'opsagent.db'}") as ops:
        ops.attach("ledger", "books", environment="development", dsn=str(ledger_file))
        call = ops.run("add_mark", text="slow", how="slow")
        ops.approve(call.record.approval)
        wait_for(lambda: str(ops.approval(call.record.approval).state) == "executing")
        ballast = fill(disk)
        wait_for(lambda: Ledger("outside", str(ledger_file)).texts() == ["slow"])
        time.sleep(1)
        assert call.status in {"running", "unknown"}
        ballast.unlink()
        wait_for(lambda: call.status == "succeeded", 30)
        assert ops.verify().ok
    assert Ledger("outside", str(ledger_file)).texts() == ["slow"]


def test_a_store_that_can_only_be_read_is_shown_and_runs_nothing(tmp_path: Path, ledger_store: str) -> None:
    """A folder mounted read-only: the message says to make it writable."""
    source, place = file_of(ledger_store).parent, tmp_path / "readonly"
    with small_disk(place):
        for name in source.iterdir():
            shutil.copy(name, place)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with pytest.raises(StoreReadOnly) as caught, ledger_agent(f"sqlite:///{place / 'opsagent.db'}") as ops:
            ops.run("list_marks")
    reads_well(str(caught.value))
    assert "writable" in caught.value.hint


def test_a_store_on_a_server_that_is_away_says_what_to_check(house: House) -> None:
    """Without its password, at the API and on the command line."""
    url = "postgresql+psycopg://ops:ge%25Heim-9x@127.0.0.1:1/store"
    with pytest.raises(StoreError) as caught:
        OpsAgent(url)
    assert caught.value.code == "store.unavailable"
    assert "OPSAGENT_STORE_URL" in caught.value.hint
    reads_well(str(caught.value))
    done = house.cli("--json", "servers", OPSAGENT_STORE_URL=url)
    assert done.returncode == 5
    assert SECRET not in done.stdout + done.stderr
    assert "ge%25Heim-9x" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"store_url": "nonsense"}, "sqlite:////path/opsagent.db"),
        ({"store_url": "mysql://u:ge%25Heim-9x@h/x"}, "sqlite:////path"),
        ({"store_url": "sqlite://"}, "sqlite:////path/opsagent.db"),
        ({"setup": "alone"}, "OPSAGENT_SETUP"),
        ({"deadline": "soon"}, "OPSAGENT_DEADLINE"),
        ({"rows": 0}, "OPSAGENT_ROWS"),
        ({"modle": "offline"}, "did you mean model"),
        ({"policy_file": "/nowhere/policy.json"}, "OPSAGENT_POLICY"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, Any], says: str) -> None:
    """With what it takes and where to correct it."""
    with pytest.raises(OpsAgentError) as caught:
        OpsAgent(**settings)
    assert caught.value.code == "config"
    assert says in str(caught.value)
    reads_well(str(caught.value))


def test_a_policy_file_that_is_wrong_stops_the_start(tmp_path: Path) -> None:
    """A missing rule would be a weaker rule."""
    for content in ("{", '{"rules": 7}', '{"rulez": []}', "[]"):
        path = tmp_path / "policy.json"
        path.write_text(content)
        with pytest.raises(OpsAgentError, match="policy file") as caught:
            OpsAgent(policy_file=str(path))
        assert caught.value.code == "config"


# -- audit.duckdb -------------------------------------------------------------------------------------------------------


def test_while_another_process_holds_audit_duckdb_calls_go_on_and_reads_are_complete(ledger_store: str) -> None:
    """The answer comes from the store and says why."""
    with ledger_agent(ledger_store) as ops:
        ops.audit()
        with holding("duckdb", ops.settings.audit_path) as pid:
            assert ops.run("list_marks").status == "succeeded"
            seen = ops.audit()
            assert list(seen["seq"]) == list(range(1, len(seen) + 1))
            assert seen.iloc[-1]["type"] == "call.outcome"
            (notice,) = seen.attrs["notices"]
            assert f"process {pid}" in notice
            reads_well(notice)
        assert ops.audit().attrs["notices"] == ()


def test_a_damaged_audit_duckdb_is_set_aside_and_rebuilt(ledger_store: str) -> None:
    """The log is in the store: no row is lost, and the damaged file is kept."""
    with ledger_agent(ledger_store) as ops:
        rows = len(ops.audit())
        ops.settings.audit_path.write_bytes(b"not a database" * 500)
        seen = ops.audit()
        assert len(seen) == rows
        assert "rebuilt from the store" in " ".join(seen.attrs["notices"])
        assert list(ops.settings.audit_path.parent.glob("audit.duckdb.corrupt-*"))
        assert ops.verify().ok


# -- models -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        ("openai:gpt-5", "model.unavailable", "OPENAI_API_KEY"),
        ("anthropic:claude", "model.unavailable", "ANTHROPIC_API_KEY"),
        ("gpt-5", "model.unknown", "provider:name"),
        ("openai:", "model.unknown", "provider:name"),
        ("nowhere:x", "model.unknown", "provider:name"),
    ],
)
def test_a_model_that_cannot_be_opened_says_what_it_lacks(
    house: House, ops: OpsAgent, model: str, code: str, says: str
) -> None:
    """As the turn's error, raised where its text is read; on the command line as exit 1. Offline is always offered."""
    turn = ops.ask("list the marks", model=model).wait(20)
    assert turn.state == "failed"
    assert turn.error is not None
    assert turn.error.code == code
    assert says in str(turn.error)
    assert "offline" in str(turn.error)
    reads_well(str(turn.error))
    with pytest.raises(OpsAgentError):
        assert turn.text
    assert ops.messages(turn.session_id)[0].text == "list the marks"
    assert ops.ask("list the marks", session=turn.session_id, model="offline").text
    done = house.cli("--json", "ask", "--model", model, "--", "show me the locks")
    assert (done.returncode, json.loads(done.stdout)["error"]["error"]["code"]) == (1, code)


NONSENSE: dict[str, tuple[tuple[Turn, ...], str]] = {
    "no JSON": ((Turn(body="<html>It works!</html>"),), "failed"),
    "an empty object": ((Turn(body="{}"),), "failed"),
    "an empty answer": ((Turn(""),), "failed"),
    "half an answer": ((Turn("The marks are", stops_after=3),), "failed"),
    "a tool that is not there": ((Turn(calls=(("drop_everything", "{}"),)), Turn("Done.")), "finished"),
    "arguments that are not JSON": ((Turn(calls=(("ledger_add_mark", '{"text": "x'),)), Turn("Done.")), "finished"),
    "arguments of a wrong type": ((Turn(calls=(("ledger_add_mark", '{"text": 7}'),)), Turn("Done.")), "finished"),
    "arguments that are not there": (
        (Turn(calls=(("ledger_list_marks", '{"all": true}'),)), Turn("Done.")),
        "finished",
    ),
    "a list for arguments": ((Turn(calls=(("ledger_add_mark", "[1, 2]"),)), Turn("Done.")), "finished"),
    "the same call for ever": ((Turn(calls=(("ledger_list_marks", "{}"),)),), "failed"),
    "a wrong key": ((Turn(status=401, body='{"error": {"message": "bad key sk-0123456789abcdef01"}}'),), "failed"),
    "a used-up quota": ((Turn(status=429, body='{"error": {"message": "slow down"}}'),), "failed"),
    "a broken server": ((Turn(status=500, body="oops"),), "failed"),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_model_that_answers_nonsense_runs_nothing_and_ends(
    store_url: str, ledger_file: Path, monkeypatch: pytest.MonkeyPatch, nonsense: str
) -> None:
    """A defined state, a readable reason, no effect, no request; the conversation goes on afterwards."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef01")
    script, state = NONSENSE[nonsense]
    with (
        serving(*script) as server,
        ledger_agent(store_url, model="openai:gpt-test", model_base_url=f"{server.url}/v1") as ops,
    ):
        ops.attach("ledger", "books", environment="development", dsn=str(ledger_file))
        turn = ops.ask("list the marks").wait(40)
        assert turn.state == state
        if turn.error is not None:
            assert turn.error.code.startswith(("model.", "call.turn_limit"))
            reads_well(str(turn.error))
            assert "sk-0123456789abcdef01" not in str(turn.error)
        assert len(ops.approvals(state="all")) == 0
        assert Ledger("outside", str(ledger_file)).texts() == []
        assert ops.ask("list the marks", session=turn.session_id, model="offline").text == "0 marks."
        assert ops.verify().ok


# -- interrupts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, ledger_file: Path) -> Iterator[Kernel]:
    """A kernel with the ledger attached."""
    url = f"sqlite:///{tmp_path / 'desk' / 'opsagent.db'}"
    with kernel(OPSAGENT_STORE_URL=url, PLUGIN_ENCRYPTION_KEY=KEY, OPSAGENT_LEASE_SECONDS="3") as running:
        ran = running.run(
            "%load_ext opsagent_jupyter\n%opsagent servers\nfrom tests.ledger_plugin import plugin\n"
            "_ops.runtime.plugins.add(plugin)\n"
            f"_ops.attach('ledger', 'books', environment='development', dsn={str(ledger_file)!r})\n"
        )
        assert not ran.errors
        yield running


def value(running: Kernel, expression: str) -> Any:
    said = running.run(f"print('«' + repr({expression}) + '»')").text
    return literal_eval(said[said.index("«") + 1 : said.index("»")])


def interrupted(running: Kernel, code: str, after: float) -> str:
    """Run a cell and press stop; what the cell said in the end."""
    cell_id = running.start(code)
    time.sleep(after)
    running.interrupt()
    return "".join(running.collect(cell_id, timeout=30).errors)


def test_stop_during_a_read_cancels_it(desk: Kernel) -> None:
    """The cell ends at once, the audit says cancelled, the next call works."""
    started = time.monotonic()
    assert "KeyboardInterrupt" in interrupted(desk, "%opsagent run list_marks --delay 20", 1.0)
    assert time.monotonic() - started < 6
    assert value(desk, "_ops.run('list_marks').status") == "succeeded"
    assert value(desk, "str(_ops.audit(tool='list_marks')['status'].iloc[-3])") == "cancelled"


def test_stop_while_waiting_for_a_person_leaves_the_request(desk: Kernel, ledger_file: Path) -> None:
    """It still waits, and can be approved afterwards; it then runs once."""
    said = interrupted(desk, "asked = %opsagent run add_mark --text one\nasked.wait(30)", 1.5)
    assert "KeyboardInterrupt" in said
    assert value(desk, "asked.status") == "waiting"
    assert value(desk, "_ops.approve(asked.approval.id).id and asked.wait(20).status") == "succeeded"
    assert Ledger("outside", str(ledger_file)).texts() == ["one"]


def test_stop_while_an_approved_change_runs_does_not_stop_it(desk: Kernel, ledger_file: Path) -> None:
    """Only the waiting ends: what a person approved is ended with `cancel`, not by leaving a cell."""
    desk.run("asked = _ops.run('add_mark', text='one', how='slow')\n_ops.approve(asked.record.approval)")
    assert "KeyboardInterrupt" in interrupted(desk, "asked.wait(30)", 0.5)
    assert value(desk, "asked.wait(20).status") == "succeeded"
    assert Ledger("outside", str(ledger_file)).texts() == ["one"]


def test_stop_during_a_turn_cancels_it(desk: Kernel) -> None:
    """Reading the answer of a slow model: the turn is cancelled and the next one answers."""
    with serving(Turn("Never said.", silent=20)) as server:
        code = (
            f"from opsagent_jupyter.agent.providers import open_model\n"
            f"real, _ops.runtime.open_model = _ops.runtime.open_model, lambda *_: "
            f"open_model('openai:slow', base_url='{server.url}/v1')\n"
            "turn = _ops.ask('list the marks')\nturn.text"
        )
        assert "KeyboardInterrupt" in interrupted(desk, code, 3.0)
    desk.run("_ops.runtime.open_model = real")
    assert value(desk, "turn.wait(10).state") == "cancelled"
    desk.run("_ops.new_session()")
    assert value(desk, "_ops.ask('list the marks', model='offline').text") == "0 marks."


MOMENTS = [
    "%opsagent", "%opsagent health", "%opsagent run list_marks", "%opsagent run add_mark --text m --dry-run",
    "%opsagent audit --verify", "%opsagent ask list the marks --wait 5", "%opsagent approvals", "%opsagent sessions",
    "asked = _ops.run('add_mark', text='m'); _ops.withdraw(asked.record.approval)", "_ops.new_session(); _ops.sessions()",
]  # fmt: skip


def test_stop_at_any_moment_leaves_a_kernel_and_a_store_that_work(desk: Kernel, ledger_file: Path) -> None:
    """Sixty stops at random moments of all kinds of cells: nothing hangs, nothing ran, the audit verifies."""
    chance = random.Random(20261123)
    for number in range(60):
        interrupted(desk, MOMENTS[number % len(MOMENTS)], chance.uniform(0, 0.4))
    assert value(desk, "_ops.run('list_marks').status") == "succeeded"
    assert value(desk, "_ops.ask('list the marks', session=_ops.new_session().id).text") == "0 marks."
    assert value(desk, "_ops.verify().ok")
    open_calls = (
        "SELECT call FROM audit WHERE type = 'call.intent' EXCEPT SELECT call FROM audit WHERE type = 'call.outcome'"
    )
    wait_for(lambda: value(desk, f"len(_ops.audit_sql({open_calls!r}))") == 0)
    assert Ledger("outside", str(ledger_file)).texts() == []
    assert desk.run("%opsagent run list_marks").text.count("0 marks") == 1


# -- nobody there -------------------------------------------------------------------------------------------------------


def executed(house: House, *cells: str) -> nbformat.NotebookNode:
    """Run a notebook as papermill, nbconvert and schedulers do: with nobody who could answer."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    environment = {**os.environ, **house.environment, "PYTHONPATH": str(ROOT), "SHOP_DSN": house.dsn}
    NotebookClient(book, timeout=120, kernel_name="python3").execute(env=environment)
    return book


def test_a_prompt_without_a_person_is_refused_with_the_other_way(house: House, cell: Kernel) -> None:
    """It does not hang, and says how to give the connection string instead."""
    with pytest.raises(CellExecutionError) as caught:
        executed(house, "%load_ext opsagent_jupyter", "%opsagent attach postgresql nobody --prompt")
    assert "Nobody can be asked here" in str(caught.value)
    assert "--dsn-env" in str(caught.value)
    done = house.cli("--json", "attach", "postgresql", "nobody", "--prompt")
    assert done.returncode == 1
    with house.agent() as ops:
        assert "nobody" not in {instance.name for instance in ops.instances()}


def test_a_run_without_a_person_ends_with_the_request_still_waiting(house: House, cell: Kernel) -> None:
    """`--wait 2` is a defined end: the cell names the request, and the notebook goes on."""
    book = executed(
        house,
        "%load_ext opsagent_jupyter",
        "asked = %opsagent run analyze_table --table orders --on shop --wait 2",
        "print('status', asked.status, asked.approval.id)",
    )
    said = book.cells[2].outputs[0]["text"]
    assert said.startswith("status waiting ")
    assert said.split()[2][:8] in json.dumps(book.cells[1].outputs)
    with house.agent() as ops:
        ops.withdraw(said.split()[2])


def test_the_command_line_tells_a_person_what_to_do_on_standard_error(house: House, cell: Kernel) -> None:
    """Without --json: the message, the way on, nothing on standard output."""
    done = house.cli("approve", "ffffffff")
    assert (done.returncode, done.stdout) == (1, "")
    message, hint = done.stderr.strip().splitlines()
    assert message == "✗ There is no approval request 'ffffffff'."
    assert hint.startswith("  → List them with")
    reads_well(f"{message} {hint.strip(' →')}")


def test_a_connection_string_may_come_through_a_pipe(house: House, cell: Kernel) -> None:
    """`opsagent attach ... --prompt < file` shows nothing of it."""
    done = house.cli("--json", "attach", "postgresql", "piped", "--prompt", typed=f"{house.dsn}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(urlsplit(house.dsn).password) not in done.stdout
    assert house.cli("detach", "piped").returncode == 0


def test_the_command_line_without_a_person_ends_with_an_exit_code(house: House, cell: Kernel) -> None:
    """3 means that somebody has to decide; the id is printed."""
    done = house.cli("--json", "run", "analyze_table", "--table", "orders", "--on", "shop", "--wait", "1")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"]) == (3, "waiting")
    assert house.cli("--json", "withdraw", answer["approval"]).returncode == 0


# -- scripts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "ops.close()", "ops.close(); ops.close()", "ops.ask('show me the locks')"])
def test_a_script_that_just_ends_says_nothing_more(house: House, cell: Kernel, ending: str) -> None:
    """No warning of threads, tasks or loops, whether it was closed, closed twice, forgotten, or busy."""
    code = f"from opsagent_jupyter import OpsAgent\nops = OpsAgent()\nprint(ops.run('get_locks', on='shop').status)\n{ending}"
    environment = {**os.environ, **house.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "succeeded\n")
    assert not re.search(r"Task|Traceback|never|loop|pool", done.stderr), done.stderr
    with house.agent() as ops:
        assert len([host for host in ops.runtime.store.hosts() if host.kind == "api"]) == 1


def test_a_closed_opsagent_says_so(store_url: str) -> None:
    """A method after close() is refused in words."""
    ops = OpsAgent(store_url)
    ops.close()
    with pytest.raises(OpsAgentError, match="closed"):
        ops.ask("hello")


def test_a_plugin_with_a_bug_shows_neither_its_frames_nor_the_connection_string(ops: OpsAgent) -> None:
    """Its error becomes one of ours: what failed, no text of it."""

    class Buggy(type(ledger)):
        name = "buggy"

        async def connect(self, name: str, secret: str, limits: object) -> Ledger:  # noqa: ARG002  # the contract
            raise ZeroDivisionError(secret)

    ops.runtime.plugins.add(Buggy())
    with pytest.raises(OpsAgentError, match="ZeroDivisionError") as caught:
        ops.attach("buggy", "x", dsn=f"/tmp/{SECRET}")
    reads_well(str(caught.value))
    assert caught.value.code == "plugin"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


class Relay:
    """A port of this machine that passes everything on to another one, until it stalls."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._flowing.set()
        self._server.close()

    def stall(self) -> None:
        """Pass nothing on, and close nothing."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)


# -- a database that hangs ----------------------------------------------------------------------------------------------


def test_a_database_that_stops_answering_costs_a_deadline_and_no_more(house: House, tmp_path: Path) -> None:
    """The call fails in time, health and status say so, and when it answers again the next call works."""
    with Relay(urlsplit(house.dsn).port or 0) as relay, OpsAgent(f"sqlite:///{tmp_path / 'h.db'}", deadline=2.0) as ops:
        where = urlsplit(house.dsn)
        ops.attach("postgresql", "far", dsn=house.dsn.replace(f":{where.port}/", f":{relay.port}/"))
        relay.stall()
        started = time.monotonic()
        call = ops.run("get_locks")
        assert (call.status, call.record.error_code) == ("failed", "execution.deadline")
        reads_well(call.summary)
        (health,) = ops.health()
        assert (health.ok, health.error_code) == (False, "execution.deadline")
        assert time.monotonic() - started < 30
        relay.resume()
        wait_for(lambda: ops.run("get_locks").status == "succeeded", 30)
