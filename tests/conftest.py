"""Fixtures of all tests: a clean environment, a store, a small real plugin, and the servers of postgres.py and mongo.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsagent_jupyter.api import OpsAgent
from tests.ledger_plugin import plugin as ledger

#: No test, and no process that one starts, uses the OS keyring of the machine, nor one that another test has made for itself:
#: keyring takes whatever class was registered in the process when it is first asked.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

pytest_plugins = ["tests.postgres", "tests.mongo", "tests.shifts"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees a setting, a key or a store of the person who runs it."""
    for name in list(os.environ):
        if name.startswith(("OPSAGENT_", "PLUGIN_ENCRYPTION")) and not name.startswith("OPSAGENT_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """The URL of an embedded store of this test."""
    return f"sqlite:///{tmp_path / 'store' / 'opsagent.db'}"


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    """The database of the ledger plugin: a real file that effects can be counted in."""
    return tmp_path / "ledger.db"


@pytest.fixture
def ops(store_url: str, ledger_file: Path) -> Iterator[OpsAgent]:
    """An OpsAgent with one attached database of the ledger plugin."""
    with OpsAgent(store_url, lease_seconds=1.5) as agent:
        agent.runtime.plugins.add(ledger)
        agent.attach("ledger", "books", server="desk", environment="development", dsn=str(ledger_file))
        yield agent
