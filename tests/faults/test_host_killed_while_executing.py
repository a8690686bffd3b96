"""kill -9 of the executing host, at every point of a call, many times, on both stores."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.credentials import new_key
from tests.faults.executing_child import POINTS, execute
from tests.ledger_plugin import Ledger, plugin

KILLS = 200
BATCH = 20


def test_nothing_runs_twice_and_nothing_that_ran_is_called_failed(
    shared_store: str, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each approved call has at most one effect, its final state tells the truth, and the audit verifies."""
    key = new_key()
    monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", key)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.executing_child"])
    dice = random.Random(20261123)
    requests: dict[str, str] = {}
    with OpsAgent(shared_store, executes=False) as ops:
        ops.runtime.plugins.add(plugin)
        ops.attach("ledger", "books", environment="development", dsn=str(ledger_file))
        for number in range(KILLS):
            point = POINTS[number % len(POINTS)]
            call = ops.run("add_mark", text=f"mark {number}")
            ops.approve(call.record.approval)
            requests[call.record.approval] = f"mark {number}"
            child = context.Process(target=execute, args=(shared_store, key, point, dice.uniform(0.01, 0.12)))
            child.start()
            child.join(60)
            assert child.exitcode == -9, f"the host did not die at {point}"
            if number % BATCH == BATCH - 1:
                recover(shared_store)
        states = {request: str(ops.approval(request).state) for request in requests}
        verification = ops.verify()
    effects = Counter(Ledger("outside", str(ledger_file)).texts())
    assert max(effects.values()) == 1
    told = {requests[request]: state for request, state in states.items()}
    assert {text for text, state in told.items() if state == "succeeded"} == set(effects)
    assert {state for text, state in told.items() if text not in effects} <= {"failed"}
    assert verification.ok, verification


def recover(store_url: str) -> None:
    """Another host comes: it takes what is approved, and finds out about what is unknown."""
    with OpsAgent(store_url, kind="worker", lease_seconds=0.5) as ops:
        ops.runtime.plugins.add(plugin)
        for _ in range(200):
            frame = ops.approvals()
            if not len(frame):
                return
            time.sleep(0.1)
        raise AssertionError(f"not recovered: {frame[['state', 'outcome']].to_dict('records')}")
