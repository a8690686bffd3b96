"""The notebook on MongoDB runs without a person, tells its story, and keeps documents and secrets out of what is saved."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.storefront import MongoDemo
from tests.kernels import ROOT


def outputs(notebook: nbformat.NotebookNode) -> str:
    every = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in every)


def test_the_storefront_is_diagnosed_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Symptom, evidence, approval, effect and audit are all there, and the page without scripts still says them."""
    with MongoDemo() as demo:
        monkeypatch.setenv("OPSAGENT_STORE_URL", f"sqlite:///{tmp_path / 'store' / 'opsagent.db'}")
        monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", new_key())
        monkeypatch.setenv("OPSAGENT_DEMO_MONGODB_URI", demo.operator_uri)
        password = str(urlsplit(demo.operator_uri).password)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        notebook = nbformat.read(ROOT / "notebooks" / "02-mongodb.ipynb", as_version=4)
        NotebookClient(notebook, timeout=120, store_widget_state=True).execute()
    said = outputs(notebook)
    for word in (
        "member_unreachable", "missing_ttl", "COLLSCAN", "IXSCAN", "approved by", "is hidden", "unreachable", "verifies",
    ):  # fmt: skip
        assert word in said, f"{word!r} is not in the notebook:\n{said}"
    assert "running when this was saved" not in said
    page, _ = HTMLExporter(exclude_input=True).from_notebook_node(notebook)
    for word in ("Create an index", "Hide index", "approved by"):
        assert word in page, word
    saved = nbformat.writes(notebook)
    assert password not in saved
    assert "Harbour Street" not in saved
