"""How a run of a runbook goes, step by step: who decided, how long it took, what is still to come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.cards import Card
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import RunbookError
from opsagent_jupyter.models import now
from opsagent_jupyter.runbooks.cells import Notebook, ours, read, steps
from opsagent_jupyter.vetting import StepRecord

#: A mark and a word for each state that is not its own word.
MARKS = {
    "succeeded": "✓",
    "failed": "✗",
    "unknown": "?",
    "refused": "✗",
    "rejected": "✗",
    "pending": "⏸",
    "approved": "▶",
    "executing": "▶",
    "running": "▶",
    "planning": "▶",
}


@dataclass(frozen=True, repr=False)
class Progress(Card):
    """A run as it stood when this was made."""

    runbook: str
    run: str
    title: str = ""
    names: tuple[str, ...] = ()
    """The steps of the runbook in order, where its file is known."""
    steps: tuple[StepRecord, ...] = ()
    """The newest call of each step that was called."""

    def again(self, store: Store) -> Progress:
        """The same run as it stands now."""
        newest = {step.step: step for step in store.runbook_steps(self.runbook, self.run)}
        known = [newest.pop(name) for name in self.names if name in newest]
        return replace(self, steps=(*known, *newest.values()))

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """A row a step; those that were not called yet at the end."""
        at = now()
        rows = [(f"{MARKS.get(step.state, '✗')} {step.step}", told(step, at)) for step in self.steps]
        missing = [name for name in self.names if name not in {step.step for step in self.steps}]
        done = sum(step.state == "succeeded" for step in self.steps)
        of = f" of {len(self.names)}" if self.names else ""
        named = f"{self.title}: run {self.run}" if self.title else f"Run {self.run}"
        return f"{named}: {done}{of} {'step' if done == 1 and not of else 'steps'} done", [
            *rows,
            *(("· " + name, "not called yet") for name in missing),
        ]


def told(step: StepRecord, at: datetime) -> str:
    """One step in words: where it stands, who decided and after how long, and how long it ran."""
    summary = step.summary.partition("\n")[0][:200]
    parts = [_stand(step, at), _decision(step), _duration(step), summary]
    return " · ".join(part for part in parts if part)


def _stand(step: StepRecord, at: datetime) -> str:
    if step.state == "pending":
        return f"waits for a decision since {spoken(at - step.asked_at)} (request {step.approval[:8]})"
    if step.state in ("executing", "running"):
        return f"runs since {spoken(at - (step.began_at or step.asked_at))}"
    return "approved, not started yet" if step.state == "approved" else step.state


def _decision(step: StepRecord) -> str:
    if not step.decided_by or step.decided_at is None:
        return "" if step.approval or step.state != "succeeded" else "needed no approval"
    if step.vetting:
        return f"pre-approved by {step.decided_by} (signature {step.vetting[:8]})"
    verb = "rejected" if step.state == "rejected" else "approved"
    return f"{verb} by {step.decided_by} after {spoken(step.decided_at - step.asked_at)}"


def _duration(step: StepRecord) -> str:
    if step.began_at is None or step.ended_at is None:
        return ""
    return f"ran {spoken(step.ended_at - step.began_at)}"


def spoken(span: timedelta) -> str:
    """A duration as a person says it."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def watched(ops: OpsAgent, file: Path | None = None, run: str = "") -> Progress:
    """A run of the runbook in a file, or of any: the named one, or the newest; ``RunbookError`` when there is none."""
    book = read(file) if file else None
    runbook = str(ours(book)["runbook"]) if book else ""
    found = ops.runtime.store.runbook_steps(runbook, run or str(ours(book).get("run", "") if book else ""), limit=1)
    found = found or ([] if run else ops.runtime.store.runbook_steps(runbook, limit=1))
    if not found:
        raise RunbookError("This store knows no such run.", hint="`opsagent runbook status` lists the runs.")
    return of_book(book, found[-1].runbook, found[-1].run).again(ops.runtime.store)


def of_book(book: Notebook | None, runbook: str, run: str) -> Progress:
    """A run of which nothing was read yet, with what its notebook says when there is one."""
    names = tuple(str(ours(cell)["step"]) for _, cell in steps(book)) if book else ()
    return Progress(runbook, run, str(ours(book).get("title", "")) if book else "", names)
