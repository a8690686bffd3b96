"""The transaction of every change: the change, its audit and the word to the watchers commit together or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import reduce
from typing import Any

from sqlalchemy import Connection, Select, Text, func, insert, literal_column, select, type_coerce, union, update

from opsagent_jupyter.audit.chain import body_of, link
from opsagent_jupyter.errors import AuditQueryError, AuditUnavailable, StoreCorrupt
from opsagent_jupyter.models import AuditEvent, AuditRow, FeedEntry, new_id, now
from opsagent_jupyter.stores.documents import spelled
from opsagent_jupyter.stores.storage import Storage
from opsagent_jupyter.stores.tables import chain_head, change_feed, plugin_audit_log, storable

HEAD = select(chain_head).where(chain_head.c.id == 1)
ROW = select(*(plugin_audit_log.c[name] for name in AuditRow._fields))
ENTRY = select(change_feed)
#: Made once: making them anew costs more than what SQLite does with them.
_RECORD, _ANNOUNCE = insert(plugin_audit_log), insert(change_feed)
_MOVE = update(chain_head).where(chain_head.c.id == 1)
_LOCKED_HEAD = HEAD.with_for_update()


class Change:
    """One change in the making. The chain's head is locked from its first moment, so changes come one after another."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        head = head_of(connection, lock=True)
        self.at = now()
        self.log_id: str = head.log_id
        self.seq: int = head.audit_seq
        self._hash: str = head.audit_hash
        self._feed_seq: int = head.feed_seq
        self._events: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []

    def audit(self, event: AuditEvent) -> int:
        """Give an event its place in the chain and return its seq."""
        seq, event_id = self.seq + 1, new_id()
        body = _body(event, seq, event_id)
        link_hash = link(self._hash, body)
        self._events.append(
            {
                **_columns(event),
                "seq": seq,
                "event_id": event_id,
                "body": body,
                "prev_hash": self._hash,
                "hash": link_hash,
            }
        )
        self.seq, self._hash = seq, link_hash
        return seq

    def announce(self, topic: str, key: str, kind: str) -> None:
        """Tell the watchers."""
        self._feed_seq += 1
        self._entries.append({"seq": self._feed_seq, "at": self.at, "topic": topic, "key": key, "kind": kind})

    def settle(self, *, notify: bool) -> None:
        """Write what was audited and announced, and move the head."""
        if self._events:
            self.connection.execute(_RECORD, _alone(self._events))
        if self._entries:
            self.connection.execute(_ANNOUNCE, _alone(self._entries))
        if self._events or self._entries:
            values = {"audit_seq": self.seq, "audit_hash": self._hash, "feed_seq": self._feed_seq}
            if notify:
                notification = func.pg_notify(channel_of(self.log_id), str(self._feed_seq))
                self.connection.execute(_MOVE.values(values).returning(notification)).all()
            else:
                self.connection.execute(_MOVE, values)


def _alone(rows: list[dict[str, Any]]) -> list[dict[str, Any]] | dict[str, Any]:
    """A single row by itself, which is sent in one step less than a list."""
    return rows[0] if len(rows) == 1 else rows


def channel_of(log_id: str) -> str:
    """The name under which a store's watchers are notified: stores may share a PostgreSQL database."""
    return f"opsagent_{log_id[:16]}"


@contextmanager
def change(storage: Storage) -> Iterator[Change]:
    """One transaction around a change."""
    with storage.writing() as connection:
        making = Change(connection)
        yield making
        making.settle(notify=storage.notifies)


def head_of(connection: Connection, *, lock: bool = False) -> Any:
    """The head's row; ``StoreCorrupt`` when somebody removed it."""
    row = connection.execute(_LOCKED_HEAD if lock else HEAD).one_or_none()
    if row is None:
        raise StoreCorrupt("The store has lost the head of its audit chain.")
    return row


def _body(event: AuditEvent, seq: int, event_id: str) -> str:
    """The hashed text. What a model or a database sends must never keep its own record out of the audit."""
    sent = event.model_copy(update={"arguments": spelled(event.arguments), "details": spelled(event.details)})
    try:
        return storable(body_of(sent, seq, event_id))
    except ValueError as error:
        raise AuditUnavailable(
            f"The audit record cannot be written as JSON ({error}), so the operation was not started."
        ) from None


def _columns(event: AuditEvent) -> dict[str, Any]:
    """What the queries filter by."""
    names = ("at", "type", "status", "tool", "server", "instance", "session", "approval")
    return {
        **{name: getattr(event, name) for name in names},
        "risk": str(event.risk or ""),
        "actor": event.actor.id,
        "actor_name": event.actor.name,
    }


#: The columns that screens filter by; they repeat what the body says, and verification compares them with it.
FILTER_COLUMNS = (
    "seq", "at", "type", "status", "risk", "tool", "server", "instance", "actor", "actor_name", "session", "approval",
)  # fmt: skip

#: U+001F, in the SQL of both databases.
SEPARATOR: Any = literal_column("'\x1f'")

ACTORS = (plugin_audit_log.c.actor, plugin_audit_log.c.actor_name)

#: The columns that statistics count by.
COUNTED = ("status", "risk", "server", "tool")


