"""The evidence of a runbook: what it proves, and that no edit of it passes."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.audit import chain
from opsagent_jupyter.errors import EvidenceTampered, RunbookError, StepFailed, StepRefused, StepWaiting
from opsagent_jupyter.runbooks import cells, evidence
from opsagent_jupyter.runbooks.steps import Place, run_step
from tests.ledger_plugin import Ledger
from tests.ledger_plugin import plugin as ledger

RUNBOOK, RUN = "a1b2c3d4e5f60718", "first"
EDITS = 200


def made(*steps: str) -> cells.Notebook:
    """A runbook with a cell a step."""
    calls = [
        cells.code(step, f"%opsagent --vars run … --step={{run.ref}}/{step}", step=step, kind="call") for step in steps
    ]
    return cells.notebook([cells.markdown("title", "# Marks"), *calls], v=1, runbook=RUNBOOK, title="Marks", run=RUN)


def stepped(ops: OpsAgent, step: str, *, again: bool = False, run: str = RUN, **arguments: Any) -> Any:
    tool = ledger.toolbox.tools["add_mark" if arguments else "list_marks"]
    return run_step(ops, tool, "books", Place(RUNBOOK, run, step), arguments, again=again)


def approved(ops: OpsAgent, step: str, **arguments: Any) -> None:
    """A step that a person approved, at its end."""
    call = stepped(ops, step, **arguments)
    ops.approve(call.approval.id)
    assert call.wait(30).status == "succeeded"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[cells.Notebook, dict[str, Any]]:
    """An executed runbook with its evidence, and a checkpoint that was taken right after."""
    folder = tmp_path_factory.mktemp("evidence")
    with OpsAgent(f"sqlite:///{folder / 'store' / 'opsagent.db'}") as ops:
        ops.runtime.plugins.add(ledger)
        ops.attach("ledger", "books", server="desk", environment="development", dsn=str(folder / "ledger.db"))
        stepped(ops, "look")
        approved(ops, "blue", text="blue")
        ops.run("list_marks", "books")  # somebody else's
        approved(ops, "red", text="red")
        book = made("look", "blue", "red", "later")
        evidence.seal(ops, book, RUN)
        head = ops.reader.checkpoint()
    return book, {"count": head["count"], "head": head["head"]}


def test_evidence_says_what_is_proven_and_what_is_not(sealed: tuple[cells.Notebook, dict[str, Any]]) -> None:
    """Each step with who approved it, the step that did not run, and the limits of the proof."""
    book, checkpoint = sealed
    proof = evidence.verify(json.loads(json.dumps(book)))
    told = dict(proof.proven)
    assert list(told) == ["look", "blue", "red"]
    assert "needed no approval" in told["look"]
    assert "ran as approved" in told["blue"]
    assert proof.missing == ("later",)
    assert "made all of them anew" in str(proof)
    anchored = str(evidence.verify(book, checkpoint))
    assert "made all of them anew" not in anchored
    assert "outputs" in anchored


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every single value in a JSON value."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))
    else:
        yield path


def edited(value: Any, rng: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + rng.choice([-1, 1, 7])
    if not value:
        return "x"
    place = rng.randrange(len(value))
    return value[:place] + chr((ord(value[place]) - 31) % 90 + 33) + value[place + 1 :]


def tampered(book: cells.Notebook, number: int) -> cells.Notebook:
    """The notebook with one thing changed, taken away, doubled or moved, by the number of the edit."""
    rng, other = random.Random(number), copy.deepcopy(book)
    held = [cell["metadata"]["opsagent"]["receipt"] for _, cell in cells.steps(other) if "receipt" in cells.ours(cell)]
    rows = other["metadata"]["opsagent"]["evidence"]["rows"]
    kind = number % 10
    if kind == 0:
        rows.pop(rng.randrange(len(rows)))
    elif kind == 1:
        rows.insert(rng.randrange(len(rows)), rng.choice(rows))
    elif kind == 2:
        cell = rng.choice([cell for _, cell in cells.steps(other) if "receipt" in cells.ours(cell)])
        cell["metadata"]["opsagent"].pop(rng.choice(["receipt", "kind"]))
    elif kind == 3:
        one, two = rng.sample(held, 2)
        name = rng.choice([name for name in one if one[name] != two[name]])
        one[name] = two[name]
    elif kind == 4:
        cell = rng.choice(other["cells"])
        cell["source"] += rng.choice([" ", "\n", "x"])
    elif kind == 5:
        other["cells"].insert(rng.randrange(len(other["cells"])), cells.code(f"new-{number}", "%opsagent audit"))
    else:
        kept = [other["metadata"]["opsagent"]["evidence"], *held]
        thing = rng.choice(kept)
        path = rng.choice([*places(thing)])
        for key in path[:-1]:
            thing = thing[key]
        thing[path[-1]] = edited(thing[path[-1]], rng)
    assert other != book
    return other


@pytest.mark.parametrize("start", range(0, EDITS, 20))
def test_no_edit_of_the_evidence_passes(sealed: tuple[cells.Notebook, dict[str, Any]], start: int) -> None:
    """Two hundred edits of rows, receipts and cells: each is refused."""
    for number in range(start, start + 20):
        with pytest.raises(EvidenceTampered):
            evidence.verify(tampered(sealed[0], number))


EDITED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "outcome": lambda receipt: receipt.update(outcome="failed"),
    "approver": lambda receipt: receipt.update(approved_by="os:mallory"),
    "digest": lambda receipt: receipt.update(digest="0" * 64),
    "statement": lambda receipt: receipt.update(bound=receipt["bound"].replace("INSERT", "DELETE")),
    "row": lambda receipt: receipt["audit"].pop(1),
    "key": lambda receipt: receipt.update(key="0" * 64),
}


@pytest.mark.parametrize("what", EDITED)
def test_the_first_bad_step_is_named(sealed: tuple[cells.Notebook, dict[str, Any]], what: str) -> None:
    """An edit of a receipt is refused with the step's name, even when the seal is made anew after it."""
    book = copy.deepcopy(sealed[0])
    receipt = next(cells.ours(cell)["receipt"] for _, cell in cells.steps(book) if cells.ours(cell)["step"] == "red")
    EDITED[what](receipt)
    kept = book["metadata"]["opsagent"]["evidence"]
    kept["seal"] = evidence._seal(book, kept)
    with pytest.raises(EvidenceTampered) as refused:
        evidence.verify(book)
    assert refused.value.step == "red"  # type: ignore[attr-defined]


