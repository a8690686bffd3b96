"""The policy: pure rules over tool, arguments and target. It may raise a level and refuse; it can never lower."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field

from opsagent_jupyter.errors import (
    ApprovalError,
    NotAllowedToDecide,
    NotAllowedToSign,
    PolicyDenied,
    ReasonRequired,
    VettingVoid,
)
from opsagent_jupyter.models import (
    Actor,
    Approval,
    Assessment,
    Record,
    Risk,
    Target,
    Verdict,
    canonical,
    highest,
    sha256,
)
from opsagent_jupyter.vetting import Vetting

#: How long an approval may stay unused before it expires, by risk.
USE_WITHIN = {
    Risk.LOW: timedelta(minutes=60),
    Risk.MEDIUM: timedelta(minutes=60),
    Risk.HIGH: timedelta(minutes=30),
    Risk.CRITICAL: timedelta(minutes=15),
}


class Policy(Record):
    """Rules of an installation. Patterns are shell-style over ``plugin.tool`` or ``environment/plugin.tool``."""

    deny: tuple[str, ...] = ()
    """Calls that nobody may make here."""
    raise_to: dict[str, Risk] = Field(default_factory=dict)
    """Pattern -> the lowest level these calls have."""
    four_eyes: Literal["off", "critical", "high", "medium"] = "critical"
    """From which level on the requester may not approve; it holds where identities are stable."""
    reason_from: Risk = Risk.CRITICAL
    """From which level on an approval needs a reason."""
    approvers: tuple[str, ...] = ("*",)
    """Ids of actors (``os:alice``, ``jupyter:*``) that may approve requests and sign runbooks, if their door lets them."""
    always_ask: tuple[str, ...] = ()
    """Calls that a person is asked about even when an approver has signed their runbook."""
    vetting_days: int = Field(default=90, ge=0, le=366)
    """How long the signature of a runbook may hold; with 0 none lets anything pass."""

    @property
    def hash(self) -> str:
        """Short hash that each request carries, so that a changed policy shows."""
        return sha256(canonical(self.model_dump(mode="json")))[:16]

    def verdict(
        self, tool: str, assessment: Assessment, target: Target | None, *, changes: bool, read_only: bool
    ) -> Verdict:
        """Say allow, ask or deny. Only a reading call that is low runs without a person."""
        names = _names(tool, target)
        for pattern in self.deny:
            if any(fnmatchcase(name, pattern) for name in names):
                return Verdict(decision="deny", risk=assessment.risk, rule=f"deny: {pattern}")
        if changes and read_only:
            return Verdict(decision="deny", risk=assessment.risk, rule="the instance is attached read-only")
        raised = [(level, p) for p, level in self.raise_to.items() if any(fnmatchcase(name, p) for name in names)]
        risk = highest(assessment.risk, *(level for level, _ in raised))
        reasons = assessment.reasons
        if risk is not assessment.risk:
            reasons += tuple(f"policy raises {pattern} to {level}" for level, pattern in raised if level is risk)
        if changes and risk is Risk.LOW:
            risk, reasons = Risk.MEDIUM, (*reasons, "it changes something, so it is never low")
        return Verdict(decision="allow" if risk is Risk.LOW else "ask", risk=risk, reasons=reasons)

    def refuse(self, verdict: Verdict, tool: str) -> PolicyDenied:
        """Return the error of a denied call, naming the rule."""
        return PolicyDenied(
            f"{tool} is not allowed here ({verdict.rule}).",
            hint="Whoever keeps the policy, or attached this database, can change that.",
            rule=verdict.rule,
        )

    def check_decision(self, approval: Approval, actor: Actor, decision: str, reason: str, *, setup: str) -> None:
        """Raise unless this actor may take this decision with this reason. One check for every door."""
        if actor.agent:
            raise NotAllowedToDecide("A language model cannot decide a request.", rule="agent")
        if decision == "withdraw":
            if actor.id != approval.requester.id:
                raise NotAllowedToDecide(
                    f"Only {approval.requester.name}, who asked, can withdraw this request.",
                    hint="Reject it instead.",
                    rule="owner",
                )
            return
        if decision != "approve":
            return
        if not self._is_approver(actor):
            raise NotAllowedToDecide(
                f"{actor.name} is no approver here.", hint="Ask one of those whom the policy names.", rule="approvers"
            )
        if self._own_request_barred(approval, actor, setup):
            raise NotAllowedToDecide(
                f"You asked for this yourself, and {approval.risk} calls need a second person here.",
                hint="Ask a colleague to approve it.",
                rule="four eyes",
            )
        if approval.risk.rank >= self.reason_from.rank and not good_reason(reason):
            raise ReasonRequired(
                f"A {approval.risk} call is approved with a reason of at least ten characters that says why."
            )

    def _own_request_barred(self, approval: Approval, actor: Actor, setup: str) -> bool:
        if self.four_eyes == "off" or setup == "personal":
            return False
        if approval.risk.rank < Risk(self.four_eyes).rank:
            return False
        # Two unstable identities may be two browsers of one person: that is no second pair of eyes.
        return actor.id == approval.requester.id or not (actor.stable and approval.requester.stable)

    def _is_approver(self, actor: Actor) -> bool:
        return any(fnmatchcase(actor.id, pattern) for pattern in self.approvers)

    # -- pre-vetted runbooks

    def check_signing(self, actor: Actor, reason: str, days: float) -> None:
        """Raise unless this actor may sign a runbook for so many days, with this reason."""
        if actor.agent or not self._is_approver(actor):
            who = "A language model" if actor.agent else actor.name
            raise NotAllowedToSign(f"{who} cannot sign a runbook here.", hint="An approver can.")
        if not 0 < days <= self.vetting_days:
            raise NotAllowedToSign(
                f"A signature holds for {self.vetting_days} days at most here, not for {days:g}.",
                hint="Sign it for fewer days, and again when they are over."
                if self.vetting_days
                else "The policy takes no signatures: every call that needs a person asks one.",
            )
        if not good_reason(reason):
            raise ReasonRequired("A runbook is signed with a reason of at least ten characters that says why.")

    def require_vetted(self, approval: Approval, vetting: Vetting, at: datetime, *, setup: str) -> None:
        """Raise ``VettingVoid`` unless this signature may take the place of a person's decision on this request: its
        signer could take it now, by today's rules."""
        vetting.require_alive(at)
        for pattern in self.always_ask:
            if any(fnmatchcase(name, pattern) for name in _names(approval.tool, approval.target)):
                raise VettingVoid(f"the policy has a person asked for {pattern} always")
        if vetting.expires_at - vetting.signed_at > timedelta(days=self.vetting_days):
            raise VettingVoid("it was signed for longer than the policy lets a signature hold")
        try:
            self.check_signing(vetting.signer, vetting.reason, self.vetting_days)
            self.check_decision(approval, vetting.signer, "approve", vetting.reason, setup=setup)
        except (ApprovalError, NotAllowedToSign) as error:
            raise VettingVoid(f"{vetting.signer.name}, who signed it, may not approve this: {error.message}") from None


def _names(tool: str, target: Target | None) -> tuple[str, ...]:
    """What patterns are tried on."""
    return (tool, f"{target.environment}/{tool}") if target else (tool,)


def good_reason(reason: str) -> bool:
    """Whether a reason says something: ten characters or more, two words, five different letters."""
    letters = re.findall(r"\w", reason.lower())
    return len(reason.strip()) >= 10 and len(reason.split()) >= 2 and len(set(letters)) >= 5
