"""The gate on a real store and a real plugin: what runs, what waits, what is refused, and what is recorded."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from opsagent_jupyter.api import Call, OpsAgent
from opsagent_jupyter.errors import AlreadyDecided, CallRefused, ReasonRequired, StoreLocked
from opsagent_jupyter.executor import Ask, Grant
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Risk
from opsagent_jupyter.stores.store import SharedStore
from tests.ledger_plugin import Ledger, plugin


def marks(path: Path) -> list[str]:
    return Ledger("outside", str(path)).texts()


def types(ops: OpsAgent) -> list[str]:
    return list(ops.audit()["type"])


def test_a_low_read_runs_by_itself_with_intent_and_outcome(ops: OpsAgent) -> None:
    """Two audit events, no approval."""
    call = ops.run("list_marks")
    assert (call.status, call.risk, call.approval, call.summary) == ("succeeded", Risk.LOW, None, "0 marks")
    assert types(ops)[-2:] == ["call.intent", "call.outcome"]


def test_a_change_waits_and_runs_once_after_approval(ops: OpsAgent, ledger_file: Path) -> None:
    """Nothing happens before the decision, exactly one effect after it."""
    call = ops.run("add_mark", text="one")
    assert call.status == "waiting"
    assert marks(ledger_file) == []
    ops.approve(call.record.approval)
    assert call.wait(10).status == "succeeded"
    assert marks(ledger_file) == ["one"]
    assert types(ops)[-5:] == [
        "call.requested", "approval.pending", "approval.approved", "approval.executing", "approval.succeeded",
    ]  # fmt: skip


def test_a_rejected_call_never_runs(ops: OpsAgent, ledger_file: Path) -> None:
    """And a late approval says who was first."""
    call = ops.run("add_mark", text="one")
    ops.reject(call.record.approval, reason="not today")
    assert call.status == "refused"
    assert "not today" in call.summary
    with pytest.raises(AlreadyDecided, match="rejected"):
        ops.approve(call.record.approval)
    assert marks(ledger_file) == []


def test_an_unused_request_expires(store_url: str, ledger_file: Path) -> None:
    """Expiry is its own end, with its own audit event."""
    with OpsAgent(store_url, pending_seconds=5, lease_seconds=0.6) as ops:
        ops.runtime.plugins.add(plugin)
        ops.attach("ledger", "books", dsn=str(ledger_file))
        call = ops.run("add_mark", text="late").wait(12)
        assert (call.status, str(call.approval.state) if call.approval else "") == ("refused", "expired")
        assert "approval.expired" in types(ops)


def test_arguments_decide_the_risk_and_round_up(ops: OpsAgent) -> None:
    """What planning finds raises the level, and critical needs a reason."""
    call = ops.run("add_mark", text="!wipe")
    assert call.risk is Risk.CRITICAL
    with pytest.raises(ReasonRequired):
        ops.approve(call.record.approval)
    ops.approve(call.record.approval, reason="the auditors asked for it today")
    assert call.wait(10).status == "succeeded"


def test_a_read_that_its_arguments_raise_asks_and_then_returns_its_rows(ops: OpsAgent) -> None:
    """EXPLAIN ANALYZE is such a read."""
    assert ops.run("audit_marks").status == "succeeded"
    call = ops.run("audit_marks", deep=True)
    assert (call.status, call.risk) == ("waiting", Risk.MEDIUM)
    ops.approve(call.record.approval)
    assert call.wait(10).result is not None
    assert call.summary.startswith("0 marks counted deeply (approved by ")


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "says"),
    [
        ("list_marcs", {}, "plugin.unknown_tool", "did you mean list_marks"),
        ("list_marks", {"dealy": 1}, "call.invalid_arguments", "no argument 'dealy'"),
        ("list_marks", {"delay": "soon"}, "call.invalid_arguments", "argument 'delay'"),
        ("add_mark", {}, "call.invalid_arguments", "needs the argument 'text'"),
        ("add_mark", {"text": "forbidden"}, "call.precondition_failed", "Write another one"),
        ("add_mark", {"text": 7}, "call.invalid_arguments", "argument 'text'"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(
    ops: OpsAgent, tool: str, arguments: dict[str, object], code: str, says: str
) -> None:
    """A stable code, a message that helps, an audit record, and nothing sent."""
    call = ops.run(tool, **arguments)
    assert (call.status, call.record.error_code) == ("refused", code)
    assert says in call.summary
    assert ops.audit(status="refused").iloc[-1]["error_code"] == code


def test_an_unknown_instance_names_what_is_attached(ops: OpsAgent) -> None:
    """The refusal says which databases there are."""
    call = ops.run("list_marks", on="boks")
    assert (call.status, call.record.error_code) == ("refused", "plugin.unknown_instance")
    assert "books" in call.summary


def test_what_changed_after_the_approval_is_not_run(ops: OpsAgent, ledger_file: Path) -> None:
    """The request ends stale and says what changed."""
    call = ops.run("add_mark", text="one")
    with Ledger("outside", str(ledger_file)).open() as db:
        db.execute("INSERT INTO era VALUES (1)")
    ops.approve(call.record.approval)
    assert call.wait(10).status == "refused"
    assert str(call.approval.state) == "stale" if call.approval else False
    assert "era" in call.summary
    assert marks(ledger_file) == []


def test_an_unseen_end_is_unknown_and_not_retried(ops: OpsAgent, ledger_file: Path) -> None:
    """A person records what happened, with a reason."""
    call = ops.run("add_mark", text="one", how="vanish")
    ops.approve(call.record.approval)
    deadline = time.monotonic() + 10
    while call.status != "unknown" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert call.status == "unknown"
    time.sleep(1)
    assert marks(ledger_file) == []
    ops.resolve(call.record.approval, "failed", "looked into the file, there is no mark")
    assert call.status == "failed"


def test_a_bug_in_a_plugin_after_sending_is_unknown_and_tells_no_secret(ops: OpsAgent) -> None:
    """The exception's text goes nowhere."""
    call = ops.run("add_mark", text="one", how="break")
    ops.approve(call.record.approval)
    deadline = time.monotonic() + 10
    while call.status != "unknown" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert call.status == "unknown"
    assert "secret" not in call.summary
    assert "ZeroDivisionError" in call.summary