def test_a_log_that_was_rewritten_whole_is_refused_by_a_checkpoint(
    sealed: tuple[cells.Notebook, dict[str, Any]],
) -> None:
    """Another approver, with every hash, receipt and seal made anew: only what was kept elsewhere tells."""
    book, checkpoint = copy.deepcopy(sealed[0]), sealed[1]
    kept, before = book["metadata"]["opsagent"]["evidence"], ""
    anew = {}
    for row in kept["rows"]:
        body = row[2].replace('"name":"', '"name":"Dr ')
        row[2], row[3] = body, before or row[3]
        anew[row[0]] = row[4] = before = chain.link(row[3], body)
    for _, cell in cells.steps(book):
        if "receipt" in cells.ours(cell):
            cells.ours(cell)["receipt"]["audit"] = [[seq, anew[seq]] for seq, _ in cells.ours(cell)["receipt"]["audit"]]
    kept["seal"] = evidence._seal(book, kept)
    assert "made all of them anew" in str(evidence.verify(book))
    with pytest.raises(EvidenceTampered, match="checkpoint"):
        evidence.verify(book, checkpoint)


def test_a_receipt_under_a_cell_that_says_something_else_is_refused(ops: OpsAgent) -> None:
    """The metadata names one step, the cell that a person reads runs another."""
    approved(ops, "blue", text="blue")
    book = made("blue")
    book["cells"][1]["source"] = book["cells"][1]["source"].replace("/blue", "/red")
    evidence.seal(ops, book, RUN)
    with pytest.raises(EvidenceTampered, match="another step"):
        evidence.verify(book)


def test_a_notebook_without_evidence_is_no_proof() -> None:
    """It says how evidence is made."""
    with pytest.raises(RunbookError, match="no evidence"):
        evidence.verify(made("look"))


