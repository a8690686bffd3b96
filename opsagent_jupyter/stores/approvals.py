"""Approval requests in the store: each arrow of their life is one conditional UPDATE."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, union_all, update

from opsagent_jupyter.contracts import Place
from opsagent_jupyter.errors import ApprovalError, DigestMismatch, StoreCorrupt, UnknownApproval
from opsagent_jupyter.lifecycle import TRANSITIONS, ApprovalState
from opsagent_jupyter.models import Actor, Approval, AuditEvent, Json
from opsagent_jupyter.stores import one_time
from opsagent_jupyter.stores.documents import document
from opsagent_jupyter.stores.latecomers import already_decided, require_in_time
from opsagent_jupyter.stores.ledger import Change
from opsagent_jupyter.stores.pages import beyond
from opsagent_jupyter.stores.prefixes import matches
from opsagent_jupyter.stores.tables import approval_requests, holds, hosts, plugin_audit_log

S = ApprovalState
T = approval_requests

#: What may be written beside the state; everything else was bound by the digest when the request was made.
SETTABLE = {"decided_by", "decided_at", "reason", "use_by", "host", "claimed_at", "evidence", "effect", "ended_at"}
#: Moves that come too late once the time of the request has run out.
TIMELY = {S.APPROVED, S.REJECTED, S.EXECUTING}
#: Who lets requests expire.
CLOCK = Actor(id="opsagent:clock", name="the clock", via="worker")


def columns_of(approval: Approval) -> dict[str, Any]:
    names = ("id", "version", "session", "host", "created_at", "expires_at", "use_by")
    body = document(approval, exclude={"state", "version"})
    return {**{name: getattr(approval, name) for name in names}, "state": str(approval.state), "body": body}


def approval_of(row: Any) -> Approval:
    try:
        return Approval.model_validate({**json.loads(row.body), "state": row.state, "version": row.version})
    except (ValueError, TypeError) as error:
        raise StoreCorrupt(f"The approval request {row.id} cannot be read: {error}.") from None


def find(connection: Connection, id: str) -> Approval:
    """Return a request by id or unique prefix."""
    found = matches(connection, T.c.id, id)
    if len(found) > 1:
        raise UnknownApproval(
            f"{id!r} is short for several requests: {', '.join(found)}.", hint="Write more of the id."
        )
    if not found:
        raise UnknownApproval(f"There is no approval request {id!r}.")
    return approval_of(connection.execute(select(T).where(T.c.id == found[0])).one())


def state_of(connection: Connection, id: str) -> ApprovalState:
    """Return where a request stands, by its whole id."""
    state = connection.execute(select(T.c.state).where(T.c.id == id)).scalar_one_or_none()
    if state is None:
        raise UnknownApproval(f"There is no approval request {id!r}.")
    return ApprovalState(state)


def hold(change: Change, id: str) -> Approval:
    """Return a request by its whole id, and keep others from changing it until this change ends."""
    row = change.connection.execute(select(T).where(T.c.id == id).with_for_update()).one_or_none()
    if row is None:
        raise UnknownApproval(f"There is no approval request {id!r}.")
    return approval_of(row)


def page(
    connection: Connection,
    states: Sequence[ApprovalState],
    session: str,
    limit: int,
    before: datetime | None,
    after: Place | None = None,
) -> Sequence[Approval]:
    """Requests, newest first. Each state is read by itself, from its own index, and no further than the limit."""
    found = select(T).order_by(T.c.created_at.desc(), T.c.id).limit(limit)
    if session:
        found = found.where(T.c.session == session)
    if before is not None:
        found = found.where(T.c.created_at < before)
    if after is not None:
        found = found.where(*beyond(T.c.created_at, T.c.id, after))
    if len(states) > 1:
        each = [found.where(T.c.state == str(state)).subquery() for state in dict.fromkeys(states)]
        every = union_all(*(select(part) for part in each)).subquery()
        found = select(every).order_by(every.c.created_at.desc(), every.c.id).limit(limit)
    elif states:
        found = found.where(T.c.state == str(states[0]))
    return [approval_of(row) for row in connection.execute(found)]


def add(change: Change, approval: Approval, event: AuditEvent) -> None:
    """Keep a new request; the one it supersedes ends in the same transaction."""
    if approval.state is not S.PENDING:
        raise ApprovalError(f"A new approval request starts pending, not {approval.state}.")
    change.connection.execute(insert(T).values(columns_of(approval)))
    change.audit(_complete(event, approval))
    change.announce("approval", approval.id, str(approval.state))
    if approval.supersedes:
        old = hold(change, approval.supersedes)
        details: dict[str, Json] = {"superseded_by": approval.id}
        ending = about(old, "approval.superseded", event.actor, change.at, details=details)
        transit(change, old, S.SUPERSEDED, ending, {})


def transit(
    change: Change, approval: Approval, new: ApprovalState, event: AuditEvent, changes: Mapping[str, Any]
) -> Approval:
    """Take one arrow with its audit event and its word to the watchers."""
    if unknown := set(changes) - SETTABLE:
        raise TypeError(f"a move sets no {', '.join(sorted(unknown))}")
    require_in_time(approval, new)
    fields = {**_implied(approval, new, event), **changes}
    if ended := one_time.follow(change.connection, approval.id, new, change.at):
        fields["evidence"] = {**approval.evidence, **fields.get("evidence", {}), **ended}
    after = Approval.model_validate({**approval.model_dump(), **fields, "state": new, "version": approval.version + 1})
    _write(change, approval, after)
    change.audit(_complete(event, after))
    change.announce("approval", after.id, str(new))
    return after


def _write(change: Change, before: Approval, after: Approval) -> None:
    still = and_(T.c.id == before.id, T.c.state == str(before.state), T.c.version == before.version)
    written = change.connection.execute(update(T).where(still).values(columns_of(after)))
    if written.rowcount != 1:
        raise already_decided(hold(change, before.id))


def remark(change: Change, approval: Approval, evidence: Mapping[str, Json]) -> None:
    """Add evidence to a request whatever its state; its version goes on, so that screens take it."""
    noted = {"evidence": {**approval.evidence, **evidence}, "version": approval.version + 1}
    _write(change, approval, approval.model_copy(update=noted))


def _implied(approval: Approval, new: ApprovalState, event: AuditEvent) -> dict[str, Any]:
    """The fields that follow from a move where the caller names none."""
    fields: dict[str, Any] = {}
    if new in {S.APPROVED, S.REJECTED}:
        fields = {"decided_by": event.actor, "decided_at": event.at}
    if new is S.APPROVED:
        fields["use_by"] = approval.expires_at
    if new is S.EXECUTING:
        fields["claimed_at"] = event.at
    if not TRANSITIONS[new]:
        fields["ended_at"] = event.at
    return fields


def _complete(event: AuditEvent, approval: Approval) -> AuditEvent:
    """The event with the request it belongs to, its digest and its new state, where the caller left them out."""
    return event.model_copy(
        update={
            "approval": event.approval or approval.id,
            "digest": event.digest or approval.digest,
            "status": event.status or str(approval.state),
        }
    )


def require_witness(connection: Connection, id: str, approval: Approval, digest: str) -> None:
    """Raise ``DigestMismatch`` unless the audit agrees that just this was approved and nothing came of it yet.

    A row is easily set back or copied, and a digest without a key is easily made anew; the chained audit is not. A
    ``digest`` that the caller has checked must be the same.
    """
    log = plugin_audit_log.c
    moves = select(log.status, log.body).where(holds("approval", id), log.status.in_([str(state) for state in S]))
    newest = connection.execute(moves.order_by(log.seq.desc()).limit(1)).one_or_none()
    known = newest.status if newest else "nothing"
    if newest is None or newest.status != S.APPROVED or approval.id != id:
        raise DigestMismatch(f"The store calls this request approved, the audit says {known}; nothing was run.")
    if {approval.digest, approval.computed_digest(), digest or approval.digest} != {json.loads(newest.body)["digest"]}:
        raise DigestMismatch


def overdue(approval: Approval, at: datetime) -> bool:
    """True when the time for a decision, or for the run after it, is over."""
    if approval.state is S.PENDING:
        return approval.expires_at <= at
    return approval.state is S.APPROVED and (approval.use_by or approval.expires_at) <= at


def overdue_ids(connection: Connection, at: datetime) -> Sequence[str]:
    late: ColumnElement[bool] = or_(
        and_(T.c.state == S.PENDING.value, T.c.expires_at <= at), and_(T.c.state == S.APPROVED.value, T.c.use_by <= at)
    )
    return connection.execute(select(T.c.id).where(late).order_by(T.c.created_at, T.c.id)).scalars().all()


def expire(change: Change, approval: Approval, at: datetime) -> Approval:
    """Let the time of a request run out."""
    reason = "nobody decided in time" if approval.state is S.PENDING else "no host ran it in time"
    event = about(approval, "approval.expired", CLOCK, at, reason=reason)
    return transit(change, approval, S.EXPIRED, event, {"ended_at": at})


def about(approval: Approval, type: str, actor: Actor, at: datetime, **more: Any) -> AuditEvent:
    """An audit event with everything that the request says of itself."""
    target = approval.target
    names = ("risk", "tool", "session", "call", "digest", "arguments", "setup")
    return AuditEvent(
        type=type,
        actor=actor,
        at=at,
        server=target.server,
        instance=target.instance,
        environment=target.environment,
        statements=approval.plan.statements,
        **{name: getattr(approval, name) for name in names},
        **more,
    )


def note(connection: Connection, id: str, host: str, evidence: Mapping[str, Json], secret: str) -> None:
    """Add evidence to a request that this host executes; otherwise nothing may be sent, so it is an error."""
    row = connection.execute(select(T).where(T.c.id == id).with_for_update()).one_or_none()
    if row is None:
        raise UnknownApproval(f"There is no approval request {id!r}.")
    approval = approval_of(row)
    if approval.state is not S.EXECUTING or approval.host != host:
        raise already_decided(approval)
    mark: dict[str, Json] = {one_time.MARK: "kept"} if secret else {}
    noted = approval.model_copy(update={"evidence": {**approval.evidence, **evidence, **mark}})
    if secret:
        one_time.keep(connection, id, secret)
    still = and_(T.c.id == id, T.c.state == S.EXECUTING.value, T.c.host == host)
    connection.execute(update(T).where(still).values(body=columns_of(noted)["body"]))


def orphans(connection: Connection, dead_before: datetime) -> Sequence[Approval]:
    living = select(hosts.c.id).where(hosts.c.seen_at >= dead_before)
    lost = select(T).where(T.c.state == S.EXECUTING.value, T.c.host.not_in(living)).order_by(T.c.created_at, T.c.id)
    return [approval_of(row) for row in connection.execute(lost)]
