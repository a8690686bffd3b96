"""The store goes away in the middle of a call: before the record of the intent nothing is sent, after it nothing is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.errors import AuditUnavailable, ConfigError, StoreLocked
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Assessment, Plan, Result, Risk
from opsagent_jupyter.plugin import Arg, Note, Toolbox
from opsagent_jupyter.stores import store as stores
from opsagent_jupyter.stores.sqlite_library import sqlite3
from tests.ledger_plugin import Ledger, LedgerPlugin, plugin

#: Seconds that a write waits for a locked store in these tests.
PATIENCE = 0.3
LEASE = timedelta(minutes=1)


@pytest.fixture
def ops(store_url: str, ledger_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpsAgent]:
    """A host that runs only what it is told to, with little patience for its store."""
    opening = stores.open_store
    monkeypatch.setattr("opsagent_jupyter.runtime.open_store", lambda url: opening(url, lock_timeout=PATIENCE))
    with OpsAgent(store_url, executes=False) as found:
        found.runtime.plugins.add(plugin)
        found.attach("ledger", "books", environment="development", dsn=str(ledger_file))
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store file."""
    return tmp_path / "store" / "opsagent.db"


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another program holds the store locked."""
    db = sqlite3.connect(store, timeout=30, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        db.rollback()
        db.close()


def marks(ledger_file: Path) -> list[str]:
    """What really happened."""
    return Ledger("outside", str(ledger_file)).texts()


def approved(ops: OpsAgent, **arguments: Any) -> str:
    """The id of an approved request."""
    request_id = ops.run("add_mark", text="one", **arguments).record.approval
    ops.approve(request_id)
    return request_id


def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for it."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_without_the_record_of_the_intent_a_read_is_not_made(ops: OpsAgent, store: Path) -> None:
    """No audit, no operation."""
    with locked(store), pytest.raises(AuditUnavailable, match="not run"):
        ops.run("list_marks")


def test_without_the_record_of_the_request_nothing_waits(ops: OpsAgent, store: Path, ledger_file: Path) -> None:
    """Nobody is asked about a call that was not recorded."""
    with locked(store), pytest.raises(AuditUnavailable):
        ops.run("add_mark", text="one")
    assert len(ops.approvals(state="all")) == 0
    assert marks(ledger_file) == []


def test_a_decision_that_cannot_be_recorded_is_none(ops: OpsAgent, store: Path) -> None:
    """The request waits as before."""
    request_id = ops.run("add_mark", text="one").record.approval
    with locked(store), pytest.raises(StoreLocked):
        ops.approve(request_id)
    assert ops.approval(request_id).state is ApprovalState.PENDING


def test_without_a_claim_nothing_is_sent_and_the_approval_stays(ops: OpsAgent, store: Path, ledger_file: Path) -> None:
    """It runs, once, when the store is back."""
    request_id = approved(ops)
    with locked(store), pytest.raises(StoreLocked):
        ops.runtime.call(ops.runtime.executor.resume(request_id))
    assert marks(ledger_file) == []
    assert ops.approval(request_id).state is ApprovalState.APPROVED
    record = ops.runtime.call(ops.runtime.executor.resume(request_id))
    assert record is not None
    assert record.status == "succeeded"
    assert marks(ledger_file) == ["one"]


def test_without_the_evidence_nothing_is_sent(
    ops: OpsAgent, store: Path, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes after the claim and before the note: then it is known that nothing ran."""
    request_id = approved(ops)
    note = ops.runtime.store.note

    def noted(*arguments: Any) -> None:
        with locked(store):
            note(*arguments)

    monkeypatch.setattr(ops.runtime.store, "note", noted)
    record = ops.runtime.call(ops.runtime.executor.resume(request_id))
    assert record is not None
    assert (record.status, record.error_code) == ("failed", "store.locked")
    assert "nothing was sent" in record.summary
    assert marks(ledger_file) == []


def test_an_outcome_waits_for_the_store(ops: OpsAgent, store: Path, ledger_file: Path) -> None:
    """The store goes while the statement runs, and comes back: the outcome that was seen is recorded."""
    request_id = approved(ops, how="slow")
    running = ops.runtime.submit(ops.runtime.executor.resume(request_id))
    eventually(lambda: bool(ops.approval(request_id).evidence))
    with locked(store):
        eventually(lambda: marks(ledger_file) == ["one"])
        time.sleep(1)
        assert not running.done()
        assert ops.approval(request_id).state is ApprovalState.EXECUTING
    record = running.result(20)
    assert record is not None
    assert record.status == "succeeded"
    assert marks(ledger_file) == ["one"]