# -- steps ------------------------------------------------------------------------------------------------------------


def test_a_step_that_took_effect_is_not_repeated(ops: OpsAgent, ledger_file: Path) -> None:
    """The same step of the same run shows what became of it; --again asks anew, and only a yes runs it again."""
    approved(ops, "blue", text="blue")
    for _ in range(5):
        assert stepped(ops, "blue", text="blue").status == "succeeded"
    assert Ledger("outside", str(ledger_file)).texts() == ["blue"]
    call = stepped(ops, "blue", again=True, text="blue")
    assert call.status == "waiting"
    assert stepped(ops, "blue", text="blue").approval.id == call.approval.id
    ops.approve(call.approval.id)
    assert call.wait(30).status == "succeeded"
    assert Ledger("outside", str(ledger_file)).texts() == ["blue", "blue"]


def test_a_step_that_many_run_at_once_is_asked_for_once(ops: OpsAgent, ledger_file: Path) -> None:
    """Eight at a time make one request and one effect, and the evidence of it verifies."""
    with ThreadPoolExecutor(8) as pool:
        asked = [*pool.map(lambda _: stepped(ops, "blue", text="blue"), range(8))]
    assert len({call.approval.id for call in asked}) == 1
    ops.approve(asked[0].approval.id)
    assert {call.wait(30).status for call in asked} == {"succeeded"}
    assert Ledger("outside", str(ledger_file)).texts() == ["blue"]
    book = made("blue")
    evidence.seal(ops, book, RUN)
    assert "ran as approved" in dict(evidence.verify(book).proven)["blue"]


def test_another_run_other_arguments_and_another_step_are_asked_for(ops: OpsAgent) -> None:
    """Each makes a request of its own; the same one does not."""
    asked = [
        stepped(ops, "blue", text="blue"),
        stepped(ops, "blue", text="blue"),
        stepped(ops, "blue", text="green"),
        stepped(ops, "blue-2", text="blue"),
        stepped(ops, "blue", run="second", text="blue"),
    ]
    assert len({call.approval.id for call in asked}) == 4


def test_a_step_that_was_rejected_stays_refused(ops: OpsAgent, ledger_file: Path) -> None:
    """Running the cell again does not ask a person who said no; --again does."""
    ops.reject(stepped(ops, "blue", text="blue").approval.id, "not today, we ship")
    for _ in range(2):
        with pytest.raises(StepRefused, match="rejected"):
            stepped(ops, "blue", text="blue")
    assert stepped(ops, "blue", again=True, text="blue").status == "waiting"
    assert Ledger("outside", str(ledger_file)).texts() == []


def test_a_step_that_failed_is_asked_for_anew(ops: OpsAgent) -> None:
    """Nothing took effect, so the next time is a new request, with a new approval."""
    call = stepped(ops, "blue", text="blue", how="fail")
    ops.approve(call.approval.id)
    assert call.wait(30).status == "failed"
    second = stepped(ops, "blue", text="blue", how="fail")
    assert (second.status, second.approval.id == call.approval.id) == ("waiting", False)


def test_a_step_with_an_unknown_outcome_is_never_repeated(ops: OpsAgent) -> None:
    """Not by its cell, and not by --again, before somebody has found out."""
    call = stepped(ops, "blue", text="blue", how="vanish")
    ops.approve(call.approval.id)
    limit = time.monotonic() + 30
    while call.status != "unknown" and time.monotonic() < limit:
        time.sleep(0.05)
    with pytest.raises(RunbookError, match="not known"):
        stepped(ops, "blue", text="blue", how="vanish")
    with pytest.raises(StepWaiting, match="unknown"):
        stepped(ops, "blue", again=True, text="blue", how="vanish")


def test_a_read_that_cannot_be_done_stops_the_runbook(ops: OpsAgent) -> None:
    """An argument that does not exist is refused, audited, and an error."""
    tool = ledger.toolbox.tools["list_marks"]
    with pytest.raises((StepRefused, StepFailed)):
        run_step(ops, tool, "books", Place(RUNBOOK, RUN, "look"), {"nonsense": 1}, again=False)
    assert "refused" in set(ops.audit()["status"])
