"""Hosts with a model over HTTP: tokens in the audit, budgets, kept keys, kept connections, and results behind an id."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.commands import Door, words
from opsagent_jupyter.credentials import Secret, Vault, new_key, open_vault
from opsagent_jupyter.errors import (
    ConfigError,
    CredentialError,
    ModelUnavailable,
    OpsAgentError,
    TurnLimit,
    UnknownModel,
)
from opsagent_jupyter.model_keys import ModelKeys
from tests.ledger_plugin import Ledger, plugin
from tests.model_server import Server, Turn, serving

KEY = "sk-kept-0123456789abcdef0123456789"
LIST = ("ledger_list_marks", "{}")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine has set is not what is tested."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def host(store_url: str, ledger_file: Path, server: Server, **settings: Any) -> Iterator[OpsAgent]:
    given = {"model": "openai:gpt-test", "model_base_url": f"{server.url}/v1", **settings}
    with OpsAgent(store_url, **given) as ops:
        ops.runtime.plugins.add(plugin)
        ops.attach("ledger", "books", server="desk", environment="development", dsn=str(ledger_file))
        yield ops


def usages(ops: OpsAgent) -> list[dict[str, Any]]:
    """The audit's events for what models took, oldest first."""
    rows = ops.runtime.store.audit_page(before=None, limit=100, filters={})
    events = [json.loads(row.body) for row in rows]
    return [event for event in reversed(events) if event["type"] == "model.usage"]


def test_what_a_turn_took_is_in_the_audit_with_its_cost(store_url: str, ledger_file: Path) -> None:
    """Both askings of one turn, by the provider's own count; the cost from the price that was set."""
    answers = (Turn(calls=(LIST,), tokens=(1000, 50)), Turn("None yet.", tokens=(1500, 50)))
    prices = "openai:gpt-test=2/10,openai:gpt-large=20/100"
    with serving(*answers) as server, host(store_url, ledger_file, server, model_prices=prices) as ops:
        turn = ops.ask("list the marks")
        assert turn.text == "None yet."
        [event] = usages(ops)
    assert event["session"] == turn.session_id
    assert event["status"] == "finished"
    taken = {name: event["details"][name] for name in ("model", "input_tokens", "output_tokens", "calls", "cost")}
    assert taken == {
        "model": "openai:gpt-test", "input_tokens": 2500, "output_tokens": 100, "calls": 2, "cost": 0.006,
    }  # fmt: skip
    assert event["details"]["estimated_calls"] == 0


def test_without_a_price_there_is_no_cost(store_url: str, ledger_file: Path) -> None:
    """None is made up."""
    with serving(Turn("Fine.")) as server, host(store_url, ledger_file, server) as ops:
        assert ops.ask("how are you?").text == "Fine."
        [event] = usages(ops)
    assert "cost" not in event["details"]


def test_the_offline_model_takes_no_tokens(store_url: str, ledger_file: Path) -> None:
    """Nothing is put into the audit for it."""
    with serving(Turn("unused")) as server, host(store_url, ledger_file, server, model="offline") as ops:
        assert ops.ask("list the marks").text
        assert usages(ops) == []
        assert server.requests == []


def test_a_turn_that_breaks_off_is_counted_too(store_url: str, ledger_file: Path) -> None:
    """The provider did not come to its count, so it is a guess, and says so."""
    with serving(Turn("one two three four", stops_after=3)) as server, host(store_url, ledger_file, server) as ops:
        turn = ops.ask("count")
        assert turn.error is not None
        assert turn.error.code == "model.cut_off"
        [event] = usages(ops)
    assert event["status"] == "failed"
    assert event["details"]["estimated_calls"] == 1
    assert event["details"]["input_tokens"] > 100


def test_a_session_ends_at_its_budget_on_whatever_host(store_url: str, ledger_file: Path) -> None:
    """The audit knows what it took so far; the model is not asked any more, and the person is told what to do."""
    with serving(Turn("Fine.", tokens=(900, 100))) as server:
        with host(store_url, ledger_file, server, session_tokens=1500) as ops:
            first = ops.ask("one")
            assert first.text == "Fine."
            assert ops.ask("two").text == "Fine."
        with host(store_url, ledger_file, server, session_tokens=1500) as other:
            late = other.ask("three", session=first.session_id)
            assert isinstance(late.error, TurnLimit)
            assert "OPSAGENT_SESSION_TOKENS" in str(late.error)
            assert other.new_session().id != first.session_id
            assert other.ask("four").text == "Fine."
    assert len(server.requests) == 3


