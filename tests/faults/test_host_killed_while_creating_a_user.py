"""kill -9 of the host that creates a role: the role with a password that can be shown, or neither."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.errors import SecretMissing
from tests.faults.creating_child import POINTS, create
from tests.integration.postgresql_stage import execute, value

#: Points after which the role is there.
DONE = {"after commit", "before outcome"}


@pytest.mark.parametrize("point", POINTS)
def test_a_role_and_its_password_come_together_or_not_at_all(
    point: str, database18: str, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host finds out by the transaction's number, tells the truth, and shows the password where there is a role."""
    name, key = f"killed_{POINTS.index(point)}", new_key()
    monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", key)
    request = killed(store_url, key, database18, name, point)
    with OpsAgent(store_url, kind="worker", lease_seconds=0.5) as ops:
        ended = settled(ops, request)
        there = value(database18, "SELECT count(*) FROM pg_roles WHERE rolname = %s", (name,)) == 1
        assert there is (point in DONE)
        assert ended == ("succeeded" if there else "failed")
        if there:
            assert_logs_in(database18, name, ops.reveal(request).show())
            execute(database18, f"DROP ROLE {name}")
        else:
            with pytest.raises(SecretMissing):
                ops.reveal(request)
        assert ops.runtime.store.one_time_secrets() == {}
        assert ops.verify().ok


def killed(store_url: str, key: str, dsn: str, name: str, point: str) -> str:
    """The approved request for a role whose host was killed at that point."""
    with OpsAgent(store_url, executes=False) as ops:
        ops.attach("postgresql", "shop", environment="development", dsn=dsn)
        request = ops.run("create_user", name=name).record.approval
        ops.approve(request)
    child = multiprocessing.get_context("spawn").Process(target=create, args=(store_url, key, point))
    child.start()
    child.join(60)
    assert child.exitcode == -9
    return request


def settled(ops: OpsAgent, request: str) -> str:
    limit = time.monotonic() + 30
    while (state := str(ops.approval(request).state)) in ("approved", "executing", "unknown"):
        assert time.monotonic() < limit, f"it is still {state}"
        time.sleep(0.1)
    return state


def assert_logs_in(dsn: str, name: str, password: str) -> None:
    with psycopg.connect(make_conninfo(dsn, user=name, password=password)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (name,)


def test_the_files_of_a_killed_host_hold_no_password(
    database18: str, store_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it had made, and what it had written until it died."""
    key = new_key()
    monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", key)
    request = killed(store_url, key, database18, "killed_last", "after commit")
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with OpsAgent(store_url, kind="worker", lease_seconds=0.5) as ops:
        assert settled(ops, request) == "succeeded"
        password = ops.reveal(request).show().encode()
    execute(database18, "DROP ROLE killed_last")
    assert written
    assert [path for path, content in written.items() if password in content] == []
