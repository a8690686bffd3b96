"""The steps of a runbook: what tells one from any other, and how often it may take effect.

A step's key is SHA-256 over the runbook, the cell, the run, the tool, its canonical arguments and the database::

    key = SHA-256(canonical JSON of [runbook, step, run, tool, arguments, instance id])
    id of its n-th request, and of its call = the first 32 characters of SHA-256(key ":" n)

The store keeps an id once, so two kernels that run the same step ask once, and what took effect is not repeated: the
next request of a step is made only when the one before it is known to have changed nothing, or when a person says
``--again``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from opsagent_jupyter.api import POLL, Call, OpsAgent
from opsagent_jupyter.errors import (
    InvalidArguments,
    RunbookError,
    RunbookMalformed,
    StepFailed,
    StepRefused,
    StepUnknown,
    StepWaiting,
    StoreError,
    UnknownApproval,
)
from opsagent_jupyter.executor import Ask, record_of
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Approval, Json, canonical, sha256, without_nulls
from opsagent_jupyter.plugin import Tool

#: Ends after which a step is asked for anew when its cell runs again: nothing took effect, and nobody said no.
ASKED_ANEW = (ApprovalState.FAILED, ApprovalState.EXPIRED, ApprovalState.STALE)
#: What the steps of each OpsAgent have called here: a gate judges the call that was made above it, and no other.
_CALLS: WeakKeyDictionary[OpsAgent, dict[Place, Call]] = WeakKeyDictionary()
#: The signature that a run names, by runbook and run: what its steps ask with. The gate judges whether it is worth anything.
_NAMED: WeakKeyDictionary[OpsAgent, dict[tuple[str, str], str]] = WeakKeyDictionary()
_NAME = r"[A-Za-z0-9][\w-]{0,63}"


@dataclass(frozen=True)
class Place:
    """Where a call stands: runbook, run and step (the id of its cell)."""

    runbook: str
    run: str
    step: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``runbook/run/step``; ``RunbookMalformed`` when it is none."""
        found = re.fullmatch(f"({_NAME})/({_NAME})/({_NAME})", text, re.ASCII)
        if found is None:
            raise RunbookMalformed(
                f"{text!r} names no step.", hint="Run the cell that begins the runbook first: it sets `run`."
            )
        return cls(*found.groups())

    def key(self, tool: str, arguments: Mapping[str, Json], instance_id: str) -> str:
        """What this step does in this run, as one hash."""
        return sha256(canonical([self.runbook, self.step, self.run, tool, dict(arguments), instance_id]))

    def details(self, key: str) -> dict[str, Json]:
        """What the audit keeps of it."""
        return {"runbook": self.runbook, "run": self.run, "step": self.step, "key": key}


def request_id(key: str, attempt: int) -> str:
    """The id of a step's request, the same in every process."""
    return sha256(f"{key}:{attempt}")[:32]


def run_name(given: Mapping[str, str]) -> str:
    """The run that nobody named: the same parameters are the same run, so nothing in it happens twice."""
    return sha256(canonical(dict(given)))[:12]


def name_vetting(ops: OpsAgent, runbook: str, run: str, vetting: str) -> None:
    """Remember which signature a run names; an empty one forgets it."""
    _NAMED.setdefault(ops, {})[runbook, run] = vetting


