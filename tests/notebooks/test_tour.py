"""The tour runs without a person, tells its story, and keeps rows and secrets out of what is saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.workload import Demo
from tests.kernels import ROOT


@pytest.fixture(scope="module")
def shop() -> Iterator[Demo]:
    """The demo's shop."""
    with Demo() as demo:
        yield demo


@pytest.fixture
def executed(shop: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[nbformat.NotebookNode, str]:
    """The tour as it is saved after a run, and the password of its database."""
    monkeypatch.setenv("OPSAGENT_STORE_URL", f"sqlite:///{tmp_path / 'store' / 'opsagent.db'}")
    monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", new_key())
    monkeypatch.setenv("OPSAGENT_DEMO_DSN", shop.operator_dsn)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "01-tour.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, store_widget_state=True).execute()
    password = shop.operator_dsn.split(":")[2].split("@")[0]
    return notebook, password


def outputs(notebook: nbformat.NotebookNode) -> str:
    every = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in every)


def test_the_tour_tells_its_story(executed: tuple[nbformat.NotebookNode, str]) -> None:
    """Symptom, evidence, approval, effect and audit are all there, and the page without scripts still says them."""
    notebook, password = executed
    said = outputs(notebook)
    for word in ("orders", "Seq Scan", "approved by", "orders_customer_id", "rejected by", "verifies"):
        assert word in said, f"{word!r} is not in the tour:\n{said}"
    page, _ = HTMLExporter(exclude_input=True).from_notebook_node(notebook)
    for word in ("Create an index", "succeeded", "rejected"):
        assert word in page, word
    assert password not in nbformat.writes(notebook)


def test_the_demo_checks_itself() -> None:
    """``opsagent demo --check --json`` does the tour without a browser and exits 0."""
    done = subprocess.run(
        [sys.executable, "-m", "opsagent_jupyter.cli", "demo", "--check", "--json"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert all(step["ok"] for step in steps)
    assert sum("MongoDB" in step["name"] for step in steps) == 14
