"""The words of a command: how a line is taken apart, and what comes out as typed values."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from opsagent_jupyter.api import Call, OpsAgent, Turn, refuse_clear_secret, require_name
from opsagent_jupyter.cards import ApprovalCard, HealthCard
from opsagent_jupyter.cli.main import json_first
from opsagent_jupyter.commands import Door, exit_code, tool_arguments, words
from opsagent_jupyter.errors import ConfigError, CredentialError, InvalidArguments, SecretInClear, UnknownInstance
from opsagent_jupyter.models import Health, Risk
from opsagent_jupyter.notebook.completion import completions
from opsagent_jupyter.notebook.magics import OpsAgent as Magic
from opsagent_jupyter.notebook.magics import question_of, unquoted, words_of
from opsagent_jupyter.plugins.registry import PluginRegistry
from opsagent_jupyter.testing.models import Line, ScriptedModel
from tests.ledger_plugin import add_mark, audit_marks, list_marks


def run(ops: OpsAgent, line: str) -> Any:
    """Run a line of words on an OpsAgent, as a host does."""
    door = Door(lambda: ops, lambda question: f"answer to {question}")
    return words.main(args=shlex.split(line), prog_name="%opsagent", standalone_mode=False, obj=door)


# -- questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "options", "question"),
    [
        ("what's slow?", [], "what's slow?"),
        ('why is "orders" so big, isn\'t it vacuumed?', [], 'why is "orders" so big, isn\'t it vacuumed?'),
        ('"show me slow queries"', [], "show me slow queries"),
        ("'a' or 'b'", [], "'a' or 'b'"),
        ("--on shop what's slow?", ["--on", "shop"], "what's slow?"),
        ("-o shop -m offline what is slow?", ["-o", "shop", "-m", "offline"], "what is slow?"),
        ("what is slow? --on shop --wait 60", ["--on", "shop", "--wait=60"], "what is slow?"),
        ("what is slow? --wait", ["--wait"], "what is slow?"),
        ("--wait what is slow?", ["--wait"], "what is slow?"),
        ("--wait 2.5 what is slow?", ["--wait=2.5"], "what is slow?"),
        ("--wait=5 what is slow?", ["--wait=5"], "what is slow?"),
        ('--on "shop" go on', ["--on", "shop"], "go on"),
        ("what does pg_dump -s do, and psql -h?", [], "what does pg_dump -s do, and psql -h?"),
        ("what does pg_dump --help say?", [], "what does pg_dump --help say?"),
        ("--on shop -- what does --wait do?", ["--on", "shop"], "what does --wait do?"),
        ("explain SELECT * FROM t WHERE a = 'x  y'", [], "explain SELECT * FROM t WHERE a = 'x  y'"),
        ("--help", ["--help"], ""),
        ("--on", ["--on"], ""),
        ("{name} costs 5 $ & 3 < 4 | `x` \\d", [], "{name} costs 5 $ & 3 < 4 | `x` \\d"),
        ("", [], ""),
    ],
)
def test_a_question_keeps_every_character_that_is_no_option(line: str, options: list[str], question: str) -> None:
    """Quotes, apostrophes, spaces and dashes of a question are its own."""
    assert question_of(line) == (options, question)


@pytest.mark.parametrize(
    ("line", "cell", "expected"),
    [
        ("ask what's slow?", None, ["ask", "--", "what's slow?"]),
        ("ask\twhat's slow?", None, ["ask", "--", "what's slow?"]),
        ("ask", None, ["ask"]),
        ("", "what's slow?\nand why?\n", ["ask", "--", "what's slow?\nand why?"]),
        ("--on shop --wait", "what's slow?", ["ask", "--on", "shop", "--wait", "--", "what's slow?"]),
        ("ask --on shop", "what's slow?", ["ask", "--on", "shop", "--", "what's slow?"]),
        ("about orders:", "  what's slow?", ["ask", "--", "about orders:\n  what's slow?"]),
        ("", "  \n", ["ask"]),
        ("", None, []),
        ("run explain_query --sql \"SELECT 'it''s'\"", None, ["run", "explain_query", "--sql", "SELECT 'it''s'"]),
        ("reject 12ab --reason 'not today'", None, ["reject", "12ab", "--reason", "not today"]),
    ],
)
def test_a_line_and_its_cell_become_words(line: str, cell: str | None, expected: list[str]) -> None:
    """A cell is always a question; a line is one only after ask."""
    assert words_of(line, cell) == expected


def test_an_open_quotation_is_refused_with_the_fix() -> None:
    """An apostrophe in a reason is the usual cause."""
    with pytest.raises(InvalidArguments, match="not closed") as caught:
        words_of("reject 12ab --reason don't")
    assert "double quotes" in caught.value.hint


def test_only_quotes_around_the_whole_text_go() -> None:
    """What is quoted inside stays quoted."""
    assert unquoted('"a"') == "a"
    assert unquoted('"a" and "b"') == '"a" and "b"'
    assert unquoted("'") == "'"


# -- variables --------------------------------------------------------------------------------------------------------


@pytest.fixture
def magic() -> Magic:
    """The magics in a shell of their own."""
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    return Magic(shell)


def test_braces_stay_braces_without_vars(magic: Magic) -> None:
    """Nothing is put into a line unless the user opts in."""
    magic.shell.user_ns["table"] = "orders"
    assert magic._words("run list_indexes --table {table}", None)[-1] == "{table}"


def test_vars_fills_in_variables_and_leaves_other_braces(magic: Magic) -> None:
    """JSON and sets in a question survive."""
    magic.shell.user_ns.update(table="orders", sql="SELECT 'it''s' --on prod")
    assert magic._words("--vars run explain_query --sql {sql} --on shop", None)[2:] == [
        "--sql", "SELECT 'it''s' --on prod", "--on", "shop",
    ]  # fmt: skip
    assert magic._words("--vars ask why is {table} slow, {nothing} {'a': 1}?", None) == [
        "ask", "--", "why is orders slow, {nothing} {'a': 1}?",
    ]  # fmt: skip
    assert magic._words("--vars", "about {table}")[-1] == "about orders"


def test_a_value_cannot_add_an_option(magic: Magic) -> None:
    """A name that came from a database is one word, and never an option."""
    magic.shell.user_ns.update(table="t --on prod", evil="--reason=approved", number=-5, dash="- why?")
    assert magic._words("--vars run list_indexes --table {table}", None)[-1] == "t --on prod"
    with pytest.raises(InvalidArguments, match="begins with a dash"):
        magic._words("--vars approve {evil}", None)
    assert magic._words("--vars run x --limit {number}", None)[-1] == "-5"
    assert magic._words("--vars ask {dash}", None)[-1] == "- why?"


def test_expand_does_the_same_for_every_line(magic: Magic) -> None:
    """`%config OpsAgent.expand = True` is the other way to opt in."""
    magic.expand = True
    magic.shell.user_ns["table"] = "orders"
    assert magic._words("run list_indexes --table {table}", None)[-1] == "orders"


# -- tool arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("--text one", {"text": "one"}),
        ("--text=one", {"text": "one"}),
        ("--text=--wait", {"text": "--wait"}),
        ("--text ''", {"text": ""}),
        ("--text 'a b' --count 2", {"text": "a b", "count": "2"}),
        ("--count -2", {"count": "-2"}),
        ("--text 'x=y'", {"text": "x=y"}),
        ("", {}),
    ],
)
def test_options_become_arguments(line: str, values: dict[str, object]) -> None:
    """With a space or with an equals sign, whatever the value looks like."""
    assert tool_arguments(add_mark, shlex.split(line)) == values


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("--deep", True),
        ("--no-deep", False),
        ("--deep false", "false"),
        ("--deep=yes", "yes"),
        ("--deep --other 1", True),
    ],
)
def test_a_switch_needs_no_value(line: str, value: object) -> None:
    """`--deep`, `--no-deep` and `--deep false` are all understood."""
    assert tool_arguments(audit_marks, shlex.split(line))["deep"] == value


def test_lists_are_written_with_commas_or_by_repeating() -> None:
    """`--columns a,b` and `--columns a --columns b` are the same, and dashes in names are underscores."""
    create_index = PluginRegistry().tool("postgresql.create_index")
    for line in ("--table t --columns a,b", "--table t --columns a --columns b", "--table t --columns 'a, b'"):
        assert tool_arguments(create_index, shlex.split(line)) == {"table": "t", "columns": ["a", "b"]}
    explain = PluginRegistry().tool("postgresql.explain_query")
    assert tool_arguments(explain, ["--query-id", "42"]) == {"query_id": "42"}


def test_a_word_that_stands_alone_is_refused_with_the_usage() -> None:
    """The message names the word and what the tool takes."""
    with pytest.raises(InvalidArguments, match="'soon' stands alone") as caught:
        tool_arguments(list_marks, ["soon"])
    assert "list_marks takes [delay]" in caught.value.hint
    with pytest.raises(InvalidArguments, match="--delay needs a value"):
        tool_arguments(list_marks, ["--delay"])


def test_typed_values_reach_the_tool(ops: OpsAgent) -> None:
    """Words become numbers and switches by the tool's own schema."""
    call = run(ops, "run add_mark --text one --count 2")
    assert call.record.arguments == {"text": "one", "how": "ok", "count": 2}
    assert run(ops, "run audit_marks --deep").status == "waiting"
    assert run(ops, "run list_marks --delay 0.01").status == "succeeded"


