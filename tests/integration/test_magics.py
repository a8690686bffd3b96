"""Every word of ``%opsagent`` but the runbooks, typed into a real kernel on a real PostgreSQL, and what the cell then shows."""

from __future__ import annotations

import json
import re
import time
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from opsagent_jupyter.commands import words
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from tests.kernels import Kernel, Ran, kernel
from tests.postgres import new_database

SHOP = """
CREATE EXTENSION pg_stat_statements;
CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, note text);
INSERT INTO orders SELECT g, g % 100, repeat('x', 40) FROM generate_series(1, 20000) g;
ANALYZE orders;
CREATE TABLE parcels (id int, weight int);
"""


@dataclass
class Shop:
    """A kernel with a shop's database attached."""

    kernel: Kernel
    dsn: str
    secrets: tuple[str, ...]

    def run(self, code: str) -> Ran:
        """Run a cell that must not fail, and show nothing sensitive."""
        ran = self.kernel.run(code)
        assert not ran.errors, ran.errors
        self.require_clean(ran)
        return ran

    def fail(self, code: str) -> str:
        """Run a cell that must fail, with a message of ours; the message."""
        ran = self.kernel.run(code)
        assert len(ran.errors) == 1, ran.text
        assert "Traceback" not in ran.errors[0]
        self.require_clean(ran)
        return ran.errors[0]

    def value(self, expression: str) -> Any:
        """The value of an expression in the kernel; what widgets say meanwhile is left aside."""
        said = self.run(f"print('«' + repr(({expression})) + '»')").text
        return literal_eval(said[said.index("«") + 1 : said.index("»")])

    def request(self, text: str = "%opsagent run analyze_table --table orders") -> str:
        """Make a request and return its id."""
        self.run(f"asked = {text}")
        return self.value("asked.approval.id")

    def require_clean(self, ran: Ran) -> None:
        said = ran.text + json.dumps(ran.data) + "".join(ran.errors)
        for secret in self.secrets:
            assert secret not in said


