"""The tables of the shared store, the same on SQLite and PostgreSQL.

Values are kept as canonical JSON of their models in ``body``; a typed column stands beside it where a query needs it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    literal_column,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

#: What no PostgreSQL text may hold: NUL, and halves of surrogate pairs (JSON can spell both, so a model can send them).
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for every character that a database cannot keep."""
    if text.isascii() and "\0" not in text:  # nearly all: the pattern would read every letter
        return text
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


class Words(TypeDecorator[str]):
    """Text that sorts and compares by code point on both databases."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else storable(value)


def sent_moment(value: datetime, dialect: Dialect) -> datetime | str:
    """A time as it goes to the driver."""
    moment = value.astimezone(UTC)
    return moment if dialect.name == "postgresql" else moment.isoformat(timespec="microseconds")


def kept_moment(value: datetime | str) -> datetime:
    """A time as it comes from the driver, in UTC."""
    return (value if isinstance(value, datetime) else datetime.fromisoformat(value)).astimezone(UTC)


class Moment(TypeDecorator[datetime]):
    """A time in UTC that compares right, to the microsecond: timestamptz, or on SQLite ISO-8601 of fixed width."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return TIMESTAMP(timezone=True) if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return sent_moment(value, dialect)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - as above
        return None if value is None else kept_moment(value)


#: 64 bits on both: SQLite wants the plain word to use it as the row's own number.
Number = BigInteger().with_variant(Integer, "sqlite")

#: Alembic's own, under a name by which a store is recognised.
VERSION_TABLE = "opsagent_version"

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def words(name: str, *constraints: Any, **options: Any) -> Column[str]:
    return Column(name, Words, *constraints, **{"nullable": False, **options})


def moment(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, Moment, nullable=nullable)


def number(name: str, **options: Any) -> Column[int]:
    return Column(name, Number, **{"nullable": False, "autoincrement": False, **options})


#: One row. Whoever changes anything holds it locked, so both sequences are gapless in the order of the commits.
chain_head = Table(
    "chain_head",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    words("log_id"),
    number("audit_seq"),
    words("audit_hash"),
    number("feed_seq"),
)

plugin_audit_log = Table(
    "plugin_audit_log",
    metadata,
    number("seq", primary_key=True),
    words("event_id", unique=True),
    moment("at"),
    words("type"),
    words("status"),
    words("risk"),
    words("tool"),
    words("server"),
    words("instance"),
    words("actor"),
    words("actor_name"),
    words("session"),
    words("approval"),
    words("body"),
    words("prev_hash"),
    words("hash"),
)

#: Columns with an index of their own; a query reads one backwards and stops at its limit.
INDEXED = ("status", "risk", "tool", "session", "approval")
#: Columns that few values fill. Which zones hold a value is looked up; an index would cost every record the write of a page.
ZONED = ("server", "instance", "actor", "actor_name")
#: Rows of a zone: those whose ``seq // ZONE`` is the zone's number.
ZONE = 128
#: Values that most rows have, and reads all: an index on them would cost every record the write of a page, and the newest
#: rows that have them are found as soon without one.
COMMON: dict[str, tuple[str, ...]] = {"status": ("running", "succeeded"), "risk": ("", "low"), "approval": ("",)}


def uncommon(name: str) -> ColumnElement[bool]:
    """The condition of an index without the common values; a query that repeats it word by word can use the index."""
    listed = ", ".join(f"'{value}'" for value in COMMON[name])
    return literal_column(f"{name} NOT IN ({listed})")


def holds(name: str, value: str) -> ColumnElement[bool]:
    """The condition that a row of the audit has this value in this column, in such words that an index can serve."""
    same = plugin_audit_log.c[name] == value
    return same if value in COMMON.get(name, (value,)) else and_(same, uncommon(name))