def test_a_tool_is_found_by_its_short_and_its_full_name(ops: OpsAgent) -> None:
    """And --on may be left out while one database is attached."""
    assert run(ops, "run list_marks").tool == run(ops, "run ledger.list_marks --on books").tool == "ledger.list_marks"


def test_dry_run_and_wait_are_ours_wherever_they_stand(ops: OpsAgent) -> None:
    """Options of the command may stand among those of the tool."""
    call = run(ops, "run --dry-run add_mark --text one")
    assert (call.status, call.approval) == ("succeeded", None)
    assert run(ops, "run add_mark --wait 0.2 --text one").status == "waiting"


# -- attaching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://shop:geheim@db/shop",
        "postgresql://shop:ge/he@im@db/shop",
        "//shop:geheim@db",
        "host=db user=shop password=geheim",
        "host=db PASSWORD = 'ge heim'",
        "postgresql://db/shop?user=u&password=geheim",
        "host=db sslpassword=geheim",
    ],
)
@pytest.mark.parametrize("place", ["--dsn", "--dsn-env", "--service", "--server"])
def test_a_typed_password_is_refused_wherever_it_stands(ops: OpsAgent, place: str, text: str) -> None:
    """And the message does not repeat it."""
    place = "--dsn-env" if place == "--service" else place
    with pytest.raises(SecretInClear) as caught:
        run(ops, f"attach ledger x {place} {shlex.quote(text)}")
    assert "geheim" not in str(caught.value)
    assert "--dsn-env" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["postgresql://shop@db:5432/shop", "postgresql://shop@[::1]:5432/shop", "host=db user=u"]
)
def test_a_connection_string_without_a_password_is_taken(text: str) -> None:
    """Peer, certificate and .pgpass logins need none."""
    refuse_clear_secret(text)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a\nb", "<b>x</b>", "postgresql://u:geheim@h", "-x", "x" * 64, None, 7]
)
def test_a_name_that_cannot_be_typed_is_refused(ops: OpsAgent, name: Any) -> None:
    """It is not repeated either: it could be the connection string, put in the wrong place."""
    with pytest.raises(ConfigError) as caught:
        ops.attach("ledger", name, dsn="/tmp/never")
    assert "geheim" not in str(caught.value)
    assert "letters, digits" in caught.value.hint


