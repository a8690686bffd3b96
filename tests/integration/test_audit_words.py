"""The words export, archive and prune do the same in a notebook's cell, in a terminal and in the API."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.commands import Door, words
from opsagent_jupyter.errors import ConfigError
from opsagent_jupyter.stores.store import open_store
from tests.audit_log import fill

ROOT = Path(__file__).parents[2]
#: All events of the log are older than this, but for those that the words themselves record.
BEFORE = "2026-11-02"


@pytest.fixture
def ops(store_url):
    with closing(open_store(store_url)) as store:
        fill(store, 30)
    with OpsAgent(store_url) as found:
        yield found


def said(ops, line):
    """What a line of words answers in a cell."""
    door = Door(lambda: ops, lambda question: question)
    return words.main(args=shlex.split(line), prog_name="%opsagent", standalone_mode=False, obj=door)


def typed(ops, *line):
    """What a line answers in a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "opsagent_jupyter.cli", *line],
        env=os.environ | {"OPSAGENT_STORE_URL": ops.settings.store_url, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_cell_exports_archives_and_prunes(ops, tmp_path):
    """Each word says what it did; afterwards frames are about what is live, and with the archives about everything."""
    old = tmp_path / "old"
    assert said(ops, f"audit export {tmp_path / 'all.csv'} --status failed").startswith("8 events are in")
    assert "has no archive" in said(ops, f"audit archive {old}")
    assert "verify: events 1 to 30" in said(ops, f"audit archive {old} --before {BEFORE}")
    assert "30 events, up to 30, were removed from the store" in said(ops, f"audit prune {old} --before {BEFORE}")
    assert said(ops, f"audit --verify --archives {old}").ok
    live, whole = said(ops, "audit"), said(ops, f"audit --archives {old}")
    assert len(whole) == len(live) + 30
    assert said(ops, f"audit --sql 'SELECT count(*) AS n FROM audit' --archives {old}").n[0] == len(whole)


def test_a_terminal_prunes_and_verifies_the_same_store(ops, tmp_path):
    """Another process prunes, and both verify archives and rest as one chain."""
    old = str(tmp_path / "old")
    code, text = typed(ops, "audit", "prune", old, "--before", BEFORE)
    assert code == 0, text
    code, text = typed(ops, "audit", "verify", "--archives", old)
    assert (code, "one chain" in text) == (0, True), text
    assert ops.verify(archives=old).ok


def test_a_prune_without_folder_or_age_says_where_they_come_from(ops, tmp_path, monkeypatch):
    """Retention can be set once; until it is, nothing is guessed."""
    with pytest.raises(ConfigError, match="folder for the archives"):
        ops.audit_prune()
    with pytest.raises(ConfigError):
        ops.audit_prune(tmp_path / "old")
    monkeypatch.setenv("OPSAGENT_AUDIT_DAYS", "3650")
    monkeypatch.setenv("OPSAGENT_AUDIT_ARCHIVES", str(tmp_path / "set"))
    with OpsAgent(ops.settings.store_url) as other:
        assert "Nothing was old enough" in str(other.audit_prune())
    assert (tmp_path / "set").is_dir()