def test_what_each_session_took_is_one_query_away(store_url: str, ledger_file: Path) -> None:
    """Tokens and cost of all turns, from the audit, by session."""
    prices = "openai:gpt-test=2/10"
    with (
        serving(Turn("Fine.", tokens=(900, 100))) as server,
        host(store_url, ledger_file, server, model_prices=prices) as ops,
    ):
        first = ops.ask("one")
        assert [first.text, ops.ask("two").text] == ["Fine.", "Fine."]
        second = ops.new_session().id
        assert ops.ask("three", session=second).text == "Fine."
        frame = ops.audit_sql(
            "SELECT session, sum((details->>'input_tokens')::int + (details->>'output_tokens')::int) AS tokens, "
            "sum((details->>'cost')::double) AS cost FROM audit WHERE type = 'model.usage' GROUP BY session"
        )
    taken = {row.session: (row.tokens, round(row.cost, 6)) for row in frame.itertuples()}
    assert taken == {first.session_id: (2000, 0.0056), second: (1000, 0.0028)}


def test_a_turn_ends_at_its_budget_whatever_the_model_wants(store_url: str, ledger_file: Path) -> None:
    """What it asked for last is still answered; then the person is told which limit it was, and goes on when they say so."""
    script = (Turn(calls=(LIST,), tokens=(900, 100)), Turn("Fine."))
    with serving(*script) as server, host(store_url, ledger_file, server, turn_tokens=1000) as ops:
        turn = ops.ask("list the marks")
        assert isinstance(turn.error, TurnLimit)
        assert "its limit of 1000 tokens" in str(turn.error)
        assert "go on" in turn.error.hint
        assert turn.state == "failed"
        assert len(server.requests) == 1
        assert [call.status for call in turn.calls] == ["succeeded"]
        assert [event["status"] for event in usages(ops)] == ["failed"]
        assert ops.ask("go on").text == "Fine."
    assert server.faults == []


def test_prices_that_cannot_be_read_are_refused_at_the_start() -> None:
    """A wrong price would be a wrong bill."""
    with pytest.raises(ConfigError, match="million"):
        OpsAgent("sqlite:///unused.db", model_prices="openai:gpt-test=cheap")


# -- keys and connections ---------------------------------------------------------------------------------------------


def word(ops: OpsAgent, *parts: str, typed: str = KEY) -> Any:
    return words.main(args=list(parts), standalone_mode=False, obj=Door(lambda: ops, lambda _: typed))


def test_a_kept_key_is_sent_and_stands_nowhere_in_clear(store_url: str, ledger_file: Path) -> None:
    """Typed at a prompt, encrypted in a file of its owner, sent as a header; the store, its audit and errors lack it."""
    with serving(Turn("Fine.")) as server, host(store_url, ledger_file, server) as ops:
        said = word(ops, "model", "key", "openai")
        assert ops.ask("hello").text == "Fine."
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        file = ops.settings.folder / "model-keys.json"
        assert file.stat().st_mode & 0o077 == 0
        rows = ops.runtime.store.audit_page(before=None, limit=100, filters={})
        assert any("model.key_kept" in row.body for row in rows)
        assert KEY not in said + file.read_text() + "".join(row.body for row in rows)
        assert KEY not in ops.runtime.redactor.redact(f"it is {KEY}")


def test_a_kept_key_outlives_its_host_and_can_be_forgotten(store_url: str, ledger_file: Path) -> None:
    """Another process on this machine reads it; forgotten, it is gone."""
    with serving(Turn("Fine.")) as server:
        with host(store_url, ledger_file, server) as ops:
            ops.keep_model_key("openai", KEY)
        with host(store_url, ledger_file, server) as other:
            assert other.ask("hello").text == "Fine."
            word(other, "model", "key", "openai", "--forget")
            assert other.ask("hello again").text == "Fine."
    assert KEY in server.headers[0]["authorization"]
    assert KEY not in server.headers[1]["authorization"]