@pytest.mark.parametrize("name", ["shop", "shop-1", "kunden_öst", "a.b", "1"])
def test_usual_names_are_taken(name: str) -> None:
    """Letters of any alphabet, digits, dots, dashes and underscores."""
    require_name("database", name)


def test_one_way_to_connect_and_only_one(ops: OpsAgent) -> None:
    """None and two are both refused with the list of ways."""
    for line in ("attach ledger x", "attach ledger x --dsn a --service b", "attach ledger x --dsn a --prompt"):
        with pytest.raises(CredentialError, match="exactly one way"):
            run(ops, line)


def test_prompt_asks_for_the_named_database(ops: OpsAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The question says which one, and the answer is the connection string."""
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return str(tmp_path / "other.db")

    door = Door(lambda: ops, answer)
    args = ["attach", "ledger", "other", "--prompt"]
    card = words.main(args=args, prog_name="%opsagent", standalone_mode=False, obj=door)
    assert asked == ["Connection string of other: "]
    assert isinstance(card, HealthCard)
    assert card.ok


# -- which database ---------------------------------------------------------------------------------------------------


def test_a_server_stands_for_its_only_database(ops: OpsAgent, tmp_path: Any) -> None:
    """With two, or none, the message says what there is."""
    assert run(ops, "ask --server desk -- hello").wait(20).session.instance == "books"
    with pytest.raises(ConfigError, match="has no database attached"):
        run(ops, "ask --server shelf -- hello")
    ops.attach("ledger", "more", server="desk", dsn=str(tmp_path / "more.db"))
    with pytest.raises(ConfigError, match="has books, more"):
        run(ops, "ask --server desk -- hello")
    with pytest.raises(UnknownInstance, match="books, more"):
        run(ops, "run list_marks")


# -- completion -------------------------------------------------------------------------------------------------------


def test_completion_knows_words_options_and_names(ops: OpsAgent) -> None:
    """What may stand where the cursor is: commands, tools and their arguments, databases, requests, sessions."""
    request = ops.run("add_mark", text="one").record.approval[:8]
    session = ops.new_session().id[:8]
    assert {"ask", "run", "approve", "doctor"} <= set(completions(ops, "%opsagent "))
    assert "list_marks" in completions(ops, "%opsagent run ")
    assert {"--text", "--count", "--on", "--wait"} <= set(completions(ops, "%opsagent run add_mark --"))
    assert {"--text"} <= set(completions(ops, "%opsagent run ledger.add_mark --"))
    assert completions(ops, "%opsagent run list_marks --on ") == ["books"]
    assert completions(ops, "%opsagent health ") == ["books"]
    assert completions(ops, "%opsagent attach x --server ") == ["desk"]
    assert request in completions(ops, "%opsagent approve ")
    assert session in completions(ops, "%opsagent open ")
    assert "postgresql" in completions(ops, "%opsagent attach ")
    assert "--since" in completions(ops, "%opsagent audit --")


def test_completion_never_starts_anything_and_never_fails(ops: OpsAgent) -> None:
    """Without an OpsAgent, and for words that do not exist, there is just less to offer."""
    assert "ask" in completions(None, "%opsagent ")
    for line in ("%opsagent run ", "%opsagent approve ", "%opsagent nope ", "%opsagent run nope --", "%%opsagent"):
        for started in (None, ops):
            assert isinstance(completions(started, line), list)


# -- exit codes and JSON ----------------------------------------------------------------------------------------------


def test_exit_codes_say_how_it_ended(ops: OpsAgent) -> None:
    """0 done, 1 failed or refused, 3 waiting for a person."""
    assert exit_code(ops.run("list_marks")) == 0
    assert exit_code(ops.run("nope")) == 1
    call = ops.run("add_mark", text="one")
    assert exit_code(call) == 3
    ops.reject(call.record.approval)
    assert exit_code(call) == 1
    assert exit_code(ApprovalCard(ops.approval(call.record.approval))) == 0
    assert exit_code(HealthCard((Health(instance="x", ok=False, summary="down"),))) == 1
    assert [exit_code({"ok": True}), exit_code({"ok": False}), exit_code({}), exit_code("done")] == [0, 1, 0, 0]


def test_an_unknown_outcome_has_a_code_of_its_own(ops: OpsAgent) -> None:
    """4: somebody has to look."""
    call = ops.run("add_mark", text="one", how="vanish")
    ops.approve(call.record.approval)
    assert call.wait(10).status == "unknown"
    assert exit_code(call) == exit_code(ApprovalCard(ops.approval(call.record.approval))) == 4


def test_a_turn_exits_by_its_state(ops: OpsAgent) -> None:
    """0 answered, 3 parked on a person, 1 failed."""
    assert exit_code(ops.ask("list the marks").wait(20)) == 0
    assert exit_code(ops.ask("hello", model="nonsense").wait(20)) == 1
    ops.runtime.open_model = lambda *_: ScriptedModel(Line(calls=(("ledger_add_mark", {"text": "blue"}),)))
    session = ops.new_session().id
    assert exit_code(ops.ask("add a mark", session=session).wait(2)) == 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["run", "x", "--json"], ["--json", "run", "x"]),
        (["--store", "s", "--json", "servers"], ["--json", "--store", "s", "servers"]),
        (["ask", "--", "what", "is", "--json"], ["ask", "--", "what", "is", "--json"]),
        (["--json", "ask", "--", "--json"], ["--json", "ask", "--", "--json"]),
        ([], []),
    ],
)
def test_json_may_be_typed_anywhere(given: list[str], expected: list[str]) -> None:
    """A tool must not get it for an argument of its own."""
    assert json_first(given) == expected


def test_values_are_what_they_say(ops: OpsAgent) -> None:
    """Each word answers with a plain Python value, not with text."""
    assert isinstance(run(ops, "run list_marks"), Call)
    assert isinstance(run(ops, "ask -- list the marks"), Turn)
    assert list(run(ops, "servers")["name"]) == ["books"]
    assert set(run(ops, "tools ledger")["risk"]) == {str(Risk.LOW), str(Risk.MEDIUM)}
    assert "call.intent" in set(run(ops, "audit --tool list_marks")["type"])
    assert run(ops, "audit --verify").ok
