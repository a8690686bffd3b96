"""Conversations in the store: their transcripts without gaps, and the right to work on one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update

from opsagent_jupyter.contracts import Lease, Place
from opsagent_jupyter.errors import SessionBusy, StoreCorrupt, UnknownSession
from opsagent_jupyter.models import AuditEvent, Message, Session, now
from opsagent_jupyter.stores.documents import document
from opsagent_jupyter.stores.ledger import Change
from opsagent_jupyter.stores.pages import beyond
from opsagent_jupyter.stores.prefixes import matches
from opsagent_jupyter.stores.tables import chat_messages, chat_sessions

S = chat_sessions
M = chat_messages
SESSION = select(*(S.c[name] for name in Session.model_fields))
CHANGEABLE = {"title", "model", "instance", "server", "closed"}


def session_of(row: Any) -> Session:
    return Session.model_validate(dict(row._mapping))  # noqa: SLF001 - public in SQLAlchemy


def find(connection: Connection, id: str) -> Session:
    """Return a session by id or unique prefix."""
    found = matches(connection, S.c.id, id)
    if len(found) > 1:
        raise UnknownSession(f"{id!r} is short for several sessions: {', '.join(found)}.", hint="Write more of the id.")
    if not found:
        raise UnknownSession(f"There is no session {id!r}.")
    return session_of(connection.execute(SESSION.where(S.c.id == found[0])).one())


def page(connection: Connection, limit: int, before: datetime | None, after: Place | None = None) -> Sequence[Session]:
    found = SESSION.order_by(S.c.updated_at.desc(), S.c.id).limit(limit)
    if before is not None:
        found = found.where(S.c.updated_at < before)
    if after is not None:
        found = found.where(*beyond(S.c.updated_at, S.c.id, after))
    return [session_of(row) for row in connection.execute(found)]


def add(change: Change, session: Session, event: AuditEvent) -> None:
    change.connection.execute(insert(S).values(**session.model_dump(), last_seq=0, lease_holder=""))
    change.audit(event)
    change.announce("session", session.id, "added")


def alter(change: Change, id: str, event: AuditEvent | None, changes: Mapping[str, Any]) -> Session:
    if unknown := set(changes) - CHANGEABLE:
        raise TypeError(f"a session has no changeable {', '.join(sorted(unknown))}")
    before = find(change.connection, id)
    after = Session.model_validate({**before.model_dump(), **changes, "updated_at": change.at})
    change.connection.execute(update(S).where(S.c.id == after.id).values(after.model_dump(exclude={"id"})))
    if event is not None:
        change.audit(event)
    change.announce("session", after.id, "closed" if after.closed and not before.closed else "changed")
    return after


def append(change: Change, message: Message, holder: str = "", event: AuditEvent | None = None) -> Message:
    """Give a message the next number of its session and keep it; for a ``holder`` only while the session is in its hands,
    so that a host that slept through the end of its lease cannot write between the words of the next one."""
    counted = update(S).where(S.c.id == message.session).values(last_seq=S.c.last_seq + 1, updated_at=change.at)
    if holder:
        counted = counted.where(S.c.lease_holder == holder)
    seq = change.connection.execute(counted.returning(S.c.last_seq)).scalar_one_or_none()
    if seq is None:
        _held(change.connection, message.session)  # raises when there is no such session
        raise SessionBusy
    kept = message.model_copy(update={"seq": seq})
    change.connection.execute(insert(M).values(session=kept.session, seq=seq, body=document(kept)))
    if event is not None:
        change.audit(event)
    change.announce("message", f"{kept.session}:{seq}", "appended")
    return kept


def transcript(connection: Connection, session: str, after: int, limit: int) -> Sequence[Message]:
    found = select(M).where(M.c.session == session, M.c.seq > after).order_by(M.c.seq).limit(limit)
    return [_message(row) for row in connection.execute(found)]


def transcript_before(connection: Connection, session: str, before: int | None, limit: int) -> Sequence[Message]:
    found = select(M).where(M.c.session == session).order_by(M.c.seq.desc()).limit(limit)
    if before is not None:
        found = found.where(M.c.seq < before)
    return [_message(row) for row in connection.execute(found)]


def _message(row: Any) -> Message:
    try:
        return Message.model_validate_json(row.body)
    except ValueError as error:
        raise StoreCorrupt(f"Message {row.seq} of session {row.session} cannot be read: {error}.") from None


def lease(connection: Connection, id: str, holder: str, seconds: float) -> Lease:
    """Take the right to work on a session, unless another holder's still runs; say how it was left."""
    if is_held(connection, id, holder, lock=True):
        return ""
    left: Lease = "left" if _held(connection, id).lease_holder not in ("", holder) else "free"
    values = {"lease_holder": holder, "lease_until": now() + timedelta(seconds=seconds)}
    connection.execute(update(S).where(S.c.id == id).values(values))
    return left


def renew(connection: Connection, id: str, holder: str, seconds: float) -> bool:
    """Keep the right for longer. It is never taken anew here: another holder may have come and gone meanwhile, and what
    this one has read of the transcript would be old."""
    held = update(S).where(S.c.id == id, S.c.lease_holder == holder)
    return connection.execute(held.values(lease_until=now() + timedelta(seconds=seconds))).rowcount == 1


def is_held(connection: Connection, id: str, holder: str, *, lock: bool = False) -> bool:
    """Whether another holder's lease still runs."""
    found = _held(connection, id, lock=lock)
    return bool(found.lease_holder not in ("", holder) and found.lease_until > now())


def _held(connection: Connection, id: str, *, lock: bool = False) -> Any:
    found = select(S.c.lease_holder, S.c.lease_until).where(S.c.id == id)
    row = connection.execute(found.with_for_update() if lock else found).one_or_none()
    if row is None:
        raise UnknownSession(f"There is no session {id!r}.")
    return row


def release(connection: Connection, id: str, holder: str) -> None:
    held = update(S).where(S.c.id == id, S.c.lease_holder == holder)
    connection.execute(held.values(lease_holder="", lease_until=None))