def test_an_error_of_the_server_is_a_failure(ops: OpsAgent) -> None:
    """The database answered, so it is known that nothing happened."""
    call = ops.run("add_mark", text="one", how="fail")
    ops.approve(call.record.approval)
    assert call.wait(10).status == "failed"


def test_a_deadline_cancels_a_read(store_url: str, ledger_file: Path) -> None:
    """The call ends failed with its own code."""
    with OpsAgent(store_url, deadline=0.2) as ops:
        ops.runtime.plugins.add(plugin)
        ops.attach("ledger", "books", dsn=str(ledger_file))
        call = ops.run("list_marks", delay=5)
        assert (call.status, call.record.error_code) == ("failed", "execution.deadline")


def test_a_dry_run_shows_the_statement_and_asks_nobody(ops: OpsAgent, ledger_file: Path) -> None:
    """No request is made."""
    call = ops.run("add_mark", text="one", dry_run=True)
    assert call.status == "succeeded"
    assert "INSERT INTO mark" in call.summary
    assert len(ops.approvals()) == 0
    assert marks(ledger_file) == []


def test_a_newer_request_supersedes_the_old_one(ops: OpsAgent, ledger_file: Path) -> None:
    """An edit is a new request; the old one cannot be approved any more."""
    old = ops.run("add_mark", text="one")
    new = ops.run("add_mark", text="two", supersedes=old.record.approval[:8])
    assert str(ops.approval(old.record.approval).state) == "superseded"
    with pytest.raises(AlreadyDecided):
        ops.approve(old.record.approval)
    ops.approve(new.record.approval)
    assert new.wait(10).status == "succeeded"
    assert marks(ledger_file) == ["two"]


def test_withdraw_and_revoke_end_a_request(ops: OpsAgent, ledger_file: Path) -> None:
    """The requester takes it back."""
    call = ops.run("add_mark", text="one")
    ops.withdraw(call.record.approval)
    assert str(ops.approval(call.record.approval).state) == "withdrawn"
    assert marks(ledger_file) == []


def test_a_read_only_database_refuses_changes(store_url: str, ledger_file: Path) -> None:
    """The policy holds on every door, the Python API included."""
    with OpsAgent(store_url) as ops:
        ops.runtime.plugins.add(plugin)
        ops.attach("ledger", "books", dsn=str(ledger_file), read_only=True)
        call = ops.run("add_mark", text="one")
        assert (call.status, call.record.error_code) == ("refused", "call.policy_denied")


def test_nobody_makes_a_grant_outside_the_gate() -> None:
    """A grant needs the gate's own seal."""
    with pytest.raises(CallRefused):
        Grant("call", object())


def test_a_call_prints_as_what_it_is(ops: OpsAgent) -> None:
    """The repr names the request of a waiting call."""
    call = ops.run("add_mark", text="one")
    assert call.record.approval[:8] in repr(call)
    assert isinstance(call, Call)


def test_many_requests_in_one_state_hide_none(ops: OpsAgent) -> None:
    """Sweep and pick-up read every page, so what cannot be settled never stands before what can."""
    asked = {ops.run("add_mark", text=f"mark {number}").record.approval for number in range(105)}
    found = ops.runtime.call(ops.runtime.executor.every(ApprovalState.PENDING))
    assert len(found) == 105
    assert {approval.id for approval in found} == asked


def test_attaching_keeps_what_the_plugin_offers(ops: OpsAgent) -> None:
    """A host that does not have the plugin can still name its tools and their risk."""
    kept = ops.runtime.store.plugin_definitions()["ledger"]
    assert kept["version"] == "1"
    assert {
        "name": "ledger.add_mark",
        "summary": "Write a mark into the ledger.",
        "risk": "medium",
        "changes": True,
    } in kept["tools"]


def test_a_read_waits_aside_for_whoever_holds_the_store(ops: OpsAgent) -> None:
    """A record that cannot be written at once is written on a thread: the loop goes on, and both records are there."""
    store = ops.runtime.store
    assert isinstance(store, SharedStore)
    store.record(ops.runtime.event("bench", ops.actor))  # the first write of a store may be slow, this one is not
    with store._storage._turns.turn(10):  # type: ignore[attr-defined]
        with pytest.raises(StoreLocked):
            store.record(ops.runtime.event("bench", ops.actor), at_once=True)
        asking = ops.runtime.submit(
            ops.runtime.executor.submit(Ask("ledger.list_marks", {}, store.instances()[0].name), ops.actor)
        )
        assert ops.runtime.call(asyncio.sleep(0.1, "the loop goes on")) == "the loop goes on"
        assert not asking.done()
    assert asking.result(10).status == "succeeded"
    assert types(ops)[-2:] == ["call.intent", "call.outcome"]


def test_records_leave_the_loop_alone_while_the_disk_is_slow(ops: OpsAgent) -> None:
    """One slow write sends the next ones to a thread, and one quick write brings them back."""
    storage: Any = ops.runtime.store._storage  # type: ignore[attr-defined]
    ops.run("list_marks")
    storage._recorded_in = 0.5
    assert not ops.runtime.store.swift
    ops.run("list_marks")
    assert ops.runtime.store.swift is (storage.journal_mode == "wal")
