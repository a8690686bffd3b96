"""Pre-vetted runbooks: what an approver has signed, and whether one call is exactly that.

A *vetting* is the signature of a runbook: its steps with the tool, its version, the databases, and a bound for every
argument. It decides nothing by itself: the executor asks it, and whatever it does not know is an objection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import AwareDatetime, Field

from opsagent_jupyter.errors import VettingVoid
from opsagent_jupyter.models import Actor, Approval, Environment, Json, Record, Risk, canonical, sha256

#: The rule's name, as the audit and the evidence of a request have it.
RULE = "vetted"
#: The vault's field of a signature's seal; its ``instance`` is the id of the vetting.
SEAL = "vetting"
#: Characters of a text, and elements of a list, that a pattern is tried on.
LONGEST, MOST = 200, 50
#: Repetitions in a pattern: more of them could take a long time over a text that nearly fits.
REPEATS = 3


class StepRecord(Record):
    """How one step of a run stands: one row a call, with who decided it and when."""

    runbook: str
    run: str
    step: str
    call: str
    tool: str
    server: str
    instance: str
    risk: str
    state: str
    """Of a call that needed nobody its status, else the state of its request."""
    asked_by: str
    asked_at: AwareDatetime
    decided_by: str = ""
    decided_at: AwareDatetime | None = None
    began_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    approval: str = ""
    vetting: str = ""
    """The signature by which nobody was asked."""
    summary: str = ""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """Of a call that was asked for; empty for one that needed nobody."""


class Bound(Record):
    """What one argument of a step may be: one of some values, a whole number in a range, or text of a pattern."""

    parameter: str = ""
    """The parameter of the runbook that it comes from; empty for what the step says itself."""
    choices: tuple[Json, ...] = ()
    least: int | None = None
    most: int | None = None
    pattern: str = ""
    """A regular expression that a text, or each text of a list, matches as a whole; ASCII only."""

    def admits(self, value: Json) -> bool:
        """Whether a value is inside; a bound that says nothing admits nothing."""
        if self.choices:
            return canonical(value) in {canonical(choice) for choice in self.choices}
        if self.pattern:
            texts = value if isinstance(value, list) else [value]
            return 0 < len(texts) <= MOST and all(self._fits(text) for text in texts)
        if self.least is None or self.most is None:
            return False
        return type(value) is int and self.least <= value <= self.most

    def _fits(self, text: Json) -> bool:
        whole = isinstance(text, str) and len(text) <= LONGEST
        return whole and re.fullmatch(self.pattern, str(text), re.ASCII) is not None

    def told(self) -> str:
        """The bound in words."""
        if self.choices:
            return " or ".join(_word(choice) for choice in self.choices)
        return f"text like {self.pattern}" if self.pattern else f"{self.least} to {self.most}"


def is_tame(pattern: str) -> bool:
    """Whether a pattern ends in good time on any text: no groups that repeat, no references, few repetitions."""
    if not pattern or len(pattern) > LONGEST:
        return False
    plain = re.sub(r"\[\^?\]?(?:\\.|[^\]\\])*\]", "x", re.sub(r"\\[^0-9gkK]", "x", pattern))
    if re.search(r"\\|\(\?|\)\s*[*+?{]", plain) or len(re.findall(r"[*+{]", plain)) > REPEATS:
        return False
    try:
        re.compile(pattern, re.ASCII)
    except re.error:
        return False
    return True


class VettedTarget(Record):
    """A database that the steps may run on, as it was attached when the runbook was signed."""

    instance_id: str
    instance: str
    server: str
    plugin: str
    environment: Environment


class VettedStep(Record):
    """One call of the runbook, to the letter."""

    step: str
    tool: str
    version: str
    """Of the tool, as the plugin declares it."""
    arguments: dict[str, Bound]


class Vetting(Record):
    """The signature of a runbook, and whether it was taken back."""

    id: str
    digest: str = ""
    runbook: str
    title: str
    cells: tuple[tuple[str, str], ...]
    """Id and SHA-256 of each cell, in order: a notebook with any other is not the one that was signed."""
    steps: tuple[VettedStep, ...]
    targets: tuple[VettedTarget, ...]
    signer: Actor
    reason: str
    policy: str
    """Hash of the policy under which it was signed."""
    setup: str
    signed_at: AwareDatetime
    expires_at: AwareDatetime
    nonce: str
    seal: str = ""
    """The digest, encrypted with the key of this installation: who has no key makes no signature."""
    revoked_by: Actor | None = None
    revoked_at: AwareDatetime | None = None
    revoked_for: str = ""

    def computed_digest(self) -> str:
        """SHA-256 over all that was signed; differs from ``digest`` when the store was edited."""
        life = {"digest", "seal", "revoked_by", "revoked_at", "revoked_for"}
        return sha256(canonical({"v": 1, **self.model_dump(mode="json", exclude=life)}))

    def told(self) -> str:
        """Why nobody was asked, for cards, receipts and the audit."""
        at = f"{self.signed_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return f"pre-approved through the runbook “{self.title}”, signed {at} (signature {self.id[:8]})"

    def cited(self) -> dict[str, Json]:
        """What a request keeps of the signature that let it pass."""
        said: dict[str, Json] = {"id": self.id, "digest": self.digest, "runbook": self.runbook, "title": self.title}
        return {**said, "signer": self.signer.name, "signed_at": self.signed_at.astimezone(UTC).isoformat()}

    def require_alive(self, at: datetime) -> None:
        """Raise ``VettingVoid`` when it was taken back, edited, or is out of its time."""
        if self.computed_digest() != self.digest:
            raise VettingVoid("the signature in the store is not what was signed")
        if self.revoked_at is not None:
            by = self.revoked_by.name if self.revoked_by else "somebody"
            raise VettingVoid(f"{by} took the signature back")
        if not self.signed_at <= at < self.expires_at:
            raise VettingVoid(f"the signature held until {self.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC")

    def require(self, approval: Approval, place: Mapping[str, Json], ran: Sequence[StepRecord]) -> None:
        """Raise ``VettingVoid`` unless a request is the call of the step at ``place``, inside every bound, next in order,
        after what ``ran`` in the same run."""
        if place.get("runbook") != self.runbook or not place.get("run"):
            raise VettingVoid("another runbook was signed")
        if approval.requester.agent:
            raise VettingVoid("a language model asked")
        if approval.risk.rank > Risk.MEDIUM.rank:
            raise VettingVoid(f"the risk is {approval.risk}, and a signature covers medium at most")
        step = next((step for step in self.steps if step.step == place.get("step")), None)
        if step is None:
            raise VettingVoid(f"the signed runbook has no step {place.get('step')}")
        self._require_same(step, approval)
        self._require_next(step, approval, ran)

    def _require_same(self, step: VettedStep, approval: Approval) -> None:
        if (approval.tool, approval.tool_version) != (step.tool, step.version):
            was, now = f"{step.tool} version {step.version}", f"{approval.tool} version {approval.tool_version}"
            raise VettingVoid(f"{was} was signed, this is {now}")
        target = approval.target.model_dump(exclude={"identity"})
        if target not in [known.model_dump() for known in self.targets]:
            raise VettingVoid(f"{approval.target.instance} on {approval.target.server} is no database that was signed")
        if set(approval.arguments) != set(step.arguments):
            other = sorted(set(approval.arguments) ^ set(step.arguments))
            raise VettingVoid(f"the step was signed with other arguments ({', '.join(other)})")
        for name, bound in step.arguments.items():
            if not bound.admits(approval.arguments[name]):
                raise VettingVoid(f"{name} is outside what was signed: {bound.told()}")

    def _require_next(self, step: VettedStep, approval: Approval, ran: Sequence[StepRecord]) -> None:
        """A step runs once in a run, after those before it, and a parameter keeps its value."""
        if any(each.step == step.step and each.call != approval.call and each.state not in NOTHING for each in ran):
            raise VettingVoid("this step was called in this run before")
        for before in self.steps[: self.steps.index(step)]:
            calls = [each for each in ran if each.step == before.step]
            if not any(each.state == "succeeded" for each in calls):
                raise VettingVoid(f"the step {before.step}, which comes first, has not succeeded in this run")
            self._require_parameters(before, calls, step, approval)

    @staticmethod
    def _require_parameters(
        before: VettedStep, calls: Sequence[StepRecord], step: VettedStep, approval: Approval
    ) -> None:
        """A parameter has one value in a run: two steps that share it cannot be given two."""
        now = {bound.parameter: approval.arguments[name] for name, bound in step.arguments.items() if bound.parameter}
        for name, bound in before.arguments.items():
            values = {_word(call.arguments[name]) for call in calls if name in call.arguments}
            if bound.parameter in now and values - {_word(now[bound.parameter])}:
                raise VettingVoid(f"{bound.parameter} had another value in the step {before.step}")


#: States after which a step is called again in the same run: nothing took effect, and nobody said no.
NOTHING = ("failed", "expired", "stale", "refused", "cancelled", "planning")


def _word(value: Json) -> str:
    """A value as one word, as a parameter spells it."""
    return ",".join(map(_word, value)) if isinstance(value, list) else str(value)