def run_step(ops: OpsAgent, tool: Tool, on: str, place: Place, arguments: dict[str, Any], *, again: bool) -> Call:
    """Run a step, or return what became of it in this run already. Raises ``RunbookError`` subclasses when it did not
    work, so that whatever runs the notebook stops there; a step that waits comes back, and its gate stops."""
    instance = ops.runtime.store.instance(on)
    try:
        values = without_nulls(tool.parse(arguments).model_dump(mode="json"))
    except InvalidArguments:
        values = {}
    key = place.key(tool.full_name, values, instance.id)
    attempt, last = attempts(ops, key)
    if last is not None and not again and last.state not in ASKED_ANEW:
        return _judged(ops, Call(ops, record_of(last)), place)
    if again and last is not None and last.state in (ApprovalState.PENDING, ApprovalState.UNKNOWN):
        raise StepWaiting(
            f"Request {last.id[:8]} of this step is still {last.state}: it cannot be asked again before it has ended."
        )
    request = request_id(key, attempt + 1)
    # What is asked anew on purpose is a person's to decide.
    vetting = "" if again else _NAMED.get(ops, {}).get((place.runbook, place.run), "")
    ask = Ask(
        tool.full_name,
        arguments,
        instance.name,
        call=request,
        request=request,
        details=place.details(key),
        vetting=vetting,
    )
    try:
        record = ops.runtime.call(ops.runtime.run(ask, ops.actor))
    except StoreError:
        _, last = attempts(ops, key)
        if last is None or last.id != request:
            raise
        record = record_of(last)  # another process was first; its request is this one
    return _judged(ops, Call(ops, record), place)


def attempts(ops: OpsAgent, key: str) -> tuple[int, Approval | None]:
    """How many requests this step has made, and the last of them."""
    number, last = 0, None
    while True:
        try:
            last = ops.runtime.store.approval(request_id(key, number + 1))
        except UnknownApproval:
            return number, last
        number += 1


def _judged(ops: OpsAgent, call: Call, place: Place) -> Call:
    _CALLS.setdefault(ops, {})[place] = call
    if call.status in ("waiting", "running", "succeeded"):
        return call
    raise stopped(call.status, place.step, call.summary, call.record.approval)


def stopped(status: str, step: str, said: str, approval: str) -> StepFailed | StepRefused | StepUnknown | StepWaiting:
    """Why the runbook stops at a step, as an error to raise."""
    facts = {"step": step, "approval": approval}
    short = approval[:8]
    if status == "running":
        hint = "Run on from this step when it has ended: `opsagent runbook status` tells."
        return StepWaiting(f"The step {step} is still running. {said}", hint=hint, **facts)
    if status == "waiting":
        hint = f"Decide it with `opsagent approve {short}` or `opsagent reject {short}`, then run on from this step."
        return StepWaiting(f"The step {step} waits for approval {approval}. {said}", hint=hint, **facts)
    if status == "refused":
        hint = "To ask anew, run its cell with --again, or `opsagent runbook run FILE --again`."
        return StepRefused(f"The step {step} was refused. {said}", hint=hint, **facts)
    if status == "unknown":
        hint = f"Look at the database, then record what you found: `opsagent resolve {short} --state … --reason …`."
        return StepUnknown(f"It is not known how the step {step} ended. {said}", hint=hint, **facts)
    return StepFailed(f"The step {step} failed. {said}", hint="Mend the cause, then run on from this step.", **facts)


def gate(ops: OpsAgent, place: Place, wait: float) -> Call:
    """Let pass when the step above took effect, else raise what stops the runbook.

    A person is waited for ``wait`` seconds. What was approved is waited for to its own deadline: a kernel that ended
    would cancel what it runs. What no host reports on has three leases to be taken up, or read back.
    """
    call = known(ops, place)
    seen: dict[str, float] = {}
    while (status := call.status) != "succeeded":
        phase = "approved" if _is_approved(call) else status
        patience = {"waiting": wait, "running": ops.settings.change_deadline}.get(phase, 3 * ops.settings.lease_seconds)
        over = time.monotonic() - seen.setdefault(phase, time.monotonic()) >= patience
        if over or status in ("failed", "refused", "cancelled"):
            raise stopped(status, place.step, call.summary, call.record.approval)
        time.sleep(POLL)
    return call


def _is_approved(call: Call) -> bool:
    approval = call.approval
    return approval is not None and approval.state is ApprovalState.APPROVED


def known(ops: OpsAgent, place: Place) -> Call:
    """The call of a step that this kernel has run."""
    call = _CALLS.get(ops, {}).get(place)
    if call is None:
        raise RunbookError(
            f"The step {place.step} has not run in this kernel.", hint="Run its cell; what took effect is not repeated."
        )
    return call
