"""What a person or host is told who comes too late: who was first, when, and how the request stands now."""

from __future__ import annotations

from datetime import UTC, datetime

from opsagent_jupyter.errors import AlreadyDecided, IllegalTransition
from opsagent_jupyter.lifecycle import TRANSITIONS, ApprovalState, require
from opsagent_jupyter.models import Approval, now

S = ApprovalState

#: How a request stands, to be followed by the time where it has ended.
_STANDS = {
    S.PENDING: "is pending",
    S.APPROVED: "waits for its run",
    S.EXECUTING: "is executing",
    S.UNKNOWN: "may have run, but its end was not seen",
    S.SUCCEEDED: "succeeded",
    S.FAILED: "failed",
    S.REJECTED: "was rejected",
    S.EXPIRED: "expired",
    S.WITHDRAWN: "was withdrawn",
    S.SUPERSEDED: "was superseded by a newer one",
    S.REVOKED: "was revoked",
    S.STALE: "was not run, because its target had changed",
}


def require_in_time(approval: Approval, new: ApprovalState) -> None:
    """Raise ``AlreadyDecided`` when the move was possible until somebody was first, ``IllegalTransition`` when never."""
    try:
        require(approval.state, new)
    except IllegalTransition:
        if any(new in ends and _leads(start, approval.state) for start, ends in TRANSITIONS.items()):
            raise already_decided(approval) from None
        raise


def _leads(start: ApprovalState, end: ApprovalState) -> bool:
    """True when a request that was in ``start`` can be in ``end`` later; the table has no circles."""
    return any(step is end or _leads(step, end) for step in TRANSITIONS[start])


def already_decided(approval: Approval) -> AlreadyDecided:
    """The error for whoever was not the first, with the facts ``state``, ``by`` (a name) and ``at`` (ISO-8601)."""
    at = approval.decided_at or approval.ended_at
    return AlreadyDecided(
        _story(approval),
        hint="Nothing was changed by this attempt.",
        state=str(approval.state),
        by=approval.decided_by.name if approval.decided_by else "",
        at=at.isoformat() if at else "",
    )


def _story(approval: Approval) -> str:
    stands = _STANDS[approval.state] + (f" at {_clock(approval.ended_at)}" if approval.ended_at else "")
    if approval.decided_by is None or approval.decided_at is None:
        return f"This request {stands}."
    decided = f"{approval.decided_by.name} %s this request at {_clock(approval.decided_at)}"
    return f"{decided % 'rejected'}." if approval.state is S.REJECTED else f"{decided % 'approved'}; it {stands}."


def _clock(at: datetime) -> str:
    """A time as a person reads it; with its day when that is not today."""
    moment = at.astimezone(UTC)
    return f"{moment:%H:%M:%S} (UTC)" if moment.date() == now().date() else f"{moment:%Y-%m-%d %H:%M:%S} (UTC)"
