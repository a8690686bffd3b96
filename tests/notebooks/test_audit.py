"""The notebook on the audit runs without a person, answers its questions, and keeps rows and secrets out of what is saved."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.workload import Demo
from tests.kernels import ROOT


def outputs(notebook: nbformat.NotebookNode) -> str:
    every = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in every)


def test_the_audit_answers_the_usual_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions, failures, changes and refusals of calls just made are in its tables; the log and its export verify."""
    with Demo() as demo:
        monkeypatch.setenv("OPSAGENT_STORE_URL", f"sqlite:///{tmp_path / 'store' / 'opsagent.db'}")
        monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", new_key())
        monkeypatch.setenv("OPSAGENT_DEMO_DSN", demo.operator_dsn)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        notebook = nbformat.read(ROOT / "notebooks" / "03-audit.ipynb", as_version=4)
        NotebookClient(notebook, timeout=120, store_widget_state=True).execute()
        password = demo.operator_dsn.split(":")[2].split("@")[0]
    said = outputs(notebook)
    for word in (
        "first look at the replicas", "the orders page reads", "rejected", "unknown outcome", "verifies", "0 broken links",
    ):  # fmt: skip
        assert word in said, f"{word!r} is not in the notebook:\n{said}"
    page, _ = HTMLExporter(exclude_input=True).from_notebook_node(notebook)
    for word in ("postgresql.create_index", "postgresql.explain_query", "linear-gradient"):
        assert word in page, word
    assert password not in nbformat.writes(notebook)
