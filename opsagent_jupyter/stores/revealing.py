"""Showing a one-time secret: read, deleted and audited in one transaction, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import Connection, select

from opsagent_jupyter.errors import ApprovalError, SecretExpired, SecretMissing, SecretRevealed
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Approval, AuditEvent
from opsagent_jupyter.stores import approvals, one_time
from opsagent_jupyter.stores.ledger import Change
from opsagent_jupyter.stores.tables import holds, plugin_audit_log

V = TypeVar("V")

#: The audit's words for the ends of a secret.
REVEALED, EXPIRED = "secret.revealed", "secret.expired"


def reveal(change: Change, approval: Approval, event: AuditEvent, unseal: Callable[[str], V]) -> V:
    """Return what ``unseal`` makes of the token of a request that is held; the token is deleted."""
    kept = one_time.kept(change.connection, approval.id)
    if kept is None:
        raise gone(change.connection, approval)
    if approval.state is not ApprovalState.SUCCEEDED:
        raise SecretMissing(
            f"This request is {approval.state}, so its secret is not shown yet.",
            hint="It is shown once the call is known to have succeeded, and deleted when it failed.",
        )
    shown = unseal(kept[0])
    _end(change, approval, "revealed", event.model_copy(update={"type": REVEALED}))
    return shown


def is_overdue(change: Change, approval: Approval) -> bool:
    """Whether the secret of a request is kept, and its time is over."""
    kept = one_time.kept(change.connection, approval.id)
    return kept is not None and kept[1] is not None and kept[1] <= change.at


def expire(change: Change, approval: Approval) -> None:
    """Delete a secret that nobody asked for in time."""
    event = approvals.about(approval, EXPIRED, approvals.CLOCK, change.at, status="lapsed")
    _end(change, approval, "expired", event.model_copy(update={"approval": approval.id}))


def _end(change: Change, approval: Approval, how: str, event: AuditEvent) -> None:
    one_time.drop(change.connection, approval.id)
    approvals.remark(change, approval, {one_time.MARK: how})
    change.audit(event)
    change.announce("approval", approval.id, f"secret {how}")


def gone(connection: Connection, approval: Approval) -> ApprovalError:
    """Why there is no secret: the audit knows who was shown it, and when."""
    log = plugin_audit_log.c
    ends = select(log.type, log.actor_name, log.body).where(
        holds("approval", approval.id), log.type.in_([REVEALED, EXPIRED])
    )
    end = connection.execute(ends.order_by(log.seq.desc()).limit(1)).one_or_none()
    if end is None:
        deleted = ": the call failed, so it was deleted" if approval.evidence.get(one_time.MARK) else ""
        return SecretMissing(f"This request is {approval.state} and keeps no secret{deleted}.")
    at = datetime.fromisoformat(json.loads(end.body)["at"]).astimezone(UTC)
    when = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    if end.type == EXPIRED:
        return SecretExpired(f"Nobody asked for this secret in time: it was deleted at {when}.")
    return SecretRevealed(
        f"{end.actor_name} was shown this secret at {when}; it is shown only once.",
        by=end.actor_name,
        at=at.isoformat(),
    )
