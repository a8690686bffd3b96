"""The progress of a runbook's run: below the cell that begins it, up to date while it goes, kept when it has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.errors import RunbookError
from opsagent_jupyter.models import now
from opsagent_jupyter.runbooks import cells
from opsagent_jupyter.runbooks.progress import Progress, spoken, told, watched
from opsagent_jupyter.vetting import StepRecord
from tests.kernels import Kernel
from tests.runbooks import Site

RUNBOOK = "a1b2c3d4e5f60718"
ADD = "%opsagent --vars run ledger.add_mark --on=books --text=blue --step={run.ref}/add-mark"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Kernel, Site]]:
    """A kernel in a place of its own, with a ledger."""
    site = Site(tmp_path, "ledger")
    code, said = site.cli("attach", "ledger", "books", "-e", "development", "--dsn", str(site.file))
    assert code == 0, said
    kernel = Kernel(site.environment)
    try:
        yield kernel, site
    finally:
        kernel.stop()


def test_the_cell_that_begins_a_run_shows_how_it_goes(running: tuple[Kernel, Site]) -> None:
    """One record that is brought up to date: nothing, waiting with the request, approved and done with who and how long."""
    kernel, site = running
    kernel.run("%load_ext opsagent_jupyter")
    begun = kernel.run(f"run = %opsagent runbook begin {RUNBOOK} --on=books --run=first\nrun")
    assert len(begun.data) == 1
    assert "oa-run" in begun.data[0]["text/html"]
    waiting = kernel.run(ADD)
    assert "⏸ add-mark" in waiting.text
    request = re.search(r"request ([0-9a-f]{8})", waiting.text)
    assert request is not None
    assert site.cli("approve", request[1])[0] == 0
    done = kernel.run(f"%opsagent --vars runbook gate {RUNBOOK}/first/add-mark --wait=60", 120)
    record = [data["text/plain"] for data in done.data if "oa-run" in data.get("text/html", "")][-1]
    assert re.search(r"✓ add-mark +succeeded · approved by \w+ after [\d.]+ s · ran [\d.]+ s", record), record
    assert "Run first: 1 step done" in record
    watched_here = kernel.run("%opsagent runbook watch --run first")
    assert "✓ add-mark" in watched_here.text
    code, said = site.cli("runbook", "watch")
    assert (code, said["run"], said["steps"][0]["state"]) == (0, "first", "succeeded")


def test_a_run_in_a_kernel_of_its_own_is_followed_below_the_cell_that_runs_it(running: tuple[Kernel, Site]) -> None:
    """First nothing was called, at the end everything is done; one record, from another process's calls."""
    kernel, site = running
    file = site.folder / "look.ipynb"
    lines = "instance = 'books'\nserver = ''\nrunbook_run = ''\nrunbook_wait = 0"
    begin = f"%load_ext opsagent_jupyter\nrun = %opsagent --vars runbook begin {RUNBOOK} --on={{instance}} --run={{runbook_run}}"
    look = "%opsagent --vars run ledger.list_marks --on={instance} --step={run.ref}/look"
    parts = [
        cells.code("parameters", lines, tags=("parameters",)),
        cells.code("begin", begin),
        cells.code("look", look, step="look", kind="call", tool="ledger.list_marks"),
    ]
    cells.write(file, cells.notebook(parts, v=1, runbook=RUNBOOK, title="Looking"))
    kernel.run("%load_ext opsagent_jupyter")
    ran = kernel.run(f"%opsagent runbook run {file} --run alone", 240)
    assert not ran.errors
    records = [data["text/plain"] for data in ran.data if "oa-run" in data.get("text/html", "")]
    assert records[0].startswith("Looking: run alone: 0 of 1 steps done")
    assert re.search(r"· look +not called yet", records[0])
    assert records[-1].startswith("Looking: run alone: 1 of 1 steps done")
    assert "✓ look" in records[-1]


def test_steps_that_were_not_called_yet_are_named(ops: OpsAgent, tmp_path: Path) -> None:
    """With the runbook's file its order and its title are known; without a run there is nothing to watch."""
    file = tmp_path / "marks.ipynb"
    calls = [cells.code(name, "…", step=name) for name in ("look", "add-mark")]
    cells.write(file, cells.notebook(calls, v=1, runbook=RUNBOOK, title="Marks"))
    with pytest.raises(RunbookError):
        watched(ops, file)
    details = {"runbook": RUNBOOK, "run": "one", "step": "look"}
    event = ops.runtime.event("call.intent", ops.actor, call="c1", status="running", details=details)
    ops.runtime.store.record(event)
    assert str(watched(ops, file)).splitlines()[0] == "Marks: run one: 0 of 2 steps done"
    assert re.search(r"▶ look +runs since", str(watched(ops, file)))
    assert re.search(r"· add-mark +not called yet", str(watched(ops, file, "one")))
    with pytest.raises(RunbookError):
        watched(ops, file, "two")


def test_a_step_is_told_without_markup() -> None:
    """What a database or a person wrote is text in the record."""
    at = now()
    step = StepRecord(
        runbook=RUNBOOK, run="one", step="add", call="c", tool="t", server="s", instance="i", risk="medium",
        state="succeeded", asked_by="a", asked_at=at, decided_by="<b>Bob</b>", decided_at=at + timedelta(seconds=75),
        began_at=at, ended_at=at + timedelta(hours=3, minutes=5), approval="0" * 32, summary="<script>x</script>\nmore",
    )  # fmt: skip
    assert told(step, at) == "succeeded · approved by <b>Bob</b> after 75 s · ran 3 h 5 min · <script>x</script>"
    page = Progress(RUNBOOK, "one", "<i>Marks</i>", ("add",), (step,))._repr_html_()
    assert "<script>" not in page
    assert "<b>Bob" not in page
    assert "<i>" not in page
    assert json.loads(step.model_dump_json())["state"] == "succeeded"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (0.25, "0.25 s"), (9.94, "9.9 s"), (119, "119 s"), (600, "10 min"), (7500, "2 h 5 min")]
)  # fmt: skip
def test_a_duration_is_spoken(seconds: float, text: str) -> None:
    """As a person says it."""
    assert spoken(timedelta(seconds=seconds)) == text
