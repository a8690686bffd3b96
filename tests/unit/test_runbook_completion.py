"""Completion below ``%opsagent runbook``: its words, files, parameters, databases, signatures and options."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.notebook.completion import completions
from opsagent_jupyter.runbooks import cells
from opsagent_jupyter.testing.store_samples import event, vetting


def test_each_word_offers_what_it_takes(ops: OpsAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where a file stands, then the parameters of that file, the databases, and what can be taken back."""
    tmp_path = tmp_path / "books"
    tmp_path.mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nightly").mkdir()
    parameters = cells.code("parameters", "instance = 'books'\ntext = 'blue'", tags=("parameters",))
    cells.write(tmp_path / "marks.ipynb", cells.notebook([parameters], v=1, runbook="r1"))
    (tmp_path / "nightly" / "red.ipynb").write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    made = vetting()
    ops.runtime.store.add_vetting(made, event("runbook.signed"))
    words = completions(ops, "%opsagent runbook ")
    assert {"export", "run", "status", "watch", "sign", "revoke", "verify"} <= set(words)
    for word in ("run", "sign", "verify", "status", "watch"):
        assert completions(ops, f"%opsagent runbook {word} ") == ["marks.ipynb", "nightly"]
    assert completions(ops, "%opsagent runbook run nightly/") == ["nightly/red.ipynb"]
    assert completions(ops, "%opsagent runbook run marks.ipynb -p ") == ["instance=", "text="]
    assert completions(ops, "%opsagent runbook sign marks.ipynb --bound ") == ["instance=", "text="]
    assert completions(ops, "%opsagent runbook sign marks.ipynb --on ") == ["books"]
    assert completions(ops, "%opsagent runbook run marks.ipynb --server ") == ["desk"]
    assert completions(ops, "%opsagent runbook revoke ") == [made.id[:8]]
    assert {"--bound", "--days", "--reason"} <= set(completions(ops, "%opsagent runbook sign marks.ipynb --"))
    assert {"--parameter", "--again", "--wait"} <= set(completions(ops, "%opsagent runbook run marks.ipynb --"))


@pytest.mark.parametrize("line", ["nope ", "run nope.ipynb -p ", "run /nowhere/", "sign --on ", "revoke x y ", "run "])
def test_there_is_less_to_offer_and_never_an_error(ops: OpsAgent, line: str) -> None:
    """For words, files and folders that do not exist, and without an OpsAgent."""
    for started in (None, ops):
        assert isinstance(completions(started, f"%opsagent runbook {line}"), list)
