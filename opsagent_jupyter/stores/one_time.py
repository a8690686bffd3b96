"""Secrets that are shown once, encrypted, beside the request whose call made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Json, now
from opsagent_jupyter.stores.tables import one_time_secrets

T = one_time_secrets

#: How long a secret can be asked for after the call has succeeded.
KEPT = timedelta(days=7)
#: Where a request's evidence says what became of its secret: kept, revealed, expired, deleted.
MARK = "secret"


def keep(connection: Connection, id: str, token: str) -> None:
    """Keep the secret of a request, instead of an earlier one; until the request has succeeded it does not expire."""
    drop(connection, id)
    connection.execute(insert(T).values(approval=id, token=token, kept_at=now(), expires_at=None))


def drop(connection: Connection, id: str) -> bool:
    """Delete the secret of a request; False when there was none."""
    return connection.execute(delete(T).where(T.c.approval == id)).rowcount == 1


def kept(connection: Connection, id: str) -> tuple[str, datetime | None] | None:
    """Return the token with the time when it expires; None when no secret is kept."""
    row = connection.execute(select(T).where(T.c.approval == id)).one_or_none()
    return (row.token, row.expires_at) if row else None


def follow(connection: Connection, id: str, new: ApprovalState, at: datetime) -> dict[str, Json]:
    """What a request's end means to its secret, as evidence: the secret of a call that failed is of no use."""
    if new is ApprovalState.SUCCEEDED:
        connection.execute(update(T).where(T.c.approval == id).values(expires_at=at + KEPT))
    elif new is ApprovalState.FAILED and drop(connection, id):
        return {MARK: "deleted"}
    return {}


def overdue(connection: Connection, at: datetime) -> Sequence[str]:
    """The requests whose secret nobody asked for in time."""
    return connection.execute(select(T.c.approval).where(T.c.expires_at <= at).order_by(T.c.approval)).scalars().all()


def tokens(connection: Connection) -> dict[str, str]:
    """Approval id to token of every secret that is kept."""
    return {row.approval: row.token for row in connection.execute(select(T).order_by(T.c.approval))}


def recrypt(connection: Connection, renewed: Mapping[str, str]) -> None:
    """Put new tokens in the place of old ones; a secret that was shown meanwhile stays gone."""
    for approval, token in renewed.items():
        connection.execute(update(T).where(T.c.approval == approval).values(token=token))
