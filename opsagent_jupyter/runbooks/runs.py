"""Runs of a runbook: begun by a cell, run without a person to a defined end, and what became of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from opsagent_jupyter.api import OpsAgent, frame
from opsagent_jupyter.cards import ApprovalCard, Card
from opsagent_jupyter.errors import ConfigError, MissingExtra, RunbookError, VettingUnknown, VettingVoid
from opsagent_jupyter.models import new_id, now
from opsagent_jupyter.redaction import Redactor
from opsagent_jupyter.runbooks import evidence, parameters, signing
from opsagent_jupyter.runbooks.cells import Cell, Notebook, ours, read, source, steps, write
from opsagent_jupyter.runbooks.progress import Progress, of_book
from opsagent_jupyter.runbooks.steps import Place, gate, known, name_vetting, run_name
from opsagent_jupyter.vetting import StepRecord

if TYPE_CHECKING:
    import pandas as pd

State = Literal["done", "waiting", "refused", "failed", "unknown"]
#: What a command line exits with; 2 is wrong usage and 5 an unusable store, as for every command.
EXIT_CODES: dict[State, int] = {"done": 0, "failed": 1, "waiting": 3, "unknown": 4, "refused": 6}
#: How the errors that stop a runbook are called, as a kernel reports them.
_STOPS: dict[str, State] = {"StepWaiting": "waiting", "StepRefused": "refused", "StepUnknown": "unknown"}
#: Seconds that one cell may take beside what its gate waits for: a run must end.
CELL_SECONDS = 900.0
#: Seconds that a kernel may take to start.
KERNEL_SECONDS = 180


@dataclass(frozen=True, repr=False)
class Begun(Card):
    """A run of a runbook in this kernel. ``ref`` is what the steps are told by."""

    runbook: str
    run: str
    on: str
    server: str
    signature: str = ""

    @property
    def ref(self) -> str:
        """``runbook/run``."""
        return f"{self.runbook}/{self.run}"

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """What is run, and where."""
        return "Runbook", [
            ("Runbook", self.runbook),
            ("Run", f"{self.run}: what took effect in it is not repeated"),
            ("Database", f"{self.on} on {self.server}"),
            ("Signature", self.signature),
        ]


def begin(
    ops: OpsAgent, runbook: str, on: str, server: str, run: str, given: Mapping[str, str], vetting: str = ""
) -> Begun:
    """Name the run that the cells below belong to. Without a name the same parameters are the same run."""
    for name, value in given.items():
        if name.startswith(parameters.SECRET):
            ops.runtime.redactor.add(value)
    plain = {name: value for name, value in given.items() if not name.startswith(parameters.SECRET)}
    chosen = run or run_name({"instance": on, "server": server, **plain})
    Place.parse(f"{runbook}/{chosen}/step")
    instance = ops.runtime.store.instance(on)
    if server and instance.server != server:
        raise ConfigError(
            f"{on} belongs to the server {instance.server}, not to {server}.",
            hint="Correct the parameters instance and server.",
        )
    signed = _signature(ops, runbook, chosen, vetting)
    return Begun(runbook, chosen, instance.name, instance.server, signed)


def _signature(ops: OpsAgent, runbook: str, run: str, vetting: str) -> str:
    """Remember the signature that the run names, and say what it is good for as far as is known now."""
    name_vetting(ops, runbook, run, vetting)
    if not vetting:
        return ""
    try:
        signed = ops.runtime.store.vetting(vetting)
        signed.require_alive(now())
    except (VettingUnknown, VettingVoid) as error:
        return f"{vetting[:8]} lets nothing pass ({error.message.rstrip('.')}); every step that changes something asks"
    name_vetting(ops, runbook, run, signed.id)
    until = f"{signed.expires_at:%Y-%m-%d %H:%M} UTC"
    return (
        f"{signed.id[:8]} by {signed.signer.name}, until {until}: steps up to medium risk inside its bounds do not ask"
    )


def undo(ops: OpsAgent, place: Place) -> str:
    """The statement that takes back what a step of this run has done, to be read by a person; nothing is run."""
    approval = known(ops, place).approval
    if approval is None or approval.effect is None or approval.effect.state != "succeeded":
        return f"The step {place.step} has changed nothing in this run, so there is nothing to take back."
    plan = approval.plan
    lines = [
        f"To take back what request {approval.id[:8]} did. Nothing is run by showing this.",
        plan.undo,
        plan.undo_note,
    ]
    return "\n".join(line for line in lines if line)


def passed(ops: OpsAgent, place: Place, wait: float) -> Any:
    """The card of a step that took effect, for its gate to show."""
    call = gate(ops, place, wait)
    approval = call.approval
    return ApprovalCard(approval, ops.runtime.claim) if approval else f"The step {place.step} needed nobody's approval."


@dataclass(frozen=True, repr=False)
class Ended(Card):
    """How a run without a person ended."""

    state: State
    runbook: str
    run: str
    file: str
    step: str = ""
    approval: str = ""
    said: str = ""
    void: str = ""
    """Why the signature that the notebook names let nothing pass."""

    @property
    def exit_code(self) -> int:
        """What a command line exits with."""
        return EXIT_CODES[self.state]

    @property
    def ok(self) -> bool:
        """Whether every step took effect."""
        return self.state == "done"

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """Where it stands, and how to go on."""
        go_on = f"opsagent runbook run {self.file}" if self.state != "done" else f"opsagent runbook verify {self.file}"
        return f"The runbook is {self.state}.", [
            ("Run", f"{self.runbook}/{self.run}"),
            ("Notebook", self.file),
            ("Step", self.step),
            ("Request", self.approval),
            ("", self.said),
            ("Signature", self.void),
            ("Next", go_on),
        ]


@dataclass(frozen=True)
class Order:
    """A run as somebody asks for it."""

    file: Path
    words: tuple[str, ...] = ()
    server: str = ""
    run: str = ""
    again: bool = False
    wait: float = 0.0
    out: Path | None = None


def run(
    ops: OpsAgent,
    order: Order,
    instance_of: Callable[[OpsAgent, str], str],
    follow: Callable[[Progress], None] = lambda _: None,
) -> Ended:
    """Run a runbook in a kernel of its own, to a defined end; a run that began before goes on where it stopped."""
    book = read(order.file)
    values = parameters.declared(book)
    given = parameters.parse(order.words, values)
    if order.server:
        given |= {"server": order.server, "instance": instance_of(ops, order.server)}
    name = _run_name(book, order, values, given)
    target = order.out or (order.file if ours(book).get("run") == name else _beside(order.file, name))
    book = _resumed(book, target, name)
    written = parameters.given_before(book) | given
    named = str({**parameters.declared(book), **given}.get(signing.NAMED, ""))
    void = signing.why_void(ops.runtime, named, book) if named else ""
    # A notebook that is not the one that was signed names no signature: then every step asks that would ask anyway.
    unsigned = {signing.NAMED: ""} if void else {}
    parameters.inject(book, {**written, **unsigned, "runbook_run": name, "runbook_wait": order.wait})
    book["metadata"]["opsagent"]["run"] = name
    follow(of_book(book, str(ours(book)["runbook"]), name))
    ended = Execution(ops, book, target, name, order.wait).end()
    return replace(ended, void=f"{named[:8]} lets nothing pass: {void}") if void else ended


def _run_name(book: Notebook, order: Order, values: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    if order.again:
        return order.run or new_id()[:12]
    same = all(values.get(name) == value for name, value in given.items())
    before = str(ours(book).get("run", "")) if same else ""
    chosen = {**values, **given}
    if not same and ours(book).get("run"):
        chosen["runbook_run"] = ""  # other parameters are another run, not the one that this notebook is of
    name = order.run or before or parameters.named_run(chosen)
    return Place.parse(f"{ours(book)['runbook']}/{name}/step").run


def _beside(file: Path, run: str) -> Path:
    stem = re.sub(r"[.]run-[\w-]+$", "", file.stem)
    return file.with_name(f"{stem}.run-{run}.ipynb")


def _resumed(book: Notebook, target: Path, run: str) -> Notebook:
    """The notebook of this run, when there is one of the very same cells; else the runbook, without what others ran."""
    if target.exists():
        before = read(target)
        if ours(before).get("runbook") != ours(book)["runbook"]:
            raise RunbookError(f"{target} is another runbook's.", hint="Name another file with --out.")
        if ours(before).get("run") not in (None, run):
            hint = "Name another file with --out: its evidence would be lost."
            raise RunbookError(f"{target} holds the run {ours(before)['run']}.", hint=hint)
        if ours(before).get("run") == run and _sources(before) == _sources(book):
            return before
    for cell in book["cells"]:
        if cell.get("cell_type") == "code":
            cell["outputs"], cell["execution_count"] = [], None
            cell["metadata"].get("opsagent", {}).pop("receipt", None)
    book["metadata"]["opsagent"].pop("evidence", None)
    return book


def _sources(book: Notebook) -> list[tuple[Any, str]]:
    injected = parameters.tagged(book, parameters.INJECTED)
    return [(cell.get("id"), source(cell)) for n, cell in enumerate(book["cells"]) if n != injected]


class Execution:
    """One pass over the cells with a fresh kernel. The notebook is written after each cell, so a kill loses nothing."""

    def __init__(self, ops: OpsAgent, book: Notebook, target: Path, run: str, wait: float) -> None:
        self._ops, self._target, self._run = ops, target, run
        self._runbook = str(ours(book)["runbook"])
        self._patience = CELL_SECONDS + wait + ops.settings.change_deadline
        self._read = {step for step, receipt in _receipts(book) if is_read(receipt)}
        self._redactor = Redactor()
        self._redactor.add(*parameters.secrets(book))
        self._book = book

    def end(self) -> Ended:
        """Run what has not taken effect yet, seal the notebook, and say how it ended."""
        state: State = "done"
        step = said = ""
        with self._kernel() as (client, node):
            for number, cell in enumerate(node["cells"]):
                if cell["cell_type"] != "code" or self._is_past(cell):
                    continue
                error = self._error_of(client, node, number)
                self._save(node)
                if error is not None:
                    state, step, said = error[0], str(_step_of(cell)), error[1]
                    break
        evidence.seal(self._ops, self._book, self._run)
        write(self._target, self._book)
        return Ended(state, self._runbook, self._run, str(self._target), step, self._request(step), said)

    def _is_past(self, cell: Cell) -> bool:
        """Whether a cell has read already in this run: what was seen before a change stays as it was seen. A cell that
        changes something runs again, because it shows what became of it."""
        return ours(cell).get("step") in self._read and bool(cell["outputs"])

    @contextmanager
    def _kernel(self) -> Iterator[tuple[Any, Any]]:
        try:
            import nbformat
            from nbclient import NotebookClient
        except ImportError:
            raise MissingExtra(
                "Running a runbook needs nbclient, which is not installed.",
                hint="pip install 'opsagent_jupyter[runbooks]'",
                extra="runbooks",
            ) from None
        node = nbformat.from_dict(self._book)  # type: ignore[no-untyped-call]
        client = NotebookClient(
            node,
            timeout=self._patience,
            startup_timeout=KERNEL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(self._target.parent)}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # its remarks on itself would stand among ours
            store_widget_state=True,
        )
        with self._started(client):
            yield client, node

    @contextmanager
    def _started(self, client: Any) -> Iterator[None]:
        """A kernel with the store of this process; ``RunbookError`` when none starts."""
        with ExitStack() as stack:
            try:
                stack.enter_context(client.setup_kernel(env=self._environment()))
            except (RuntimeError, OSError) as error:
                hint = "Try `jupyter kernelspec list`; a Python kernel named python3 is needed."
                raise RunbookError(f"No kernel starts here ({type(error).__name__}).", hint=hint) from None
            yield

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "OPSAGENT_STORE_URL": self._ops.settings.resolved_store_url()}

    def _error_of(self, client: Any, node: Any, number: int) -> tuple[State, str] | None:
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

        try:
            client.execute_cell(node["cells"][number], number)
        except CellExecutionError as error:
            return _STOPS.get(str(error.ename), "failed"), self._redactor.redact(str(error.evalue))
        except CellTimeoutError:
            return "failed", f"The cell did not end within {self._patience:g} s."
        except DeadKernelError:
            return "failed", "The kernel died. What it had begun is recorded; run this again to go on."
        return None

    def _save(self, node: Any) -> None:
        """Write the notebook as it is now, without any value of a secret parameter."""
        self._book = struck(node, self._redactor)
        write(self._target, self._book)

    def _request(self, step: str) -> str:
        for _, cell in steps(self._book):
            if ours(cell)["step"] == step:
                return str(ours(cell).get("receipt", {}).get("approval", ""))
        return ""


def _receipts(book: Notebook) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for _, cell in steps(book):
        receipt = ours(cell).get("receipt")
        if isinstance(receipt, dict):
            yield str(ours(cell)["step"]), receipt


def is_read(receipt: Mapping[str, Any]) -> bool:
    """Whether a step has read what it should, and needed nobody for it."""
    return receipt.get("outcome") == "succeeded" and not receipt.get("approval")


def _step_of(cell: Cell) -> str:
    kept = ours(cell)
    return str(kept.get("step") or kept.get("gate") or cell.get("id", ""))


def struck(value: Any, redactor: Redactor) -> Any:
    """A notebook as plain JSON with the secrets known here struck out of it."""
    if isinstance(value, str):
        return redactor.redact(value)
    if isinstance(value, Mapping):
        return {str(key): struck(item, redactor) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [struck(item, redactor) for item in value]
    return value


STATUS = [
    "runbook", "run", "step", "tool", "server", "instance", "state", "risk", "asked_by", "asked_at", "decided_by",
    "decided_at", "seconds_to_decision", "seconds_run", "approval", "vetting", "summary",
]  # fmt: skip


def status(ops: OpsAgent, file: Path | None = None, run: str = "") -> pd.DataFrame:
    """The steps that runs have asked for, the newest 1000, of one runbook or of all: who approved, how it stands, how
    long it took."""
    runbook = str(ours(read(file))["runbook"]) if file else ""
    return frame([_status_row(step) for step in ops.runtime.store.runbook_steps(runbook, run)], STATUS)


def _status_row(step: StepRecord) -> dict[str, Any]:
    times = {
        "seconds_to_decision": _seconds(step.asked_at, step.decided_at),
        "seconds_run": _seconds(step.began_at, step.ended_at),
    }
    return {**step.model_dump(), **times}


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()


def signatures(ops: OpsAgent, file: Path | None = None) -> pd.DataFrame:
    """The signatures of a runbook, or of all, newest first."""
    runbook = str(ours(read(file))["runbook"]) if file else ""
    rows = [
        {
            **vetting.model_dump(include={"id", "title", "runbook", "signed_at", "expires_at", "reason", "revoked_at"}),
            "signer": vetting.signer.name,
            "revoked_by": vetting.revoked_by.name if vetting.revoked_by else "",
            "steps": len(vetting.steps),
            "databases": ", ".join(target.instance for target in vetting.targets),
        }
        for vetting in ops.runtime.store.vettings(runbook)
    ]
    return frame(rows, SIGNATURES)


SIGNATURES = [
    "id", "title", "runbook", "signer", "signed_at", "expires_at", "steps", "databases", "reason", "revoked_by", "revoked_at",
]  # fmt: skip


def seal_file(ops: OpsAgent, file: Path, run: str = "") -> str:
    """Write receipts and evidence into a notebook that was run by hand, or by another runner."""
    book = read(file)
    name = run or str(ours(book).get("run", "")) or _newest(ops, file)
    evidence.seal(ops, book, name)
    if "evidence" not in ours(book):
        raise RunbookError(
            f"The audit knows no run {name} of this runbook.", hint="`opsagent runbook status` lists them."
        )
    write(file, book)
    return f"{file} carries the evidence of run {name}."


def _newest(ops: OpsAgent, file: Path) -> str:
    rows = status(ops, file)
    if not len(rows):
        raise RunbookError(f"This store knows no run of {file}.", hint="Run it first, or name the store with --store.")
    return str(rows.iloc[-1]["run"])
