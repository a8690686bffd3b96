"""The life of an approval request: its states, and the only arrows between them."""

from __future__ import annotations

from enum import StrEnum

from opsagent_jupyter.errors import IllegalTransition


class ApprovalState(StrEnum):
    """Where an approval request stands."""

    #: asked, nobody has decided
    PENDING = "pending"
    #: a person said yes; no host has taken it yet
    APPROVED = "approved"
    #: a person said no
    REJECTED = "rejected"
    #: its time ran out before a decision, or after one and before a run
    EXPIRED = "expired"
    #: the requester took it back
    WITHDRAWN = "withdrawn"
    #: a newer request took its place
    SUPERSEDED = "superseded"
    #: an approver took a yes back before it ran
    REVOKED = "revoked"
    #: the target changed after the approval; nothing was sent
    STALE = "stale"
    #: one host claimed it; the statement may have been sent
    EXECUTING = "executing"
    #: it ran and the effect was read back
    SUCCEEDED = "succeeded"
    #: it did not take effect, and that was seen
    FAILED = "failed"
    #: it may have run; nobody saw the end
    UNKNOWN = "unknown"


S = ApprovalState

TRANSITIONS: dict[ApprovalState, frozenset[ApprovalState]] = {
    S.PENDING: frozenset({S.APPROVED, S.REJECTED, S.EXPIRED, S.WITHDRAWN, S.SUPERSEDED}),
    S.APPROVED: frozenset({S.EXECUTING, S.EXPIRED, S.REVOKED, S.WITHDRAWN, S.SUPERSEDED, S.STALE}),
    S.EXECUTING: frozenset({S.SUCCEEDED, S.FAILED, S.UNKNOWN}),
    S.UNKNOWN: frozenset({S.SUCCEEDED, S.FAILED}),
    S.REJECTED: frozenset(),
    S.EXPIRED: frozenset(),
    S.WITHDRAWN: frozenset(),
    S.SUPERSEDED: frozenset(),
    S.REVOKED: frozenset(),
    S.STALE: frozenset(),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset(),
}

#: Open states: something can still happen to the request.
OPEN = frozenset(state for state, ends in TRANSITIONS.items() if ends)
#: States in which a person's decision is already known.
DECIDED = frozenset(ApprovalState) - {S.PENDING}


def require(old: ApprovalState, new: ApprovalState) -> None:
    """Raise ``IllegalTransition`` unless the table has the arrow from ``old`` to ``new``."""
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(
            f"An approval request that is {old} cannot become {new}.",
            hint="Open it to see what was decided; a new request is the way to try again.",
            old=str(old),
            new=str(new),
        )
