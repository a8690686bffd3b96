"""A notebook of the product, run from top to bottom by a kernel, and the page that it becomes when no script may run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.executor import told
from opsagent_jupyter.lifecycle import ApprovalState
from tests.kernels import ROOT

FOLDER = ROOT / "notebooks"
#: Seconds that a cell may take: much more than it does, on a machine that does other things as well.
PATIENCE = 240
SCRIPT = re.compile(r"<script\b.*?</script\s*>", re.DOTALL | re.IGNORECASE)
CARD = re.compile(r"Approval request ([0-9a-f]{8}) ")
#: What a page shows that was saved too early, or that needs a script.
UNFINISHED = ("running when this was saved", "Loading widget", "Error displaying widget")


class Text(HTMLParser):
    """The text that a reader sees, words parted by single spaces."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._parts: list[str] = []
        self._hidden = False
        self.feed(page)

    def __str__(self) -> str:
        return " ".join(" ".join(self._parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # the base class's
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # the base class's
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data)


@dataclass(frozen=True)
class Executed:
    """A notebook after its run, as it is saved."""

    notebook: nbformat.NotebookNode
    store_url: str

    @property
    def saved(self) -> str:
        """The file's text."""
        return str(nbformat.writes(self.notebook))

    @cached_property
    def said(self) -> str:
        """What its cells said, as text."""
        every = [output for cell in self.notebook.cells for output in cell.get("outputs", [])]
        return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in every)

    @cached_property
    def page(self) -> str:
        """The outputs as HTML, every script taken out."""
        page, _ = HTMLExporter(exclude_input=True).from_notebook_node(self.notebook)
        return SCRIPT.sub("", page)

    @cached_property
    def read(self) -> str:
        """What a reader of that page sees."""
        return str(Text(self.page))

    def errors(self) -> list[str]:
        """What went wrong without ending its cell: an output that could not be shown, for example."""
        every = [output for cell in self.notebook.cells for output in cell.get("outputs", [])]
        return [f"{output.ename}: {output.evalue}" for output in every if output.output_type == "error"]

    def images(self) -> int:
        """How many pictures are in the page itself."""
        return self.page.count('src="data:image/png;base64,')


def executed(name: str, folder: Path, **environment: str) -> Executed:
    """Run a notebook in a kernel with a store of its own; an error in a cell is raised."""
    store_url = f"sqlite:///{folder / 'store' / 'opsagent.db'}"
    given = {
        "OPSAGENT_STORE_URL": store_url,
        "PLUGIN_ENCRYPTION_KEY": new_key(),
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **environment,
    }
    notebook = nbformat.read(FOLDER / name, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=PATIENCE, store_widget_state=True, resources=resources).execute(
        env={**os.environ, **given}
    )
    done = Executed(notebook, store_url)
    assert done.errors() == []
    return done


def require_outcomes(done: Executed, *states: str) -> None:
    """Every card on the page says how its request ended, there are requests that ended in each of these states, and
    nothing on it waits for a script."""
    with OpsAgent(done.store_url, executes=False) as ops:
        asked = ops.runtime.store.approvals(limit=1000)
    ended = {approval.id[:8]: " ".join(told(approval).split()) for approval in asked}
    cards = set(CARD.findall(done.read))
    assert cards, "there is no card on the page"
    for card in cards:
        assert ended[card] in done.read, f"the card {card} does not say {ended[card]!r}"
    assert {ApprovalState(state) for state in states} <= {approval.state for approval in asked}
    for word in UNFINISHED:
        assert word not in done.read, word
    require_alone(done.page)


def require_alone(page: str) -> None:
    """A page that needs no script and asks no other host for anything."""
    assert "<script" not in page.lower()
    assert not re.search(
        r"""<(?:img|iframe|object|embed|link|source)\b[^>]*\b(?:src|href|data)=["']?(?:https?:)?//""", page
    )
    assert not re.search(r"""<[^>]+\son[a-z]+\s*=""", page)
