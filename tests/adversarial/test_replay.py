"""One approval is one run: however often, by how many hosts, and whatever is done to its row.

The digest says *what* was approved, not that it has not been run yet. So a claim also asks the audit, in its own
transaction, whether the last thing that happened to the request is its approval. Who rewrites the audit as well is
found by ``opsagent audit verify``; who restores an older copy of the whole store is not stopped here.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.errors import AlreadyDecided, DigestMismatch
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import CallRecord, Effect
from opsagent_jupyter.stores.sqlite_library import sqlite3
from tests.ledger_plugin import Ledger, plugin

#: What an attacker with the store file does to the row of a request that has run.
SET_BACK = "UPDATE approval_requests SET state = 'approved', version = 2 WHERE id = :id"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store file."""
    return tmp_path / "store" / "opsagent.db"


def host(store_url: str, *, executes: bool = False) -> OpsAgent:
    """A process's worth of OpsAgent on the shared store."""
    ops = OpsAgent(store_url, executes=executes, lease_seconds=0.6)
    ops.runtime.plugins.add(plugin)
    return ops


@pytest.fixture
def ops(store_url: str, ledger_file: Path) -> Iterator[OpsAgent]:
    """A host that runs nothing by itself."""
    with host(store_url) as found:
        found.attach("ledger", "books", server="desk", environment="development", dsn=str(ledger_file))
        yield found


def approved(ops: OpsAgent, text: str = "one", **arguments: Any) -> str:
    """The id of an approved request."""
    request_id = ops.run("add_mark", text=text, **arguments).record.approval
    ops.approve(request_id)
    return request_id


def resume(ops: OpsAgent, request_id: str) -> CallRecord | None:
    """Try to run it on this host."""
    return ops.runtime.call(ops.runtime.executor.resume(request_id))


def sql(store: Path, text: str, **values: Any) -> None:
    """Edit the store behind OpsAgent's back."""
    with closing(sqlite3.connect(store, timeout=30)) as db, db:
        db.execute(text, values)


def marks(ledger_file: Path) -> list[str]:
    """What really happened."""
    return Ledger("outside", str(ledger_file)).texts()