def test_the_environment_goes_before_a_kept_key(
    store_url: str, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who starts the process decides."""
    with serving(Turn("Fine.")) as server, host(store_url, ledger_file, server) as ops:
        ops.keep_model_key("openai", KEY)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment-000")
        assert ops.ask("hello").text == "Fine."
        assert server.headers[0]["authorization"].endswith("sk-from-the-environment-000")


def test_a_key_for_nobody_is_not_asked_for(store_url: str, ledger_file: Path) -> None:
    """A provider that does not exist, and a prompt that was left empty."""
    with serving(Turn("unused")) as server, host(store_url, ledger_file, server) as ops:
        with pytest.raises(UnknownModel, match="opnai"):
            word(ops, "model", "key", "opnai")
        with pytest.raises(CredentialError, match="none was kept"):
            word(ops, "model", "key", "openai", typed="  ")


def test_a_key_that_cannot_be_read_any_more_says_what_to_do(store_url: str, ledger_file: Path) -> None:
    """Moved to another provider it does not decrypt; the turn fails with words, not with a wrong key."""
    with serving(Turn("unused")) as server, host(store_url, ledger_file, server) as ops:
        ops.keep_model_key("anthropic", KEY)
        file = ops.settings.folder / "model-keys.json"
        file.write_text(file.read_text().replace("anthropic", "openai"))
        turn = ops.ask("hello")
        assert isinstance(turn.error, CredentialError)
        assert "model key openai" in str(turn.error)
        assert server.requests == []


def test_a_missing_key_names_both_ways_to_give_one(store_url: str) -> None:
    """The word that keeps it, and the variable."""
    with OpsAgent(store_url, model="anthropic:claude-test") as ops, pytest.raises(ModelUnavailable) as caught:
        ops.runtime.open_model("anthropic:claude-test", [])
    assert "model key anthropic" in str(caught.value)
    assert "ANTHROPIC_API_KEY" in str(caught.value)


def test_one_client_serves_all_turns_until_the_key_changes(store_url: str, ledger_file: Path) -> None:
    """A new client a turn would be a new connection a turn."""
    with serving(Turn("unused")) as server, host(store_url, ledger_file, server) as ops:
        first = ops.runtime.open_model("openai:gpt-test", [])
        assert ops.runtime.open_model("openai:gpt-test", []) is first
        ops.keep_model_key("openai", KEY)
        assert ops.runtime.open_model("openai:gpt-test", []) is not first


def test_two_hosts_of_one_process_do_not_share_connections(store_url: str, ledger_file: Path) -> None:
    """A pool belongs to one loop: the second host works after the first has closed."""
    with serving(Turn("Fine.")) as server:
        for _ in range(3):
            with host(store_url, ledger_file, server) as ops:
                assert ops.ask("hello").text == "Fine."


# -- results ----------------------------------------------------------------------------------------------------------


def test_a_result_that_the_model_read_in_part_is_whole_behind_its_id(store_url: str, ledger_file: Path) -> None:
    """Capped in what is sent; a DataFrame of all kept rows for the person, by the id that the model was told."""
    ledger = Ledger("books", str(ledger_file))
    with ledger.open() as db:
        db.executemany("INSERT INTO mark (text) VALUES (?)", [(f"mark {n}",) for n in range(120)])
    with serving(Turn(calls=(LIST,)), Turn("Many.")) as server, host(store_url, ledger_file, server) as ops:
        assert ops.ask("list the marks").text == "Many."
        told = server.requests[1]["messages"][-1]["content"]
        assert "mark 119" not in told
        id_ = told.partition('_ops.result(\\"')[2].partition("\\")[0]
        frame = ops.result(id_)
        assert list(frame["text"]) == [f"mark {n}" for n in range(120)]
        with pytest.raises(ConfigError):
            ops.result("nothing")


def test_a_mask_of_an_instance_holds_from_the_attaching_to_the_wire(store_url: str, ledger_file: Path) -> None:
    """Rows come from a real database, the model is another process: what was sent holds no masked value."""
    with Ledger("books", str(ledger_file)).open() as db:
        db.execute("INSERT INTO mark (text) VALUES ('bob@example.org')")
    with serving(Turn(calls=(LIST,)), Turn("One.")) as server, host(store_url, ledger_file, server) as ops:
        ops.detach("books")
        ops.attach("ledger", "books", dsn=str(ledger_file), mask=("mark.text",))
        turn = ops.ask("list the marks")
        assert turn.text == "One."
        assert turn.calls[0].frame["text"][0] == "bob@example.org"
    assert "1 marks" in json.dumps(server.requests)
    assert "bob@" not in json.dumps(server.requests)


def test_errors_of_models_are_ours(store_url: str, ledger_file: Path) -> None:
    """A provider that refuses the key is told in one sentence, and the turn has ended."""
    refusal = Turn(status=401, body=json.dumps({"error": {"message": f"Incorrect key {KEY}"}}))
    with serving(refusal) as server, host(store_url, ledger_file, server) as ops:
        ops.keep_model_key("openai", KEY)
        error = ops.ask("hello").error
    assert isinstance(error, OpsAgentError)
    assert KEY not in str(error)
    assert "key" in str(error)


# -- whole conversations ----------------------------------------------------------------------------------------------


def test_of_two_parallel_calls_one_runs_and_the_other_waits_for_a_person(store_url: str, ledger_file: Path) -> None:
    """The look is answered at once; after the approval the model reads both outcomes in one valid history."""
    both = (LIST, ("ledger_add_mark", '{"text": "one"}'))
    with (
        serving(Turn("Looking and adding.", calls=both), Turn("It is there.")) as server,
        host(store_url, ledger_file, server) as ops,
    ):
        turn = ops.ask("add a mark and list them")
        assert turn.state in ("running", "parked")
        assert turn.text.startswith("Looking and adding.")
        assert {call.tool: call.status for call in turn.calls} == {
            "ledger.list_marks": "succeeded",
            "ledger.add_mark": "waiting",
        }
        [approval] = ops.runtime.store.approvals()
        ops.approve(approval.id)
        assert turn.wait(60).state == "finished"
        assert turn.text.endswith("It is there.")
    told = server.requests[-1]["messages"]
    assert [message["role"] for message in told] == ["system", "user", "assistant", "tool", "tool"]
    assert [call["id"] for call in told[2]["tool_calls"]] == [message["tool_call_id"] for message in told[3:]]
    assert Ledger("books", str(ledger_file)).texts() == ["one"]
    assert len(server.requests) == 2


def test_another_model_goes_on_with_the_conversation(store_url: str, ledger_file: Path) -> None:
    """What one provider's model called, and what a person decided meanwhile, the next one reads in its own protocol."""
    both = (LIST, ("ledger_add_mark", '{"text": "one"}'))
    script = (Turn("Adding.", calls=both), Turn("I read it all."), Turn("It is there."), Turn("One."))
    claude = "anthropic:claude-test"
    with serving(*script) as server, host(store_url, ledger_file, server) as ops:
        first = ops.ask("add a mark")
        assert first.text.strip() == "Adding."
        ops.keep_model_key("anthropic", KEY)
        assert ops.ask("what now?", model=claude).text == "I read it all."
        [approval] = ops.runtime.store.approvals()
        ops.approve(approval.id)
        last = ops.runtime.store.messages
        eventually(lambda: last(first.session_id)[-1].text.strip() == "It is there.")
        assert ops.session(first.session_id).model == claude
        assert ops.ask("how many?", model="openai:gpt-test").text == "One."
        said = [(m.role, m.model) for m in ops.messages(first.session_id) if m.role == "assistant"]
        assert said == [
            ("assistant", "openai:gpt-test"),
            *[("assistant", claude)] * 2,
            ("assistant", "openai:gpt-test"),
        ]
        assert [event["details"]["model"] for event in usages(ops)] == [
            "openai:gpt-test",
            claude,
            claude,
            "openai:gpt-test",
        ]
    [asked] = [m for m in server.requests[1]["messages"] if m["role"] == "assistant"]
    uses = [block["id"] for block in asked["content"] if block["type"] == "tool_use"]
    answers = server.requests[1]["messages"][2]["content"]
    assert [block["tool_use_id"] for block in answers if block["type"] == "tool_result"] == uses
    assert f"waiting for a person's decision (request {approval.id[:8]})" in json.dumps(answers)
    assert not answers[1].get("is_error")
    assert "the mark one is there" in json.dumps(server.requests[2]["messages"][-1])
    assert server.faults == []


def eventually(true: Callable[[], bool]) -> None:
    """Wait for it, at most half a minute."""
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_model_is_told_what_each_database_is_and_holds(store_url: str, ledger_file: Path) -> None:
    """Version and counts of names, compactly; no connection setting, no name from inside."""
    Ledger("books", str(ledger_file)).open().close()
    with serving(Turn("Fine.")) as server, host(store_url, ledger_file, server) as ops:
        assert ops.ask("hello").text == "Fine."
    prompt = server.requests[0]["messages"][0]["content"]
    assert "- books: ledger on server desk, development\n  1" in prompt
    assert str(ledger_file) not in prompt


def test_kept_keys_follow_a_change_of_the_encryption_key(tmp_path: Path) -> None:
    """Encrypted anew while both keys are known; afterwards the new one alone reads them, and the old one does not."""
    old, new = new_key(), new_key()

    def vault(keys: str) -> Vault:
        return open_vault(store_dir=None, shared=True, environ={"PLUGIN_ENCRYPTION_KEY": keys})

    keys = ModelKeys(tmp_path, vault(old))
    keys.keep("openai", Secret(KEY))
    assert keys.recrypt(vault(f"{new},{old}")) == 1
    found = ModelKeys(tmp_path, vault(new)).key("openai")
    assert found is not None
    assert found.reveal() == KEY
    with pytest.raises(CredentialError, match="cannot be read"):
        ModelKeys(tmp_path, vault(old)).key("openai")
