"""Two kernels and a command line on one store: one truth, seen everywhere at once, and one winner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.credentials import new_key
from tests.kernels import ROOT, kernel
from tests.ledger_plugin import Ledger

LOAD = """
%load_ext opsagent_jupyter
status = %opsagent
assert status.card
from tests.ledger_plugin import plugin
_ops.runtime.plugins.add(plugin)
import time
"""


@pytest.fixture
def environment(store_url: str) -> dict[str, str]:
    """One store and one key for all processes of a test."""
    return {"OPSAGENT_STORE_URL": store_url, "PLUGIN_ENCRYPTION_KEY": new_key()}


@pytest.fixture
def demo_database(database18: str) -> str:
    """A database with one table."""
    with psycopg.connect(database18, autocommit=True) as db:
        db.execute("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
    return database18


def cli(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "opsagent_jupyter.cli", "--json", *words],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_decision_on_the_command_line_is_seen_by_a_kernel_within_a_second(
    environment: dict[str, str], ledger_file: Path
) -> None:
    """The kernel's waiting call ends with the person's name in it, and the effect is there once."""
    with kernel(**environment) as one:
        assert not one.run(LOAD).errors
        one.run(f"_ops.attach('ledger', 'books', environment='development', dsn={str(ledger_file)!r})")
        said = one.run("call = _ops.run('add_mark', text='one'); print(call.record.approval)")
        request = said.text.strip()
        waiting = one.start("call.wait(30); print(call.status, time.time())")
        decided = cli(environment, "reject", request[:8], "--reason", "not while we ship")
        at = time.time()
        assert decided.returncode == 0, decided.stderr
        assert json.loads(decided.stdout)["approval"]["state"] == "rejected"
        status, seen = one.collect(waiting).text.split()
        assert status == "refused"
        assert float(seen) - at < 1.0
    assert Ledger("outside", str(ledger_file)).texts() == []


def test_two_kernels_that_race_run_an_approved_call_once(environment: dict[str, str], ledger_file: Path) -> None:
    """Twenty calls, each approved in one kernel while both may run it: twenty effects."""
    with kernel(**environment) as one, kernel(**environment) as two:
        assert not one.run(LOAD).errors
        assert not two.run(LOAD).errors
        one.run(f"_ops.attach('ledger', 'books', environment='development', dsn={str(ledger_file)!r})")
        one.run("calls = [_ops.run('add_mark', text=f'mark {n}') for n in range(20)]")
        two.run("for id in list(_ops.approvals()['id']): _ops.approve(id)")
        ended = one.run("print({call.wait(30).status for call in calls})")
        assert ended.text.strip() == "{'succeeded'}"
    assert sorted(Ledger("outside", str(ledger_file)).texts()) == sorted(f"mark {n}" for n in range(20))


def test_a_request_outlives_its_kernel_and_runs_once_in_the_next(
    environment: dict[str, str], ledger_file: Path
) -> None:
    """Killed while it is pending; a new kernel approves it and runs it."""
    with kernel(**environment) as first:
        assert not first.run(LOAD).errors
        first.run(f"_ops.attach('ledger', 'books', environment='development', dsn={str(ledger_file)!r})")
        request = first.run("print(_ops.run('add_mark', text='one').record.approval)").text.strip()
        first.kill()
    with kernel(**environment) as second:
        assert not second.run(LOAD).errors
        ran = second.run(f"%opsagent approve {request[:8]} --wait 30")
        assert not ran.errors
        assert "succeeded" in ran.text or "is there" in ran.text
    assert Ledger("outside", str(ledger_file)).texts() == ["one"]


def test_the_command_line_runs_what_it_approves_when_nobody_else_is_there(
    environment: dict[str, str], demo_database: str
) -> None:
    """No kernel, no worker: the approving command runs the call to its end and says how it ended."""
    attached = cli({**environment, "DSN": demo_database}, "attach", "postgresql", "db", "--dsn-env", "DSN")
    assert attached.returncode == 0, attached.stdout + attached.stderr
    asked = cli(environment, "run", "analyze_table", "--table", "t")
    assert asked.returncode == 3, asked.stdout + asked.stderr
    request = json.loads(asked.stdout)["request"]
    approved = cli(environment, "approve", request[:8])
    assert approved.returncode == 0, approved.stdout + approved.stderr
    assert json.loads(approved.stdout)["approval"]["state"] == "succeeded"


def test_an_interrupted_wait_leaves_the_request_as_it_is(environment: dict[str, str], ledger_file: Path) -> None:
    """The stop button ends the cell; the request still waits and can be approved."""
    with kernel(**environment) as one:
        assert not one.run(LOAD).errors
        one.run(f"_ops.attach('ledger', 'books', environment='development', dsn={str(ledger_file)!r})")
        cell = one.start("call = _ops.run('add_mark', text='one')\ncall.wait(60)")
        time.sleep(1.5)
        one.interrupt()
        ran = one.collect(cell)
        assert any("KeyboardInterrupt" in error for error in ran.errors)
        assert one.run("print(call.status)").text.strip() == "waiting"
        one.run("_ops.approve(call.record.approval)")
        assert one.run("print(call.wait(20).status)").text.strip() == "succeeded"
    assert Ledger("outside", str(ledger_file)).texts() == ["one"]


def test_an_interrupted_read_is_cancelled_and_the_kernel_goes_on(
    environment: dict[str, str], ledger_file: Path
) -> None:
    """The audit says cancelled, and the next call works."""
    with kernel(**environment) as one:
        assert not one.run(LOAD).errors
        one.run(f"_ops.attach('ledger', 'books', environment='development', dsn={str(ledger_file)!r})")
        cell = one.start("_ops.run('list_marks', delay=20)")
        time.sleep(1.5)
        one.interrupt()
        assert one.collect(cell, timeout=10).errors
        assert one.run("print(_ops.run('list_marks').status)").text.strip() == "succeeded"
    with OpsAgent(environment["OPSAGENT_STORE_URL"]) as ops:
        assert "cancelled" in set(ops.audit()["status"])


def test_the_command_line_says_what_waits_by_its_exit_code(environment: dict[str, str]) -> None:
    """Wrong words are 2, an unknown request is 1 with a hint."""
    assert cli(environment, "aprove", "1234").returncode == 2
    unknown = cli(environment, "approve", "0000")
    assert unknown.returncode == 1
    assert json.loads(unknown.stdout)["error"]["code"] == "approval.unknown"