def columns_after(connection: Connection, after: int, limit: int) -> Sequence[dict[str, Any]]:
    """The filter columns of the chain's rows with seq > after, in order."""
    table = plugin_audit_log.c
    query = select(*(table[name] for name in FILTER_COLUMNS)).where(table.seq > after).order_by(table.seq).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def columns_in_line(connection: Connection, after: int, limit: int) -> Sequence[tuple[int, str]]:
    """The same as (seq, line): the other columns as one text, with U+001F between them and the time in ISO 8601."""
    table = plugin_audit_log.c
    iso = 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
    parts: list[Any] = [table[name] for name in FILTER_COLUMNS[2:]]
    at: Any = type_coerce(table.at, Text)
    if connection.dialect.name == "postgresql":
        at = func.to_char(func.timezone("UTC", table.at), iso)
    line = reduce(lambda text, part: text.op("||")(SEPARATOR).op("||")(part), parts, at)
    query = select(table.seq, line).where(table.seq > after).order_by(table.seq).limit(limit)
    return [(seq, text) for seq, text in connection.execute(query)]


def rows_after(connection: Connection, after: int, limit: int) -> Sequence[AuditRow]:
    found = ROW.where(plugin_audit_log.c.seq > after).order_by(plugin_audit_log.c.seq).limit(limit)
    return _rows(connection, found)


def rows_before(
    connection: Connection, before: int | None, limit: int, filters: Mapping[str, str]
) -> Sequence[AuditRow]:
    seq = plugin_audit_log.c.seq
    found = ROW.where(*(_condition(name, value) for name, value in filters.items() if name != "actor"))
    if before is not None:
        found = found.where(seq < before)
    found = found.where(*_around(connection, filters)).order_by(seq.desc()).limit(limit)
    if "actor" not in filters:
        return _rows(connection, found)
    # An id or a name: each is read from its own index, and no further than the limit.
    ways = [found.where(column == filters["actor"]).subquery() for column in ACTORS]
    either = union(*(select(way) for way in ways)).subquery()
    return _rows(connection, select(either).order_by(either.c.seq.desc()).limit(limit))


def _around(connection: Connection, filters: Mapping[str, str]) -> Sequence[Any]:
    """Bounds of the sequence for a span of time that has an end, so that no newer row is looked at.

    They are counted from the rows of the span themselves: clocks differ and are set back, so times do not follow the
    sequence, and a record with a wrong time must hide no other.
    """
    if "until" not in filters:
        return ()
    seq = plugin_audit_log.c.seq
    span = [_condition(name, filters[name]) for name in ("since", "until") if name in filters]
    first, last = connection.execute(select(func.min(seq), func.max(seq)).where(*span)).one()
    return (seq.between(first or 0, last or 0),)


def counts(connection: Connection, since: datetime) -> dict[str, dict[str, int]]:
    """How many rows there are since then, by each of a few columns, all counted in one walk."""
    columns = [plugin_audit_log.c[name] for name in COUNTED]
    found = select(*columns, func.count()).where(plugin_audit_log.c.at >= since).group_by(*columns)
    totals: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
    for *values, number in connection.execute(found):
        for name, value in zip(COUNTED, values, strict=True):
            totals[name][value] += number
    return {name: dict(sorted(counter.items())) for name, counter in totals.items()}


def _rows(connection: Connection, found: Select[Any]) -> Sequence[AuditRow]:
    return [AuditRow._make(row) for row in connection.execute(found)]


def _condition(name: str, value: str) -> Any:
    columns = plugin_audit_log.c
    match name:
        case "since":
            return columns.at >= _time(name, value)
        case "until":
            return columns.at < _time(name, value)
        case "risk" | "status" | "server" | "instance" | "tool" | "session" | "approval":
            return columns[name] == value
    raise AuditQueryError(
        f"The audit has no filter {name!r}.",
        hint="Filter by risk, status, server, instance, tool, actor, session, approval, since or until.",
    )


def _time(name: str, value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise AuditQueryError(f"{name} is no time: {value!r}.", hint="Write 2026-11-01T14:00:00+00:00.") from None
    if moment.tzinfo is None:
        raise AuditQueryError(f"{name} has no time zone: {value!r}.", hint="Write 2026-11-01T14:00:00+00:00.")
    return moment


def entries_after(connection: Connection, after: int, limit: int) -> Sequence[FeedEntry]:
    found = ENTRY.where(change_feed.c.seq > after).order_by(change_feed.c.seq).limit(limit)
    return [FeedEntry.model_construct(**row._mapping) for row in connection.execute(found)]  # noqa: SLF001 - as above


def misfits(connection: Connection) -> Sequence[str]:
    """Where the rows of a sequence do not fit its head: rows missing in between, or at the end."""
    head = head_of(connection)
    sequences = {"audit": (plugin_audit_log.c.seq, head.audit_seq), "feed": (change_feed.c.seq, head.feed_seq)}
    findings = []
    for name, (column, expected) in sequences.items():
        count, newest = connection.execute(select(func.count(), func.coalesce(func.max(column), 0))).one()
        if not count == newest == expected:
            findings.append(f"The {name} has {count} rows up to {newest}, its head says {expected}.")
    newest_row = rows_after(connection, head.audit_seq - 1, 1)
    if newest_row and newest_row[0].hash != head.audit_hash:
        findings.append(f"The newest audit row ({head.audit_seq}) is not the one that the head names.")
    return findings
