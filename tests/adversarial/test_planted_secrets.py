"""Twenty-two secrets are planted where they occur in real life, everything is driven past them, and then everything that
was written, printed, shown, logged or sent to a model is searched: none of them may be found, in any form."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus, urlsplit

import nbformat
import psycopg
import pytest
from nbclient import NotebookClient
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.stores.sqlite_library import sqlite3
from tests.kernels import ROOT
from tests.model_server import Server, Turn, serving
from tests.postgres import new_database

PLANTED: dict[str, str] = {
    "a password in a URL": "Pl01:aus/der?Url#%&=+@end",
    "a password in key=value pairs": 'Pl02 it\'s "quoted" \\ here',
    "a password that the server refuses": "Pl03-verwählt-%41",
    "a password for a server that is away": "Pl04:away@somewhere",
    "a password that is not encoded": "Pl05%zz/not@encoded",
    "a password in a service file": "Pl06-service-file",
    "a password in PGPASSWORD": "Pl07-from-PGPASSWORD",
    "the password of a client key": "Pl08-sslpassword",
    "the provider's key": "sk-Pl09abcdefghijklmnopqrstuvwxyz",
    "another provider's key": "Pl10-anthropic-secret-key",
    "the encryption key": "a10b" * 15 + b"Pl11".hex()[:4],
    "the old encryption key": "c0de" * 15 + b"Pl12".hex()[4:8],
    "a password in pg_stat_statements": "Pl13-in-statements",
    "a password in pg_stat_activity": "Pl14-in-activity",
    "a password in a refused argument": "Pl15-in-argument",
    "a password in an accepted argument": "Pl16-in-condition",
    "a password in a question": "Pl17-in-question",
    "a token in a reason": "Pl18-in-reason",
    "a key in a provider's error": "Pl19InProviderError0123456789",
    "a connection string in a database's error": "Pl20-in-error",
    "a token in an application name": "Pl21-in-application",
    "the password of the store": "Pl22:store/pass word",
}


def forms(secret: str) -> set[str]:
    """How a secret shows up: raw, in a URL, in JSON, in a repr, in SQL, in HTML, in base64 wherever it begins."""
    raw = secret.encode()
    shifted = {base64.b64encode(b"x" * before + raw).decode()[4 if before else 0 : -4] for before in (0, 1, 2)}
    texts = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(secret))[3:-3],
        repr(secret)[1:-1],
        secret.replace("'", "''"),
        secret.replace("&", "&amp;").replace("'", "&#x27;").replace('"', "&quot;"),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        raw.hex(),
        *shifted,
    }
    return {text for text in texts if len(text) >= 8}


def hits(text: str | bytes) -> set[str]:
    """The planted secrets that a text holds, by name."""
    searched = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    return {name for name, secret in PLANTED.items() if any(form.encode() in searched for form in forms(secret))}


def test_the_search_finds_every_form() -> None:
    """A search that finds nothing proves nothing unless it would find something."""
    for name, secret in PLANTED.items():
        for form in forms(secret):
            assert hits(f"before {form} after") >= {name}
    assert hits("nothing of the kind") == set()


# -- the scene ----------------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A shop with secrets in it, and everything that was seen of it."""

    home: Path
    dsn: str
    team_store: str
    model: Server
    environment: dict[str, str]
    silent: int
    """A port that takes connections and never answers."""
    seen: dict[str, str] = field(default_factory=dict)
    """Place to text."""

    @property
    def store(self) -> Path:
        return self.home / "store" / "opsagent.db"

    def url(self, user: str, secret: str, **options: str) -> str:
        where = urlsplit(self.dsn)
        tail = "&".join(f"{key}={quote(value, safe='')}" for key, value in options.items())
        return f"postgresql://{user}:{quote(secret, safe='')}@{where.hostname}:{where.port}{where.path}?{tail}"

    def note(self, place: str, text: str) -> str:
        self.seen[place] = self.seen.get(place, "") + text
        return text


def planted(name: str) -> str:
    return PLANTED[name]


ROLES = {
    "planted_url": "a password in a URL",
    "planted_pairs": "a password in key=value pairs",
    "planted_service": "a password in a service file",
    "planted_pgpassword": "a password in PGPASSWORD",
    "planted_store": "the password of the store",
}