def eventually(true: Callable[[], bool]) -> None:
    """Wait for it, at most ten seconds."""
    limit = time.monotonic() + 10
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_of_many_resumes_on_many_hosts_one_runs(ops: OpsAgent, store_url: str, ledger_file: Path) -> None:
    """Four hosts, each asked five times at the same moment, for three approvals."""
    ids = [approved(ops, f"mark {number}") for number in range(3)]
    with ExitStack() as stack:
        hosts = [stack.enter_context(host(store_url)) for _ in range(4)]
        start, got = threading.Barrier(len(hosts)), []

        async def all_at_once(each: OpsAgent) -> list[CallRecord | None]:
            return list(await asyncio.gather(*(each.runtime.executor.resume(request_id) for request_id in ids * 5)))

        def run(each: OpsAgent) -> None:
            start.wait()
            got.extend(each.runtime.call(all_at_once(each)))

        threads = [threading.Thread(target=run, args=(each,)) for each in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    ran = [record for record in got if record is not None]
    assert sorted(record.approval for record in ran) == sorted(ids)
    assert {record.status for record in ran} == {"succeeded"}
    assert sorted(marks(ledger_file)) == ["mark 0", "mark 1", "mark 2"]


def test_a_finished_request_is_not_resumed(ops: OpsAgent, ledger_file: Path) -> None:
    """Nor approved again."""
    request_id = approved(ops)
    assert resume(ops, request_id) is not None
    assert [resume(ops, request_id) for _ in range(3)] == [None] * 3
    with pytest.raises(AlreadyDecided):
        ops.approve(request_id)
    assert marks(ledger_file) == ["one"]


@pytest.mark.parametrize("how", ["ok", "fail", "vanish"])
def test_a_row_that_is_set_back_to_approved_does_not_run_again(
    ops: OpsAgent, store: Path, ledger_file: Path, how: str
) -> None:
    """The audit holds its run, so it ends stale; what the audit said first stays."""
    request_id = approved(ops, how=how)
    resume(ops, request_id)
    before = marks(ledger_file)
    sql(store, SET_BACK, id=request_id)
    record = resume(ops, request_id)
    assert record is not None
    assert (record.status, record.error_code) == ("refused", DigestMismatch.code)
    assert str(ops.approval(request_id).state) == "stale"
    assert marks(ledger_file) == before
    assert list(ops.audit(approval=request_id)["type"])[-1] == "approval.stale"
    assert ops.verify().ok


def test_hosts_that_wait_for_work_do_not_take_it_either(
    ops: OpsAgent, store: Path, store_url: str, ledger_file: Path
) -> None:
    """A host that looks for approved requests by itself finds the row and refuses it."""
    request_id = approved(ops)
    resume(ops, request_id)
    sql(store, SET_BACK, id=request_id)
    with host(store_url, executes=True):
        eventually(lambda: ops.approval(request_id).state is ApprovalState.STALE)
    assert marks(ledger_file) == ["one"]


@pytest.mark.parametrize("state", ["pending", "rejected", "withdrawn"])
def test_a_row_that_nobody_approved_is_not_made_approved_by_an_edit(
    ops: OpsAgent, store: Path, ledger_file: Path, state: str
) -> None:
    """Even with a person's name, a time and a reason written into it."""
    request_id = ops.run("add_mark", text="one").record.approval
    if state == "rejected":
        ops.reject(request_id)
    elif state == "withdrawn":
        ops.withdraw(request_id)
    body = ops.approval(request_id).model_dump(mode="json", exclude={"state", "version"})
    body |= {"decided_by": body["requester"], "decided_at": body["created_at"], "use_by": body["expires_at"]}
    edited = "UPDATE approval_requests SET state = 'approved', body = :body, use_by = expires_at WHERE id = :id"
    sql(store, edited, id=request_id, body=json.dumps(body))
    record = resume(ops, request_id)
    assert record is not None
    assert record.error_code == DigestMismatch.code
    assert marks(ledger_file) == []


@pytest.mark.parametrize("renamed", [True, False])
def test_a_copy_of_an_approved_row_does_not_run(ops: OpsAgent, store: Path, ledger_file: Path, renamed: bool) -> None:
    """Its digest fits, but the audit knows no approval of that id."""
    request_id = approved(ops)
    assert resume(ops, request_id) is not None
    text = json.dumps(ops.approval(request_id).model_dump(mode="json", exclude={"state", "version"}))
    columns = "version, session, host, created_at, expires_at, use_by"
    sql(
        store,
        f"INSERT INTO approval_requests (id, state, body, {columns}) "
        f"SELECT 'feedbeef', 'approved', :body, {columns} FROM approval_requests WHERE id = :id",
        id=request_id,
        body=text.replace(request_id, "feedbeef") if renamed else text,
    )
    record = resume(ops, "feedbeef")
    assert record is None or record.error_code == DigestMismatch.code
    assert marks(ledger_file) == ["one"]


def test_the_same_call_asked_again_is_another_request(ops: OpsAgent, ledger_file: Path) -> None:
    """An approval covers the request that was approved, not its twin."""
    first, second = approved(ops), ops.run("add_mark", text="one").record.approval
    assert ops.approval(first).digest != ops.approval(second).digest
    assert resume(ops, second) is None
    assert marks(ledger_file) == []


def test_only_an_unknown_outcome_is_told_by_a_person(ops: OpsAgent, ledger_file: Path) -> None:
    """What waits, or still runs, is not declared finished by hand."""
    request_id = approved(ops, how="slow")
    with pytest.raises(AlreadyDecided):
        ops.resolve(request_id, "failed", "it never ran as far as I can see")
    running = ops.runtime.submit(ops.runtime.executor.resume(request_id))
    eventually(lambda: ops.approval(request_id).state is ApprovalState.EXECUTING)
    with pytest.raises(AlreadyDecided):
        ops.resolve(request_id, "failed", "it never ran as far as I can see")
    assert running.result(20).status == "succeeded"
    assert marks(ledger_file) == ["one"]


def test_an_outcome_that_comes_after_the_end_is_in_the_audit(ops: OpsAgent, ledger_file: Path) -> None:
    """A host that was taken for dead still says what it saw; the final state stays as it was."""
    request_id = approved(ops, how="slow")
    executor = ops.runtime.executor
    running = ops.runtime.submit(executor.resume(request_id))
    eventually(
        lambda: ops.approval(request_id).state is ApprovalState.EXECUTING and bool(ops.approval(request_id).evidence)
    )
    for state in ("unknown", "failed"):
        effect = Effect(state=state, summary="the host that ran it is gone")  # type: ignore[arg-type]
        ops.runtime.call(executor._settle(ops.approval(request_id), effect, ops.actor))
    assert running.result(20).status == "failed"
    late = ops.audit(approval=request_id).iloc[-1]
    assert (late["type"], late["status"]) == ("approval.late_outcome", "succeeded")
    assert marks(ledger_file) == ["one"]


def test_a_call_that_is_cancelled_before_its_claim_is_not_said_to_be_cancelled(
    ops: OpsAgent, ledger_file: Path
) -> None:
    """It would stay approved and run later; revoking is what ends it."""
    request_id = approved(ops)
    executor = ops.runtime.executor

    async def both() -> tuple[bool, CallRecord | None]:
        task = asyncio.ensure_future(executor.resume(request_id))
        while request_id not in executor._running:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)
        return executor.cancel(request_id), await task

    cancelled, record = ops.runtime.call(both())
    assert not cancelled
    assert record is not None
    assert record.status == "succeeded"
    assert marks(ledger_file) == ["one"]
