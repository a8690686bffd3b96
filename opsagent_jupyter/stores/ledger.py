"""The transaction of every change: the change, its audit and the word to the watchers commit together or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache, reduce
from typing import Any, NoReturn

from sqlalchemy import (
    Connection,
    Dialect,
    Select,
    Text,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    type_coerce,
    update,
)

from opsagent_jupyter.audit.chain import body_of, link
from opsagent_jupyter.errors import AuditQueryError, AuditUnavailable, StoreCorrupt
from opsagent_jupyter.models import AuditEvent, AuditRow, FeedEntry, new_id, now
from opsagent_jupyter.stores import pruning, runbook_steps, zones
from opsagent_jupyter.stores.documents import spelled
from opsagent_jupyter.stores.storage import Storage
from opsagent_jupyter.stores.tables import (
    COMMON,
    INDEXED,
    chain_head,
    change_feed,
    holds,
    kept_moment,
    plugin_audit_log,
    sent_moment,
    storable,
)

HEAD = select(chain_head).where(chain_head.c.id == 1)
ROW = select(*(plugin_audit_log.c[name] for name in AuditRow._fields))
_ENTRIES = (
    select(*(change_feed.c[name] for name in ("seq", "at", "topic", "key", "kind")))
    .where(change_feed.c.seq > bindparam("after"))
    .order_by(change_feed.c.seq)
    .limit(bindparam("most"))
    .offset(literal_column("0"))
)
_MOVED: dict[str, Any] = {name: bindparam(name) for name in ("audit_seq", "audit_hash", "feed_seq")}
#: The statements of every change.
_THE_HEAD = chain_head.c.id == literal_column("1")
_LOCK = select(*(chain_head.c[name] for name in ("log_id", *_MOVED))).where(_THE_HEAD).with_for_update()
_RECORD, _ANNOUNCE = insert(plugin_audit_log), insert(change_feed)
_MOVE = update(chain_head).where(_THE_HEAD).values(_MOVED)
_MOVE_AND_NOTIFY = _MOVE.returning(func.pg_notify(bindparam("channel"), bindparam("message")))


class Driver:
    """Sends the statements of every call by the driver itself: SQLAlchemy's way takes longer than SQLite does."""

    def __init__(self, dialect: Dialect, connection: Any) -> None:
        self._dialect = dialect
        self._connection = connection

    @classmethod
    def of(cls, connection: Connection) -> Driver:
        """The driver below a connection."""
        return cls(connection.dialect, connection.connection.driver_connection)

    def run(self, statement: Any, *rows: Mapping[str, Any]) -> int:
        """Run a statement once for each row of values; how many rows it changed."""
        changed = 0
        for row in rows:
            changed += self._send(statement, row).rowcount
        return changed

    def rows(self, statement: Any, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """What a query finds, as the database sends it."""
        found: Sequence[tuple[Any, ...]] = self._send(statement, values).fetchall()
        return found

    def _send(self, statement: Any, values: Mapping[str, Any]) -> Any:
        # A number, and a text of ASCII without NUL, as nearly all are, is sent as it is; the rest as the column types would.
        named = {
            name: value
            if type(value) is int or (type(value) is str and value.isascii() and "\0" not in value)
            else self._value(value)
            for name, value in values.items()
        }
        return self._connection.execute(_spelling(statement, self._dialect), named)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return storable(value)
        return sent_moment(value, self._dialect) if isinstance(value, datetime) else value


@lru_cache(maxsize=32)
def _spelling(statement: Any, dialect: Dialect) -> str:
    return str(statement.compile(dialect=dialect))


class Records:
    """Records in the making. The chain's head is locked from the first moment, so they come one after another."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        (head,) = self._driver.rows(_LOCK, {}) or _lost()
        self.at = now()
        self.log_id: str
        self.seq: int
        self._hash: str
        self._feed_seq: int
        self.log_id, self.seq, self._hash, self._feed_seq = head
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
        if event.details:
            runbook_steps.note(self._driver, event, seq)
        return seq

    def announce(self, topic: str, key: str, kind: str) -> None:
        """Tell the watchers."""
        self._feed_seq += 1
        self._entries.append({"seq": self._feed_seq, "at": self.at, "topic": topic, "key": key, "kind": kind})

    def settle(self, *, notify: bool) -> None:
        """Write what was audited and announced, and move the head."""
        if not (self._events or self._entries):
            return
        self._driver.run(_RECORD, *self._events)
        self._driver.run(_ANNOUNCE, *self._entries)
        moved = {"audit_seq": self.seq, "audit_hash": self._hash, "feed_seq": self._feed_seq}
        if notify:
            news = {"channel": channel_of(self.log_id), "message": str(self._feed_seq)}
            self._driver.run(_MOVE_AND_NOTIFY, moved | news)
        else:
            self._driver.run(_MOVE, moved)


class Change(Records):
    """One change in the making, with its records."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(Driver.of(connection))
        self.connection = connection


def channel_of(log_id: str) -> str:
    """The name under which a store's watchers are notified: stores may share a PostgreSQL database."""
    return f"opsagent_{log_id[:16]}"


@contextmanager
def records(storage: Storage, *, at_once: bool = False) -> Iterator[Records]:
    """One transaction around records that come with no change."""
    with storage.recording(at_once=at_once) as connection:
        making = Records(Driver(storage.dialect, connection))
        yield making
        making.settle(notify=storage.notifies)


@contextmanager
def change(storage: Storage) -> Iterator[Change]:
    """One transaction around a change."""
    with storage.writing() as connection:
        making = Change(connection)
        yield making
        making.settle(notify=storage.notifies)


def head_of(connection: Connection) -> Any:
    """The head's row; ``StoreCorrupt`` when somebody removed it."""
    return connection.execute(HEAD).one_or_none() or _lost()


def _lost() -> NoReturn:
    raise StoreCorrupt("The store has lost the head of its audit chain.")


def _body(event: AuditEvent, seq: int, event_id: str) -> str:
    """The hashed text. What a model or a database sends must never keep its own record out of the audit."""
    with suppress(ValueError):
        return storable(body_of(event, seq, event_id))
    sent = event.model_copy(update={"arguments": spelled(event.arguments), "details": spelled(event.details)})
    try:
        return storable(body_of(sent, seq, event_id))
    except ValueError as error:
        raise AuditUnavailable(
            f"The audit record cannot be written as JSON ({error}), so the operation was not started."
        ) from None


def _columns(event: AuditEvent) -> dict[str, Any]:
    """What the queries filter by."""
    return {
        "at": event.at,
        "type": event.type,
        "status": event.status,
        "risk": str(event.risk or ""),
        "tool": event.tool,
        "server": event.server,
        "instance": event.instance,
        "actor": event.actor.id,
        "actor_name": event.actor.name,
        "session": event.session,
        "approval": event.approval,
    }


#: The columns that screens filter by; they repeat what the body says, and verification compares them with it.
FILTER_COLUMNS = (
    "seq", "at", "type", "status", "risk", "tool", "server", "instance", "actor", "actor_name", "session", "approval",
)  # fmt: skip

#: U+001F, in the SQL of both databases.
SEPARATOR: Any = literal_column("'\x1f'")

#: Rows of a value that are counted to tell a rare one from a common one.
MANY = 2000

#: The columns that statistics count by.
COUNTED = ("status", "risk", "server", "tool")


def columns_after(connection: Connection, after: int, limit: int) -> Sequence[dict[str, Any]]:
    """The filter columns of the chain's rows with seq > after, in order."""
    table = plugin_audit_log.c
    query = select(*(table[name] for name in FILTER_COLUMNS)).where(table.seq > after).order_by(table.seq).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def columns_in_line(connection: Connection, after: int, limit: int) -> Sequence[tuple[int, str]]:
    """The same as (seq, line)."""
    seq = plugin_audit_log.c.seq
    query = select(seq, line_of(connection.dialect.name)).where(seq > after).order_by(seq).limit(limit)
    return [(place, text) for place, text in connection.execute(query)]


def line_of(dialect: str) -> Any:
    """The filter columns but ``seq`` as one text, with U+001F between them and the time in ISO 8601."""
    table = plugin_audit_log.c
    iso = 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
    parts: list[Any] = [table[name] for name in FILTER_COLUMNS[2:]]
    at: Any = type_coerce(table.at, Text)
    if dialect == "postgresql":
        at = func.to_char(func.timezone("UTC", table.at), iso)
    return reduce(lambda text, part: text.op("||")(SEPARATOR).op("||")(part), parts, at)


def rows_after(connection: Connection, after: int, limit: int) -> Sequence[AuditRow]:
    found = ROW.where(plugin_audit_log.c.seq > after).order_by(plugin_audit_log.c.seq).limit(limit)
    return _rows(connection, found)


def rows_before(
    connection: Connection, before: int | None, limit: int, filters: Mapping[str, str]
) -> Sequence[AuditRow]:
    seq = plugin_audit_log.c.seq
    found = ROW.where(*_conditions(connection, filters)).order_by(seq.desc())
    asked = zones.asked(filters)
    low, high = _around(connection, filters, surely=bool(asked))
    if before is not None:
        high = before - 1 if high is None else min(high, before - 1)
    if not asked:
        bounds = [*([seq >= low] if low is not None else []), *([seq <= high] if high is not None else [])]
        return _rows(connection, found.where(*bounds).limit(limit))
    if high is None:
        high = int(connection.execute(select(func.max(seq))).scalar() or 0)
    rows: list[AuditRow] = []
    for first, last in zones.stretches(connection, asked, low or 0, high):
        rows += _rows(connection, found.where(seq.between(first, last)).limit(limit - len(rows)))
        if len(rows) == limit:
            break
    return rows


def _around(connection: Connection, filters: Mapping[str, str], *, surely: bool) -> tuple[int | None, int | None]:
    """The first and the last place of a span of time that has an end, so that no newer row is looked at; also of one without
    an end, where they are wanted ``surely``.

    They are counted from the rows of the span themselves: clocks differ and are set back, so times do not follow the
    sequence, and a record with a wrong time must hide no other.
    """
    seq, span = (
        plugin_audit_log.c.seq,
        [_condition(name, filters[name]) for name in ("since", "until") if name in filters],
    )
    if "until" in filters and "since" not in filters:
        return None, _last_of(connection, *span)
    if not span or not (surely or "until" in filters):
        return None, None
    first, last = connection.execute(select(func.min(seq), func.max(seq)).where(*span)).one()
    return first or 0, last or 0


def _last_of(connection: Connection, before: Any) -> int:
    """The largest seq of the rows before a time. It is that of the newest of them when every later row is at or after the
    time, which is counted where those are the fewer; else all rows before the time are looked at."""
    at, seq = plugin_audit_log.c.at, plugin_audit_log.c.seq
    near = connection.execute(select(seq).where(before).order_by(at.desc(), seq.desc()).limit(1)).scalar()
    if near is None:
        return 0
    later = int(connection.execute(select(func.max(seq))).scalar_one()) - int(near)
    if later < near and later == connection.execute(select(func.count()).where(~before, seq > near)).scalar():
        return int(near)
    _, last = connection.execute(select(func.min(seq), func.max(seq)).where(before)).one()
    return int(last)


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


def _conditions(connection: Connection, filters: Mapping[str, str]) -> Sequence[Any]:
    """The filters, in such words that of several indexes SQLite takes the one with the fewest rows, which it cannot know: it
    keeps no statistics here. PostgreSQL does."""
    indexed = [name for name in INDEXED if name in filters and filters[name] not in COMMON.get(name, ())]
    if connection.dialect.name != "sqlite" or len(indexed) < 2:
        return [_condition(name, value) for name, value in filters.items()]
    best = min(indexed, key=lambda name: _number(connection, name, filters[name]))
    columns = plugin_audit_log.c
    return [
        columns[name].concat("") == value if name in indexed and name != best else _condition(name, value)
        for name, value in filters.items()
    ]


def _number(connection: Connection, name: str, value: str) -> int:
    """How many rows have a value, as far as it is worth counting."""
    some = select(plugin_audit_log.c.seq).where(holds(name, value)).limit(MANY).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def _condition(name: str, value: str) -> Any:
    columns = plugin_audit_log.c
    match name:
        case "actor":
            return or_(columns.actor == value, columns.actor_name == value)
        case "since":
            return columns.at >= _time(name, value)
        case "until":
            return columns.at < _time(name, value)
        case "risk" | "status" | "server" | "instance" | "tool" | "session" | "approval":
            return holds(name, value)
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


def entries_after(driver: Driver, after: int, limit: int) -> Sequence[FeedEntry]:
    found = driver.rows(_ENTRIES, {"after": after, "most": limit})
    return [
        FeedEntry.model_construct(seq=seq, at=kept_moment(at), topic=topic, key=key, kind=kind)
        for seq, at, topic, key, kind in found
    ]


def misfits(connection: Connection) -> Sequence[str]:
    """Where the rows of a sequence do not fit its head: rows missing in between, or at the end."""
    head = head_of(connection)
    sequences = {"audit": (plugin_audit_log.c.seq, head.audit_seq), "feed": (change_feed.c.seq, head.feed_seq)}
    findings = []
    for name, (column, expected) in sequences.items():
        count, newest = connection.execute(select(func.count(), func.coalesce(func.max(column), 0))).one()
        gone = pruning.removed(connection) if name == "audit" else 0
        if not count + gone == newest == expected:
            findings.append(f"The {name} has {count} rows up to {newest}, its head says {expected}.")
    if lost := zones.missing(connection):
        findings.append(
            f"Zones of the audit that lack what their rows have: {lost}. A filtered list leaves those rows out."
        )
    newest_row = rows_after(connection, head.audit_seq - 1, 1)
    if newest_row and newest_row[0].hash != head.audit_hash:
        findings.append(f"The newest audit row ({head.audit_seq}) is not the one that the head names.")
    return findings