@pytest.fixture(scope="module")
def scene(pg18: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("planted")
    with (
        new_database(pg18) as dsn,
        new_database(pg18) as team,
        roles(dsn, team),
        serving(*SCRIPT) as model,
        other_sessions(dsn),
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        scene = Scene(home, dsn, team, model, {}, silent.getsockname()[1])
        scene.environment = environment(scene)
        yield scene


def environment(scene: Scene) -> dict[str, str]:
    """What the processes of this scene are given: here secrets belong."""
    where = urlsplit(scene.dsn)
    service = scene.home / "pg_service.conf"
    service.write_text(
        f"[planted]\nhost={where.hostname}\nport={where.port}\ndbname={where.path[1:]}\nuser=planted_service\n"
        f"password={planted('a password in a service file')}\n"
    )
    pairs = make_conninfo(
        host=where.hostname, port=where.port, dbname=where.path[1:], user="planted_pairs",
        password=planted("a password in key=value pairs"),
    )  # fmt: skip
    in_error = planted("a connection string in a database's error")
    away = quote(planted("a password for a server that is away"), safe="")
    refused = quote(planted("a password that the server refuses"), safe="")
    return {
        "JUPYTER_DATA_DIR": str(scene.home / "jupyter"),
        "IPYTHONDIR": str(scene.home / "ipython"),
        "OPSAGENT_STORE_URL": f"sqlite:///{scene.store}",
        "OPSAGENT_MODEL_BASE_URL": f"{scene.model.url}/v1",
        "PGSERVICEFILE": str(service),
        "PGPASSWORD": planted("a password in PGPASSWORD"),
        "PLUGIN_ENCRYPTION_KEY": planted("the old encryption key"),
        "OPENAI_API_KEY": planted("the provider's key"),
        "ANTHROPIC_API_KEY": planted("another provider's key"),
        "DSN_URL": scene.url("planted_url", planted("a password in a URL")),
        "DSN_PAIRS": pairs,
        "DSN_ENVIRONMENT": f"host={where.hostname} port={where.port} dbname={where.path[1:]} user=planted_pgpassword",
        "DSN_REFUSED": scene.url("planted_url", planted("a password that the server refuses")),
        "DSN_AWAY": f"postgresql://shop:{away}@127.0.0.1:1/shop",
        "DSN_RAW": f"postgresql://shop:{planted('a password that is not encoded')}@127.0.0.1:1/shop",
        "TEAM_STORE": f"postgresql://planted_store:{quote(planted('the password of the store'), safe='')}@db/store",
        "DSN_STALLED": f"postgresql://u:{refused}@127.0.0.1:{scene.silent}/x",
        "DSN_CLIENT_KEY": scene.url(
            "planted_url", planted("a password in a URL"), sslmode="require", sslkey="/nowhere",
            sslpassword=planted("the password of a client key"),
        ),
        "ERROR_DSN": f"postgresql://u:{in_error}@db/x",
    }  # fmt: skip


@contextmanager
def roles(dsn: str, team: str) -> Iterator[None]:
    """The roles with their passwords, made by statements that pg_stat_statements keeps."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, customer_id int, password text)")
        connection.execute("CREATE TABLE parcels (id int)")
        for role, name in ROLES.items():
            make = SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE pg_monitor")
            connection.execute(make.format(Identifier(role), Literal(planted(name))))
        connection.execute(SQL("GRANT ALL ON DATABASE {} TO planted_store").format(Identifier(urlsplit(team).path[1:])))
        kept = planted("a password in pg_stat_statements")
        for _ in range(3):
            connection.execute(SQL("ALTER ROLE planted_url PASSWORD {}").format(Literal(kept)))
        connection.execute(SQL("ALTER ROLE planted_url PASSWORD {}").format(Literal(planted("a password in a URL"))))
        connection.execute("ALTER TABLE orders OWNER TO planted_url")
    with psycopg.connect(team, autocommit=True) as connection:
        connection.execute("GRANT ALL ON SCHEMA public TO planted_store")
    try:
        yield
    finally:
        for database in (dsn, team):
            with psycopg.connect(database, autocommit=True) as connection:
                for role in ROLES:
                    connection.execute(SQL("DROP OWNED BY {}").format(Identifier(role)))
        with psycopg.connect(dsn, autocommit=True) as connection:
            for role in ROLES:
                connection.execute(SQL("DROP ROLE {}").format(Identifier(role)))


@contextmanager
def other_sessions(dsn: str) -> Iterator[None]:
    """A session whose change of a password is blocked by another one, and an application with a token for a name."""
    token = f"shop token={planted('a token in an application name')}"
    statement = SQL("LOCK TABLE parcels; ALTER ROLE planted_url PASSWORD {}").format(
        Literal(planted("a password in pg_stat_activity"))
    )
    with psycopg.connect(dsn, application_name=token) as holder:
        holder.execute("LOCK TABLE parcels IN SHARE ROW EXCLUSIVE MODE")
        waiter = psycopg.connect(dsn)

        def wait() -> None:
            with suppress(psycopg.Error):
                waiter.execute(statement)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        try:
            yield
        finally:
            waiter.cancel_safe()
            thread.join(10)
            waiter.close()


def echo(tool: str, **arguments: object) -> Turn:
    return Turn(calls=((f"postgresql_{tool}", json.dumps(arguments)),))


#: What the language model does: it reads everything that it can get.
SCRIPT = (
    echo("get_slow_queries", limit=50), echo("get_locks"), echo("get_connection_stats"),
    echo("explain_query", sql="SELECT 'x' = current_setting('nothing')"), Turn("I have read all of it."),
)  # fmt: skip


# -- driving ------------------------------------------------------------------------------------------------------------

CELLS = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG, filename=os.environ["LOG_FILE"])
%load_ext opsagent_jupyter
%xmode Verbose
---
%opsagent attach postgresql url --dsn-env DSN_URL --server demo --environment development
---
%opsagent attach postgresql pairs --dsn-env DSN_PAIRS --server demo
---
%opsagent attach postgresql served --service planted
---
%opsagent attach postgresql enved --dsn-env DSN_ENVIRONMENT
---
%opsagent attach postgresql refused --dsn-env DSN_REFUSED
---
%tb
---
%opsagent attach postgresql away --dsn-env DSN_AWAY
---
%opsagent attach postgresql raw --dsn-env DSN_RAW
---
%opsagent attach postgresql keyed --dsn-env DSN_CLIENT_KEY
---
dsn = os.environ["DSN_REFUSED"]
_ops.attach("postgresql", "refused", dsn=dsn); del dsn
---
%tb
---
_ops.attach("postgresql", "refused", dsn_env=os.environ["DSN_URL"])
---
%opsagent attach postgresql typed --dsn {DSN_URL}
---
%opsagent
---
%opsagent health
---
%opsagent servers
---
%opsagent run get_slow_queries --limit 50 --on url
---
slow = _ops.run("get_slow_queries", on="url", limit=50)
print(slow.frame.to_string(), slow.result, slow.record, slow.record.model_dump_json())
---
locks = _ops.run("get_locks", on="url")
print(locks.frame.to_string(), locks.result, locks.record.model_dump_json())
---
connections = _ops.run("get_connection_stats", on="url")
print(connections.frame.to_string(), connections.result, connections.record.model_dump_json())
---
refused = %opsagent run explain_query --on url --sql "ALTER ROLE bob PASSWORD '{Pl15}'"
print(refused, refused.record, refused.record.model_dump_json())
---
planned = %opsagent run explain_query --on url --sql "SELECT * FROM orders WHERE password = '{Pl16}'"
print(planned, planned.record, planned.record.model_dump_json(), planned.result)
---
known = _ops.run("explain_query", on="url", sql="SELECT '{Pl01}' AS known")
print(known, known.record, known.record.model_dump_json())
---
asked = _ops.run("explain_query", on="url", sql="SELECT * FROM orders WHERE password = '{Pl16}'", analyze=True)
print(asked, asked.record, asked.record.model_dump_json(), asked.approval)
---
broken = _ops.run("explain_query", on="url", sql=f"SELECT '{os.environ['ERROR_DSN']}'::int")
print(broken, broken.record)
---
wrong = _ops.run("list_indexes", on="url", table="{Pl01}")
print(wrong, wrong.record, wrong.record.model_dump_json())
---
change = %opsagent run analyze_table --table orders --on url
---
%opsagent --vars reject {change.approval.id} --reason "the token={Pl18} was leaked"
---
print(change, change.record, change.approval, change.approval.bound())
---
change = %opsagent run analyze_table --table orders --on url
---
%opsagent --vars approve {change.approval.id} --reason "token={Pl18}" --wait 20
---
%opsagent ask why does ALTER ROLE bob PASSWORD '{Pl17}' fail? --on url --wait 20
---
turn = %opsagent ask explain SELECT '{Pl01}' --on url --wait 20
print(turn, turn.text)
---
%%opsagent --on url --model openai:gpt-test --wait 60
read all you can get, the password {Pl01} opens it; ALTER ROLE b PASSWORD '{Pl17}'
---
turn = _ops.ask("go on", on="url", model="openai:gpt-test").wait(60)
---
print(turn, turn.text, turn.calls, turn.error, _ops.messages())
---
%opsagent chat --on url
---
%opsagent sessions
---
%opsagent approvals --state all
---
df = %opsagent audit
print(df.to_json(date_format="iso"), df.to_string())
---
%opsagent audit --verify
---
%opsagent audit --sql "SELECT body FROM audit"
---
%opsagent doctor
---
from opsagent_jupyter.credentials import Secret
for thing in (_ops, _ops.settings, _ops.runtime, _ops.runtime.vault, _ops.runtime.redactor, _ops.runtime.connections,
              _ops.runtime.executor, _ops.runtime.policy, _ops.runtime.host, _ops.actor, _ops.instances(), _ops.tools(),
              _ops.health(), _ops.servers(), _ops.sessions(), _ops.reader, _ops.bridge, _ops.verify(),
              list(_ops.runtime.connections._open.values()), Secret(os.environ["DSN_URL"]), _ops.runtime.plugins,
              get_ipython().magics_manager.registry["OpsAgent"]):
    print(repr(thing), str(thing), format(thing), vars(type(thing)).get("__doc__"))
---
import copy, pickle
for way in (copy.copy, copy.deepcopy, pickle.dumps):
    try:
        print(repr(way(Secret(os.environ["DSN_URL"]))))
    except Exception as error:
        print(repr(error), error.args)
---
_ops.runtime.redactor.add(None)
---
%tb
---
class Buggy(type(_ops.runtime.plugins.plugin("postgresql"))):
    name = "buggy"
    async def connect(self, name, secret, limits):
        raise ValueError(f"cannot read {secret}")
_ops.runtime.plugins.add(Buggy())
_ops.attach("buggy", "bug", dsn_env="DSN_URL")
---
%tb
---
import _thread, threading
threading.Timer(0.5, _thread.interrupt_main).start()
_ops.run("get_locks", on="url"); _ops.ask("show me the locks", on="url").wait(10)
while True:
    _ops.health()
---
%tb
---
threading.Timer(1.0, _thread.interrupt_main).start()
_ops.attach("postgresql", "stalled", dsn=os.environ["DSN_STALLED"])
---
%tb
---
get_ipython().magics_manager.registry["OpsAgent"].store_url = os.environ["TEAM_STORE"]
%config OpsAgent
---
%opsagent detach url
"""


def execute(scene: Scene, cells: str, name: str, **more: str) -> nbformat.NotebookNode:
    """Run cells as a notebook, errors included, with the state of its widgets saved; keep all but the sources."""
    for number, secret in enumerate(PLANTED.values(), 1):
        cells = cells.replace(f"{{Pl{number:02}}}", secret.replace("\\", "\\\\").replace('"', '\\"'))
    cells = cells.replace("{DSN_URL}", scene.environment["DSN_URL"])
    log = scene.home / f"{name}.log"
    sources = [cell.strip("\n") for cell in cells.split("\n---\n")]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(book, timeout=120, kernel_name="python3", allow_errors=True, store_widget_state=True)
    client.execute(env={**os.environ, **scene.environment, "PYTHONPATH": str(ROOT), "LOG_FILE": str(log), **more})
    nbformat.write(book, scene.home / f"{name}.ipynb")
    for number, cell in enumerate(book.cells):
        scene.note(f"{name}, cell {number}: {sources[number][:60]}", json.dumps(cell.outputs, ensure_ascii=False))
    scene.note(f"{name}, metadata", json.dumps(book.metadata, ensure_ascii=False))
    scene.note(f"{name}, log", log.read_text() if log.exists() else "")
    return book


@pytest.fixture(scope="module")
def notebook(scene: Scene) -> nbformat.NotebookNode:
    """The notebook, executed once."""
    return execute(scene, CELLS, "notebook")


def cli(scene: Scene, *line: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "opsagent_jupyter.cli", "--json", *line],
        env={**os.environ, **scene.environment, "PYTHONPATH": str(ROOT), **more},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    return scene.note(f"command line: {' '.join(line)[:60]}", done.stdout + done.stderr)


LINES = (
    ("attach", "postgresql", "cli", "--dsn-env", "DSN_URL"),
    ("attach", "postgresql", "cli2", "--dsn-env", "DSN_REFUSED"),
    ("attach", "postgresql", "cli3", "--dsn-env", "DSN_AWAY"),
    ("attach", "postgresql", "cli4", "--dsn-env", "DSN_RAW"), ("--help",), ("run", "--help"),
    ("servers",), ("health",), ("doctor",), ("approvals", "--state", "all"), ("sessions",),
    ("run", "get_slow_queries", "--on", "pairs", "--limit", "50"),
    ("run", "get_locks", "--on", "pairs"), ("run", "get_connection_stats", "--on", "pairs"),
    ("ask", "--on", "pairs", "--", "show me slow queries"),
    ("audit", "query"), ("audit", "verify"), ("audit", "checkpoint"),
)  # fmt: skip


@pytest.fixture(scope="module")
def command_line(scene: Scene, notebook: nbformat.NotebookNode) -> None:
    """All words of the command line, exports and backups included, and a change of the encryption key."""
    for line in LINES:
        cli(scene, *line)
    for name in ("audit.csv", "audit.parquet"):
        cli(scene, "audit", "export", str(scene.home / name))
    cli(scene, "store", "backup", str(scene.home / "backup.db"))
    both = f"{planted('the encryption key')},{planted('the old encryption key')}"
    assert "encrypted" in cli(scene, "key", "rotate", PLUGIN_ENCRYPTION_KEY=both)
    assert '"ok": true' in cli(scene, "health", "pairs", PLUGIN_ENCRYPTION_KEY=planted("the encryption key"))
    cli(scene, "health", "pairs")
    cli(scene, "servers", PLUGIN_ENCRYPTION_KEY=planted("the encryption key")[:-1])


# -- the search ---------------------------------------------------------------------------------------------------------


def clean(places: Mapping[str, str | bytes]) -> None:
    """No place holds a secret; the message names places and secrets, never a value."""
    found = {place: sorted(hits(text)) for place, text in places.items()}
    assert {place: names for place, names in found.items() if names} == {}


def test_the_notebook_drove_past_the_secrets(scene: Scene, notebook: nbformat.NotebookNode) -> None:
    """Each kind was met on the way: what is struck out is there, and what could be attached works."""
    shown = "".join(text for place, text in scene.seen.items() if place.startswith("notebook"))
    for witness in (
        "(text hidden: it mentions PASSWORD)",
        "shop token=***",
        "password = '***'",
        "PASSWORD '***' fail?",
        "the token=*** was leaked",
        "SELECT '***' AS known",
        "***",
        "execution.authentication_failed",
        "execution.unreachable",
        "execution.malformed_dsn",
        "credential.secret_in_clear",
        "call.statement_refused",
        "I have read all of it.",
        "KeyboardInterrupt",
        "refused: This call holds what looks like a password",
        "is analysed",
        "postgresql://planted_store:***@db/store",
        "failed inside (ValueError)",
        "The audit verifies",
    ):
        assert witness in shown, witness
    for name in ("url", "pairs", "served", "enved"):
        assert re.search(rf"\b{name}\b.*✓", shown), name
    assert len(scene.model.requests) >= len(SCRIPT)


def test_no_secret_is_in_the_outputs_of_a_notebook(scene: Scene, notebook: nbformat.NotebookNode) -> None:
    """Text, HTML, tracebacks with %xmode Verbose and %tb, reprs, widget state, logs at DEBUG."""
    clean({place: text for place, text in scene.seen.items() if place.startswith("notebook")})


def test_no_secret_is_sent_to_a_model(scene: Scene, notebook: nbformat.NotebookNode) -> None:
    """What the provider reads: instructions, tools, conversation, answers of tools. Its key goes in a header alone."""
    assert scene.model.headers[0]["authorization"] == "Bearer " + planted("the provider's key")
    clean({f"request {number}": json.dumps(request) for number, request in enumerate(scene.model.requests)})
    clean(
        {
            f"request {number}": json.dumps(request, ensure_ascii=False)
            for number, request in enumerate(scene.model.requests)
        }
    )


def test_no_secret_is_on_the_command_line(scene: Scene, command_line: None) -> None:
    """Standard output, standard error, JSON; failures and the change of keys included."""
    clean({place: text for place, text in scene.seen.items() if place.startswith("command line")})


def test_no_secret_is_in_a_file(scene: Scene, command_line: None) -> None:
    """Every file that was written: the store with its journals, audit.duckdb, exports, backups, logs; byte by byte."""
    given = {"pg_service.conf"}
    written = [
        path
        for path in scene.home.rglob("*")
        if path.is_file() and path.name not in given and "ipython" not in path.parts and path.suffix != ".ipynb"
    ]
    assert {"opsagent.db", "audit.duckdb", "audit.csv", "audit.parquet", "backup.db", "notebook.log"} <= {
        path.name for path in written
    }
    clean({str(path.relative_to(scene.home)): path.read_bytes() for path in written})


def test_no_secret_is_in_a_row(scene: Scene, command_line: None) -> None:
    """The same for what files may hold compressed: every value of every table of the store, and every audit row."""
    with sqlite3.connect(scene.store) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: repr(database.execute(f"SELECT * FROM {name}").fetchall()) for name in tables}
        texts = {name: _unescaped(database, name) for name in tables}
    database.close()
    assert {"chat_messages", "approval_requests", "plugin_audit_log", "agent_plugins"} <= set(tables)
    clean(rows)
    clean(texts)
    with OpsAgent(f"sqlite:///{scene.store}") as ops:
        clean({"audit.duckdb": ops.audit_sql("SELECT body, summary, reason, arguments FROM audit").to_string()})


def _unescaped(database: sqlite3.Connection, table: str) -> str:
    return "\n".join(str(value) for row in database.execute(f"SELECT * FROM {table}") for value in row)


def test_no_secret_comes_out_of_a_shared_store(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store on PostgreSQL whose own password is planted: reprs, doctor, errors, logs; and nothing in its tables."""
    where = urlsplit(scene.team_store)
    secret = planted("the password of the store")
    url = f"postgresql://planted_store:{quote(secret, safe='')}@{where.hostname}:{where.port}{where.path}"
    monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", planted("the encryption key"))
    said = io.StringIO()
    with caplog.at_level(logging.DEBUG), OpsAgent(url) as ops:
        ops.attach("postgresql", "team", dsn=scene.environment["DSN_URL"])
        ops.run("get_slow_queries", limit=50)
        from opsagent_jupyter.cards import status_of
        from opsagent_jupyter.doctor import examine

        for thing in (ops, ops.settings, ops.runtime.store, ops.runtime.store._storage, status_of(ops), examine(ops)):
            print(repr(thing), str(thing), file=said)
        print(ops.audit().to_json(date_format="iso"), file=said)
    for broken in (
        url.replace(where.path, "/nowhere"),
        url.replace(f":{where.port}/", ":1/"),
        url + "?sslmode=require",
    ):
        with pytest.raises(OpsAgentError) as caught:
            OpsAgent(broken)
        print(repr(caught.value), str(caught.value), vars(caught.value), file=said)
    with psycopg.connect(scene.team_store) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = {
            name: repr(connection.execute(SQL("SELECT * FROM {}").format(Identifier(name))).fetchall())
            for (name,) in tables
        }
    clean({"reprs": said.getvalue(), "log": caplog.text, "output": "".join(capsys.readouterr()), **rows})


@pytest.mark.parametrize("status", [401, 400, 500])
def test_no_secret_comes_back_from_a_providers_error(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, status: int
) -> None:
    """A provider that repeats the request with its key, or another one, in its answer."""
    own, other = planted("the provider's key"), planted("a key in a provider's error")
    keys = f"{own}; Authorization: Bearer {other}"
    monkeypatch.setenv("OPENAI_API_KEY", planted("the provider's key"))
    body = json.dumps({"error": {"message": f"Incorrect key {keys}", "code": "invalid_api_key"}})
    with (
        caplog.at_level(logging.DEBUG),
        serving(Turn(status=status, body=body)) as server,
        OpsAgent(f"sqlite:///{tmp_path / 'm.db'}", model="openai:x", model_base_url=f"{server.url}/v1") as ops,
    ):
        ops.attach("postgresql", "shop", dsn=scene.environment["DSN_URL"])
        turn = ops.ask("hello").wait(30)
        assert turn.state == "failed"
        said = f"{turn!r} {turn.error} {turn.error!r} {vars(turn.error)} {ops.messages(turn.session_id)}"
        clean({"turn": said, "log": caplog.text, "audit": ops.audit().to_json(date_format="iso")})