@pytest.fixture(scope="module")
def shop(pg18: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    home = tmp_path_factory.mktemp("magics")
    key = new_key()
    with new_database(pg18) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(SHOP)
        environment = {
            "JUPYTER_DATA_DIR": str(home / "jupyter"),
            "IPYTHONDIR": str(home / "ipython"),
            "OPSAGENT_STORE_URL": f"sqlite:///{home / 'store' / 'opsagent.db'}",
            "OPSAGENT_MODEL": "offline",
            "PLUGIN_ENCRYPTION_KEY": key,
            "SHOP_DSN": dsn,
        }
        with kernel(**environment) as running:
            shop = Shop(running, dsn, (urlsplit(dsn).password or "?", key))
            shop.run("%load_ext opsagent_jupyter")
            shop.run("%opsagent attach postgresql shop --dsn-env SHOP_DSN --server demo --environment development")
            yield shop


def both(ran: Ran) -> tuple[str, str]:
    """What a cell shows, as text and as HTML; each must stand for itself."""
    text, page = ("\n".join(data.get(kind, "") for data in ran.data) for kind in ("text/plain", "text/html"))
    assert not re.search(r"<script|onerror|javascript:|https?://", page)
    return text, page


# -- set-up and looking around ----------------------------------------------------------------------------------------


def test_load_ext_says_nothing_and_may_be_repeated(shop: Shop) -> None:
    """Loading registers the magics and starts nothing."""
    ran = shop.run("%load_ext opsagent_jupyter")
    assert "already loaded" in ran.text
    assert "demo" in shop.run("%opsagent servers").text


def test_the_bare_word_is_the_status(shop: Shop) -> None:
    """Set-up with its honest claim, store, model, health, what waits, the next step."""
    for shown in both(shop.run("%opsagent")):
        for word in (
            "personal",
            "a guard rail against the model",
            "sqlite",
            "offline",
            "shop",
            "PostgreSQL 18",
            "Next",
        ):
            assert word in shown


def test_the_first_word_of_a_kernel_answers_at_once_and_fills_itself_in(shop: Shop) -> None:
    """The status of a fresh kernel is asked for beside the cell; the value waits for it."""
    environment = {"OPSAGENT_STORE_URL": "sqlite:////proc/nowhere/opsagent.db"}
    with kernel(**environment) as other:
        other.run("%load_ext opsagent_jupyter")
        ran = other.run("status = %opsagent")
        assert not ran.errors
        assert "looking at its store" in ran.text
        failed = other.run("status.card")
        assert "store" in failed.errors[0]
        assert "/proc/nowhere" in failed.errors[0]


def test_servers_and_tools_are_tables(shop: Shop) -> None:
    """DataFrames that can be worked with."""
    shop.run("servers = %opsagent servers\ntools = %opsagent tools")
    assert shop.value("type(servers).__name__, servers['name'].tolist()") == ("DataFrame", ["shop"])
    assert shop.value("servers.loc[0, 'environment']") == "development"
    tools = shop.value("sorted(tools['tool'])")
    assert "postgresql.create_index" in tools
    assert "postgresql.get_locks" in tools
    assert shop.value("set(tools['risk']) <= {'low', 'medium', 'high', 'critical'}") is True
    shop.run("%opsagent tools postgresql")


def test_health_is_a_card(shop: Shop) -> None:
    """For all, and for one."""
    for line in ("%opsagent health", "%opsagent health shop"):
        text, page = both(shop.run(line))
        assert "✓ PostgreSQL 18" in text
        assert "✓ PostgreSQL 18" in page


@pytest.mark.parametrize("word", sorted({*words.commands, ""}))
def test_help_is_there_for_every_word(shop: Shop, word: str) -> None:
    """It prints the usage, names the options and returns nothing."""
    for option in ("--help", "-h"):
        ran = shop.run(f"answer = %opsagent {word} {option}")
        assert "Usage: %opsagent" in ran.text
        assert "--help" in ran.text
        assert shop.value("answer") is None


def test_help_of_a_question_cell_is_the_help_of_ask(shop: Shop) -> None:
    """`%%opsagent --help` asks nothing."""
    assert "Usage: %opsagent ask" in shop.run("%%opsagent --help\nwhat is slow?").text


def test_doctor_checks_each_part_and_gives_the_fix(shop: Shop) -> None:
    """Packages, store, key, model, audit, databases; the superuser of this test is worth a fix."""
    for shown in both(shop.run("%opsagent doctor")):
        for part in ("ipykernel", "jupyterlab", "store", "key", "model", "audit", "shop"):
            assert part in shown
        assert "a role that has only the rights it needs" in shown


# -- attaching --------------------------------------------------------------------------------------------------------


def test_attach_and_detach(shop: Shop) -> None:
    """A second name on the same database, and away again; attaching the same thing twice is no error."""
    text, page = both(shop.run("%opsagent attach postgresql second --dsn-env SHOP_DSN --server demo"))
    assert "second" in text
    assert "✓" in page
    shop.run("%opsagent attach postgresql second --dsn-env SHOP_DSN --server demo")
    assert "plugin.instance_exists" in shop.fail("%opsagent attach postgresql second --dsn-env SHOP_DSN --server other")
    assert "second is detached" in shop.run("%opsagent detach second").text
    assert "plugin.unknown_instance" in shop.fail("%opsagent detach second")


def test_attach_by_prompt_shows_no_letter_of_it(shop: Shop) -> None:
    """The connection string goes in over the kernel's stdin channel as a password does."""
    client = shop.kernel._client
    cell = shop.kernel.start("%opsagent attach postgresql prompted --prompt")
    asked = client.get_stdin_msg(timeout=10)
    assert asked["content"] == {"prompt": "Connection string of prompted: ", "password": True}
    client.input(shop.dsn)
    ran = shop.kernel.collect(cell)
    assert not ran.errors
    shop.require_clean(ran)
    assert "✓" in ran.text
    shop.run("%opsagent detach prompted")


def test_attach_by_service(shop: Shop, tmp_path) -> None:
    """A section of the connection service file; its password is not shown either."""
    where = urlsplit(shop.dsn)
    path = tmp_path / "pg_service.conf"
    path.write_text(
        f"[shop]\nhost={where.hostname}\nport={where.port}\nuser={where.username}\npassword={where.password}\n"
        f"dbname={where.path[1:]}\n"
    )
    shop.run(f"import os\nos.environ['PGSERVICEFILE'] = {str(path)!r}")
    assert "✓" in shop.run("%opsagent attach postgresql served --service shop --read-only").text
    assert "call.policy_denied" in shop.value(
        "_ops.run('analyze_table', on='served', table='orders').record.error_code"
    )
    shop.run("%opsagent detach served\ndel os.environ['PGSERVICEFILE']")


# -- calls ------------------------------------------------------------------------------------------------------------


def test_run_shows_what_a_read_found_and_keeps_its_rows_out_of_the_notebook(shop: Shop) -> None:
    """The summary is shown, the value has the rows."""
    ran = shop.run("found = %opsagent run list_indexes --table orders")
    for shown in both(ran):
        assert "orders has" in shown
        assert "call.frame has them" in shown
    assert shop.value("found.status, found.result.tables[0].total >= 1, len(found.frame) >= 1") == (
        "succeeded",
        True,
        True,
    )
    again = shop.run("found")
    assert "orders has" in again.text


def test_run_shows_an_answer_once_and_again_when_asked(shop: Shop) -> None:
    """One cell, one output: the magic's; the next cell may show the value anew."""
    assert shop.run("%opsagent run get_locks").text.count("No session waits") == 1
    assert shop.run("locks = %opsagent run get_locks").text.count("No session waits") == 1
    assert shop.run("locks").text.count("No session waits") == 1
    assert shop.run("locks").text.count("No session waits") == 1


def test_run_says_why_a_call_was_refused(shop: Shop) -> None:
    """A refusal is an answer, not a traceback."""
    ran = shop.run("refused = %opsagent run list_indexes --table nothing")
    assert "✗ refused: There is no table 'nothing'" in ran.text
    assert shop.value("refused.status, refused.record.error_code") == ("refused", "call.invalid_arguments")


def test_dry_run_shows_the_statement_and_asks_nobody(shop: Shop) -> None:
    """Statement, risk, lock, undo."""
    before = shop.value("len(_ops.approvals())")
    ran = shop.run("%opsagent run create_index --table orders --columns customer_id,note --dry-run")
    for part in ("CREATE INDEX CONCURRENTLY", "Risk: medium", "Lock: SHARE UPDATE EXCLUSIVE", "Undo: DROP INDEX"):
        assert part in ran.text
    assert shop.value("len(_ops.approvals())") == before


def test_run_approve_wait_changes_the_database_and_says_so(shop: Shop) -> None:
    """From the request to the effect, read back, in three cells."""
    ran = shop.run("asked = %opsagent run create_index --table parcels --columns weight --on shop")
    assert "waiting for a decision" in ran.text
    assert "application/vnd.jupyter.widget-view+json" in {kind for data in ran.data for kind in data}
    known = shop.value("asked.approval.id")
    assert "pending" in shop.run("queue = %opsagent approvals\nqueue").text
    assert known in shop.value("queue['id'].tolist()")
    ran = shop.run(f"card = %opsagent show {known[:8]}")
    assert "waiting for a decision" in ran.text
    for shown in (shop.run("print(card)").text, *both(shop.run("card"))):
        assert "CREATE INDEX CONCURRENTLY" in shown
    done = shop.run(f"%opsagent approve {known[:8]} --reason 'the parcels page waits' --wait 30")
    assert "built and valid" in both(done)[0]
    assert "the parcels page waits" in both(done)[1]
    assert shop.value("asked.status, asked.effect.state") == ("succeeded", "succeeded")
    with psycopg.connect(shop.dsn) as connection:
        found = connection.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'parcels'").fetchone()
    assert found == (1,)


def test_wait_ends_when_its_time_is_over_and_the_request_stays(shop: Shop) -> None:
    """`--wait 1` comes back after a second; nothing was decided."""
    started = time.monotonic()
    shop.run("asked = %opsagent run analyze_table --table orders --wait 1")
    assert 1.0 <= time.monotonic() - started < 5
    assert shop.value("asked.status") == "waiting"
    shop.run("_ops.withdraw(asked.approval.id)")


def test_reject_withdraw_and_revoke_end_a_request(shop: Shop) -> None:
    """Each says who did it, and nothing was run."""
    for word, state in (("reject", "rejected"), ("withdraw", "withdrawn")):
        known = shop.request()
        text, page = both(shop.run(f'%opsagent {word} {known[:8]} --reason "it\'s not needed"'))
        assert "Nothing was run" in text
        assert "needed" in page
        assert shop.value(f"str(_ops.approval({known!r}).state)") == state
        late = shop.fail(f"%opsagent approve {known[:8]}")
        assert "approval.already_decided" in late
        assert state in late
    known = shop.request()
    assert "approval.illegal_transition" in shop.fail(f"%opsagent revoke {known[:8]}")
    shop.run(f"%opsagent withdraw {known[:8]}")
    assert shop.value(f"str(_ops.approval({known!r}).state)") == "withdrawn"


def test_resolve_needs_an_unknown_outcome(shop: Shop) -> None:
    """What is not unknown cannot be told how it ended."""
    known = shop.request()
    assert "only the end of a call whose outcome is unknown" in shop.fail(
        f"%opsagent resolve {known[:8]} --state failed --reason 'looked at the server log'"
    )
    shop.run(f"%opsagent withdraw {known[:8]}")


def test_supersedes_replaces_a_waiting_request(shop: Shop) -> None:
    """An edit is a new request."""
    old = shop.request()
    new = shop.request(f"%opsagent run analyze_table --table parcels --supersedes {old[:8]}")
    assert shop.value(f"str(_ops.approval({old!r}).state)") == "superseded"
    shop.run(f"%opsagent reject {new[:8]}")


def test_vars_puts_variables_into_a_line(shop: Shop) -> None:
    """Only with --vars; a value is one word, whatever is in it."""
    shop.run("table, sql = 'orders', \"SELECT note FROM orders WHERE note = 'it''s  --on x'\"")
    assert "orders has" in shop.run("%opsagent --vars run list_indexes --table {table}").text
    shop.run("plan = %opsagent --vars run explain_query --sql {sql}")
    assert shop.value("plan.status, plan.record.arguments['sql'] == sql") == ("succeeded", True)
    assert "There is no table '{table}'" in shop.run("%opsagent run list_indexes --table {table}").text


# -- conversations ----------------------------------------------------------------------------------------------------


def test_ask_comes_back_at_once_and_the_turn_fills_in(shop: Shop) -> None:
    """The cell ends before the answer; the value has it, and the fallback says what was asked."""
    ran = shop.run("turn = %opsagent ask what's the state of the connections? --on shop")
    assert "what&#x27;s the state" in json.dumps(ran.data)
    assert "what's the state" in ran.text
    assert shop.value("len(turn.text) > 20, turn.state") == (True, "finished")
    assert shop.value("[call.tool for call in turn.calls]") == ["postgresql.get_connection_stats"]
    saved = shop.run("turn").data
    assert any("connections" in data.get("text/html", "") for data in saved)


def test_a_cell_is_a_question_and_wait_waits(shop: Shop) -> None:
    """Several lines, quotes and all; with --wait the turn has ended when the cell has."""
    ran = shop.run("%%opsagent --wait 30 --on shop\nshow me the indexes\nof 'orders'")
    assert not ran.errors
    assert shop.value("_ops.messages()[-1].role") == "assistant"


def test_chat_opens_the_panel_with_a_readable_record(shop: Shop) -> None:
    """A widget, and the same as text and HTML for a notebook without a kernel."""
    ran = shop.run("%opsagent chat --on shop")
    kinds = {kind for data in ran.data for kind in data}
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= kinds
    assert "Chat with OpsAgent" in ran.text
    assert "shop on demo" in ran.text


def test_sessions_open_and_close(shop: Shop) -> None:
    """A conversation is listed, opened again, closed, and readable afterwards."""
    shop.run("first = _ops.new_session('shop')\nturn = %opsagent ask show me the locks --wait 30")
    known = shop.value("first.id")
    assert shop.value(f"{known!r} in set((_ops.sessions())['id'])") is True
    shop.run("listed = %opsagent sessions")
    assert shop.value("type(listed).__name__, 'show me the locks' in set(listed['title'])") == ("DataFrame", True)
    opened = shop.run(f"%opsagent open {known[:8]}")
    assert known[:8] in opened.text
    assert f"Session {known[:8]} is closed." in shop.run(f"%opsagent close {known[:8]}").text
    assert shop.value(f"len(_ops.messages({known!r})) >= 2") is True
    assert "session.unknown" in shop.fail("%opsagent open ffffffff")


def test_a_session_of_another_kernel_opens_here(shop: Shop) -> None:
    """The transcript is in the store, not in a kernel."""
    shop.run("_ops.new_session('shop')\nturn = %opsagent ask show me slow queries --wait 30")
    known = shop.value("turn.session_id")
    store, key = shop.value("_ops.settings.store_url"), shop.secrets[1]
    with kernel(OPSAGENT_STORE_URL=store, PLUGIN_ENCRYPTION_KEY=key) as other:
        other.run("%load_ext opsagent_jupyter")
        opened = other.run(f"%opsagent open {known[:8]}")
        assert not opened.errors
        again = other.run(
            f"turn = %opsagent ask and the locks? --session {known[:8]} --wait 30\nprint('in', turn.session_id)"
        )
        assert f"in {known}" in again.text


def test_a_turn_that_fails_says_so_where_it_is_read(shop: Shop) -> None:
    """`turn.text` of a turn without an answer raises what went wrong."""
    shop.run("broken = %opsagent ask hello --model nowhere:nothing --wait 20")
    message = shop.fail("broken.text")
    assert "model.unknown" in message
    assert "model.unknown" in shop.value("broken.error.code")
    shop.run("_ops.new_session('shop')")


# -- audit ------------------------------------------------------------------------------------------------------------


def test_audit_is_a_dataframe_with_proper_types(shop: Shop) -> None:
    """`df = %opsagent audit --since 1d`: aware times, ordered risks, unpacked arguments."""
    shop.run("%opsagent run list_indexes --table orders")
    shop.run("df = %opsagent audit --since 1d")
    assert shop.value("type(df).__name__, len(df) > 3") == ("DataFrame", True)
    assert shop.value("str(df['time'].dtype)") == "datetime64[us, UTC]"
    assert shop.value("df['risk'].cat.ordered, list(df['risk'].cat.categories)") == (
        True,
        ["low", "medium", "high", "critical"],
    )
    assert shop.value("df[df['type'] == 'call.intent'].iloc[-1]['arguments']['table']") == "orders"


def test_audit_filters(shop: Shop) -> None:
    """By risk, status, server, tool, actor and time; a wrong filter says which there are."""
    shop.request()
    shop.run("me = _ops.actor.name\n%opsagent withdraw {0}".replace("{0}", shop.value("asked.approval.id")))
    for line, holds in (
        ("--risk medium", "set(df['risk']) == {'medium'}"),
        ("--status withdrawn", "set(df['status']) == {'withdrawn'}"),
        ("--server demo", "set(df['server']) == {'demo'}"),
        ("--tool analyze_table", "set(df['tool']) == {'postgresql.analyze_table'}"),
        ("--since 1h --until 2099-01-01", "True"),
        ("--limit 2", "len(df) == 2"),
        (f"--actor {shop.value('me')}", "set(df['actor_name']) == {me}"),
    ):
        shop.run(f"df = %opsagent audit {line}")
        assert shop.value(f"len(df) > 0 and {holds}") is True, line
    assert "audit.query" in shop.fail("%opsagent audit --since yesterday")
    assert "low, medium, high, critical" in shop.fail("%opsagent audit --risk huge")


def test_audit_takes_sql_and_verifies(shop: Shop) -> None:
    """SQL on DuckDB reads only; verification says so in a sentence."""
    shop.run('counts = %opsagent audit --sql "SELECT type, count(*) AS n FROM audit GROUP BY type ORDER BY n DESC"')
    assert shop.value("list(counts.columns)") == ["type", "n"]
    assert "audit.query" in shop.fail('%opsagent audit --sql "DROP TABLE audit"')
    assert "The audit verifies" in shop.run("%opsagent audit --verify").text


# -- completion -------------------------------------------------------------------------------------------------------


def completed(shop: Shop, line: str) -> list[str]:
    reply = shop.kernel._client.complete(line, len(line), reply=True, timeout=20)
    return list(reply["content"]["matches"])


def test_tab_completes_words_tools_and_names(shop: Shop) -> None:
    """Over the kernel's own completion channel, as a front end asks."""
    assert "approvals" in completed(shop, "%opsagent app")
    assert "get_slow_queries" in completed(shop, "%opsagent run get_s")
    assert "shop" in completed(shop, "%opsagent run list_indexes --on s")
    assert any("--table" in match for match in completed(shop, "%opsagent run list_indexes --ta"))


# -- the end ----------------------------------------------------------------------------------------------------------


def test_unload_ends_the_runtime_and_load_begins_a_new_one(shop: Shop) -> None:
    """What was attached is in the store, so it is there again."""
    with kernel(
        OPSAGENT_STORE_URL=shop.value("_ops.settings.store_url"), PLUGIN_ENCRYPTION_KEY=shop.secrets[1]
    ) as other:
        other.run("%load_ext opsagent_jupyter")
        assert "shop" in other.run("%opsagent servers").text
        assert not other.run("%unload_ext opsagent_jupyter").errors
        assert other.run("%opsagent servers").text.count("not found") == 1
        assert not other.run("%load_ext opsagent_jupyter").errors
        assert "shop" in other.run("%opsagent servers").text