Index(None, plugin_audit_log.c.at)
for _name in INDEXED:
    _where = uncommon(_name) if _name in COMMON else None
    Index(None, plugin_audit_log.c[_name], plugin_audit_log.c.seq, sqlite_where=_where, postgresql_where=_where)

#: What stands where in the audit: the values that rows of a zone have together. A trigger keeps it, whoever writes.
audit_zones = Table(
    "audit_zones",
    metadata,
    number("zone", primary_key=True),
    *(words(name, primary_key=True) for name in ZONED),
    *(Index(None, name, "zone") for name in ZONED),
    sqlite_with_rowid=False,
)

change_feed = Table(
    "change_feed",
    metadata,
    number("seq", primary_key=True),
    moment("at"),
    words("topic"),
    words("key"),
    words("kind"),
)

plugins = Table(
    "plugins",
    metadata,
    words("name", primary_key=True),
    words("version"),
    words("definition"),
    moment("updated_at"),
)

servers = Table("servers", metadata, words("name", primary_key=True), moment("created_at"))

agent_plugins = Table(
    "agent_plugins",
    metadata,
    words("id", primary_key=True),
    words("name", unique=True),
    words("server", ForeignKey("servers.name"), index=True),
    words("plugin", ForeignKey("plugins.name"), index=True),
    words("body"),
    words("credentials"),
)

chat_sessions = Table(
    "chat_sessions",
    metadata,
    words("id", primary_key=True),
    words("title"),
    words("instance"),
    words("server"),
    words("model"),
    words("created_by"),
    moment("created_at"),
    moment("updated_at"),
    Column("closed", Boolean, nullable=False),
    number("last_seq"),
    words("lease_holder"),
    moment("lease_until", nullable=True),
    Index(None, "updated_at"),
)

chat_messages = Table(
    "chat_messages",
    metadata,
    words("session", ForeignKey("chat_sessions.id"), primary_key=True),
    number("seq", primary_key=True),
    words("body"),
)

#: ``state`` and ``version`` live in their columns alone; the other columns repeat what is in ``body`` for the queries.
approval_requests = Table(
    "approval_requests",
    metadata,
    words("id", primary_key=True),
    words("state"),
    number("version"),
    words("session"),
    words("host"),
    moment("created_at"),
    moment("expires_at"),
    moment("use_by", nullable=True),
    words("body"),
    Index(None, "created_at"),
    Index(None, "state", "created_at"),
    Index(None, "session", "created_at"),
)

#: Secrets that a call has made, encrypted, until somebody was shown them; they expire from the success on.
one_time_secrets = Table(
    "one_time_secrets",
    metadata,
    words("approval", ForeignKey("approval_requests.id"), primary_key=True),
    words("token"),
    moment("kept_at"),
    moment("expires_at", nullable=True),
)

#: Signatures of runbooks. ``revoked_at`` repeats what is in ``body`` for the queries.
runbook_vettings = Table(
    "runbook_vettings",
    metadata,
    words("id", primary_key=True),
    words("runbook"),
    moment("signed_at"),
    moment("revoked_at", nullable=True),
    words("body"),
    Index(None, "runbook", "signed_at"),
    Index(None, "signed_at"),
)

#: Which call is which step of which run: written with the audit events that say so, so that nobody has to search them.
runbook_steps = Table(
    "runbook_steps",
    metadata,
    words("call", primary_key=True),
    words("runbook"),
    words("run"),
    words("step"),
    words("tool"),
    words("server"),
    words("instance"),
    words("risk"),
    words("actor_name"),
    words("approval"),
    words("status"),
    words("summary"),
    moment("asked_at"),
    moment("ended_at", nullable=True),
    number("seq"),
    Index(None, "runbook", "run", "seq"),
    Index(None, "seq"),
)

hosts = Table(
    "hosts",
    metadata,
    words("id", primary_key=True),
    words("kind"),
    Column("pid", Integer, nullable=False),
    words("machine"),
    moment("started_at"),
    moment("seen_at"),
)