def test_an_outcome_that_cannot_be_recorded_is_unknown_and_then_probed(
    ops: OpsAgent, store: Path, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never failed: it stays executing, then unknown, until the database itself tells."""
    monkeypatch.setattr("opsagent_jupyter.executor.SETTLE_ATTEMPTS", 2)
    request_id = approved(ops, how="slow")
    running = ops.runtime.submit(ops.runtime.executor.resume(request_id))
    eventually(lambda: bool(ops.approval(request_id).evidence))
    with locked(store), pytest.raises(StoreLocked):
        running.result(20)
    assert marks(ledger_file) == ["one"]
    assert ops.approval(request_id).state is ApprovalState.EXECUTING
    assert ops.runtime.call(ops.runtime.executor.resume(request_id)) is None
    ops.runtime.call(ops.runtime.executor.sweep(LEASE))
    assert ops.approval(request_id).state is ApprovalState.SUCCEEDED
    states = list(ops.audit(approval=request_id)["status"])
    assert states[-3:] == ["executing", "unknown", "succeeded"]
    assert marks(ledger_file) == ["one"]


def test_a_probe_does_not_judge_by_another_database(ops: OpsAgent, tmp_path: Path, ledger_file: Path) -> None:
    """Where another database answers under the same name, the outcome stays unknown."""
    request_id = approved(ops, how="hang")
    running = ops.runtime.submit(ops.runtime.executor.resume(request_id))
    eventually(lambda: bool(ops.approval(request_id).evidence))
    ops.cancel(request_id)
    assert running.result(20).status == "unknown"
    (connection,) = ops.runtime.connections._open.values()
    connection.path = str(tmp_path / "other.db")  # type: ignore[attr-defined]
    Ledger("other", str(tmp_path / "other.db"))
    ops.runtime.call(ops.runtime.executor.sweep(LEASE))
    assert ops.approval(request_id).state is ApprovalState.UNKNOWN
    connection.path = str(ledger_file)  # type: ignore[attr-defined]
    ops.runtime.call(ops.runtime.executor.sweep(LEASE))
    assert ops.approval(request_id).state is ApprovalState.FAILED
    assert marks(ledger_file) == []


# -- the host itself --------------------------------------------------------------------------------------------------

stubborn = Toolbox("stubborn", version="1")


@stubborn.read(phrases=("weigh {what}",))
async def weigh(db: Ledger, what: Annotated[str, Arg("what", slot="word")]) -> Result:
    """Weigh something; to say how risky that is, is a bug."""
    return Result(summary=what)


@weigh.assesses
def _(arguments: Any) -> Assessment:
    raise ZeroDivisionError(f"secret of {arguments.what}")


@stubborn.change(Risk.MEDIUM, phrases=("lose {what}",))
async def lose(db: Ledger, what: Annotated[str, Arg("what", slot="word")]) -> Plan:
    """Lose something, and never find out."""
    return Plan(title="Lose it", statements=("lose",), risk=Risk.MEDIUM, reasons=(), lock="", before={"what": what})


@lose.performs
async def _lose(db: Ledger, plan: Plan, note: Note) -> Any:
    await note({})
    return None


@lose.probes
async def _find(db: Ledger, plan: Plan, evidence: Any) -> Any:
    if plan.before["what"] == "time":
        await asyncio.sleep(60)
    return "nonsense"


class Stubborn(LedgerPlugin):
    """A plugin at fault."""

    name = "stubborn"
    toolbox = stubborn


@pytest.fixture
def faulty(store_url: str, ledger_file: Path) -> Iterator[OpsAgent]:
    """A host with the plugin at fault."""
    with OpsAgent(store_url, lease_seconds=0.6) as found:
        found.runtime.plugins.add(Stubborn())
        found.attach("stubborn", "books", environment="development", dsn=str(ledger_file))
        yield found


def test_a_bug_in_the_risk_of_a_tool_is_a_refusal(faulty: OpsAgent) -> None:
    """A risk that is not known is no low risk, and the bug's text is told to nobody."""
    call = faulty.run("weigh", what="gold")
    assert (call.status, call.record.error_code) == ("refused", "plugin")
    assert "secret" not in call.summary


@pytest.mark.parametrize("what", ["time", "keys"])
def test_a_probe_at_fault_does_not_silence_the_host(faulty: OpsAgent, what: str) -> None:
    """Its sign of life goes on, so that nobody takes its running calls for lost."""
    call = faulty.run("lose", what=what)
    faulty.approve(call.record.approval)
    eventually(lambda: call.status == "unknown")
    time.sleep(1)
    (before,) = [host.seen_at for host in faulty.runtime.store.hosts() if host.id == faulty.runtime.host.id]
    time.sleep(0.6)
    (after,) = [host.seen_at for host in faulty.runtime.store.hosts() if host.id == faulty.runtime.host.id]
    assert after > before
    assert call.status == "unknown"


def test_a_screen_that_calls_back_from_the_hosts_own_thread_is_told_so(ops: OpsAgent) -> None:
    """Waiting there would be waiting for ever, for closing too."""
    told: list[BaseException] = []

    async def inside() -> None:
        for work in (lambda: ops.run("list_marks"), ops.close):
            with pytest.raises(ConfigError) as caught:
                work()
            told.append(caught.value)

    ops.runtime.submit(inside()).result(10)
    assert len(told) == 2
    assert ops.run("list_marks").status == "succeeded"


def test_closing_wakes_everybody_who_waits(store_url: str, ledger_file: Path) -> None:
    """No thread waits for a host that is gone."""
    ops = OpsAgent(store_url)
    ops.runtime.plugins.add(plugin)
    ops.attach("ledger", "books", environment="development", dsn=str(ledger_file))
    ended = threading.Event()

    def wait() -> None:
        try:
            ops.run("list_marks", delay=20)
        except BaseException:  # noqa: BLE001  # however it is told, it is told
            ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.5)
    ops.close()
    thread.join(10)
    assert ended.is_set()
