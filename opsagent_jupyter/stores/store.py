"""The shared store: ``open_store`` and the one class behind it, over SQLite and PostgreSQL alike."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from opsagent_jupyter.config import data_folder
from opsagent_jupyter.contracts import Lease, Place
from opsagent_jupyter.errors import ConfigError, MissingExtra, SecretExpired, StoreCorrupt, StoreError
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import (
    Approval,
    AuditEvent,
    AuditRow,
    FeedEntry,
    Host,
    Instance,
    Json,
    Message,
    Session,
)
from opsagent_jupyter.stores import (
    approvals,
    blocks,
    instances,
    ledger,
    one_time,
    pruning,
    revealing,
    runbook_steps,
    schema,
    sessions,
    vettings,
)
from opsagent_jupyter.stores.copying import copy_rows
from opsagent_jupyter.stores.latecomers import already_decided
from opsagent_jupyter.stores.sqlite import SqliteFile, explain_os
from opsagent_jupyter.stores.storage import Storage
from opsagent_jupyter.stores.tables import hosts
from opsagent_jupyter.stores.watching import Watch
from opsagent_jupyter.vetting import StepRecord, Vetting

T = TypeVar("T")
SQLITE = {"sqlite", "sqlite+pysqlite"}
POSTGRESQL = {"postgresql", "postgres", "postgresql+psycopg"}


def open_store(url: str | None = None, *, lock_timeout: float = 30.0, upgrade: bool = True) -> SharedStore:
    """Open the store at a URL, made or upgraded when needed; without a URL the file in the Jupyter data directory.

    ``lock_timeout`` is how many seconds a write waits for others. With ``upgrade=False`` an older store is left as it
    is, with ``SchemaOutdated``.
    """
    storage = _storage(_parsed(url), lock_timeout)
    try:
        schema.prepare(storage, upgrade=upgrade)
        return SharedStore(storage)
    except BaseException:
        storage.close()
        raise


def _parsed(url: str | None) -> URL:
    if not url:
        return URL.create("sqlite", database=str(data_folder() / "opsagent.db"))
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # the text may hold a password, so it is not repeated
        raise ConfigError(
            "OPSAGENT_STORE_URL cannot be read.",
            hint="Write sqlite:////path/opsagent.db or postgresql+psycopg://user:password@host:5432/database.",
        ) from None


def _storage(url: URL, lock_timeout: float) -> Storage:
    if url.drivername in SQLITE:
        return SqliteFile(_path(url), lock_timeout)
    if url.drivername not in POSTGRESQL:
        raise ConfigError(
            f"A store cannot be kept in {url.drivername!r}.", hint="Use sqlite:////path or postgresql+psycopg://..."
        )
    try:
        from opsagent_jupyter.stores.postgresql import PostgresqlServer
    except ImportError:
        raise MissingExtra(
            "A store on PostgreSQL needs psycopg.",
            hint="pip install 'opsagent_jupyter[postgresql]'",
            extra="postgresql",
        ) from None
    return PostgresqlServer(url.set(drivername="postgresql+psycopg"), lock_timeout)


def _path(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise ConfigError(
            "A store in memory cannot be shared, and its audit would be gone with the process.",
            hint="Write sqlite:////path/opsagent.db.",
        )
    return Path(os.path.abspath(Path(url.database).expanduser()))  # noqa: PTH100 - resolve() would follow a link away


class SharedStore:
    """The shared store (see ``contracts.Store``). Safe to use from several threads; each change is one transaction."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.url = storage.url
        self.kind = storage.kind
        self.journal_mode = storage.journal_mode
        self.notices = storage.notices
        with storage.reading() as connection:
            self.log_id: str = ledger.head_of(connection).log_id
        self._watch = Watch(self.feed, lambda stop: storage.changes(stop, ledger.channel_of(self.log_id)))

    def __repr__(self) -> str:
        return f"SharedStore({self.url!r})"

    # -- audit and feed

    @property
    def swift(self) -> bool:
        """See ``Storage``."""
        return self._storage.swift

    def record(self, *events: AuditEvent, at_once: bool = False) -> int:
        if not events:
            return self.audit_head()[0]
        with ledger.records(self._storage, at_once=at_once) as records:
            for event in events:
                records.audit(event)
            records.announce("audit", str(records.seq), "recorded")
        return records.seq

    def audit_rows(self, after: int, limit: int) -> Sequence[AuditRow]:
        with self._storage.reading() as connection:
            return ledger.rows_after(connection, after, limit)

    def audit_columns(self, after: int, limit: int) -> Sequence[dict[str, Any]]:
        """The filter columns of those rows, for verification: they have to say what the bodies say."""
        with self._storage.reading() as connection:
            return ledger.columns_after(connection, after, limit)

    def audit_columns_in_line(self, after: int, limit: int) -> Sequence[tuple[int, str]]:
        """The same for many rows at once, as (seq, the other columns in one text)."""
        with self._storage.reading() as connection:
            return ledger.columns_in_line(connection, after, limit)

    def audit_block(self, after: int, limit: int, *, beside: bool = False) -> Mapping[str, Any]:
        """Those rows by the column, for readers in bulk (see ``blocks.block_after``)."""
        with self._storage.reading() as connection:
            return blocks.block_after(connection, after, limit, beside=beside)

    def prune_audit(self, record: int, most: int = 2000) -> int:
        """Remove at most so many of the oldest rows that the record of a prune allows (see ``pruning.prune``); how many went."""
        with self._storage.writing() as connection:
            return pruning.prune(connection, record, most)

    def audit_page(self, *, before: int | None, limit: int, filters: Mapping[str, str]) -> Sequence[AuditRow]:
        with self._storage.reading() as connection:
            return ledger.rows_before(connection, before, limit, filters)

    def audit_counts(self, since: datetime) -> dict[str, dict[str, int]]:
        with self._storage.reading() as connection:
            return ledger.counts(connection, since)

    def audit_head(self) -> tuple[int, str]:
        with self._storage.reading() as connection:
            head = ledger.head_of(connection)
        return head.audit_seq, head.audit_hash

    def feed(self, after: int, limit: int = 500) -> Sequence[FeedEntry]:
        with self._storage.glancing() as connection:
            return ledger.entries_after(ledger.Driver(self._storage.dialect, connection), after, limit)

    def feed_head(self) -> int:
        with self._storage.reading() as connection:
            return int(ledger.head_of(connection).feed_seq)

    def watch(self, after: int) -> AsyncIterator[FeedEntry]:
        return self._watch.entries(after)

    # -- instances

    def add_instance(self, instance: Instance, credentials: Mapping[str, str], event: AuditEvent) -> None:
        with ledger.change(self._storage) as change:
            instances.add(change, instance, credentials, event)

    def remove_instance(self, name: str, event: AuditEvent) -> None:
        with ledger.change(self._storage) as change:
            instances.remove(change, name, event)

    def instance(self, name: str) -> Instance:
        with self._storage.glancing() as connection:
            found = instances.known(ledger.Driver(self._storage.dialect, connection), name)
        if found is not None:
            return found
        with self._storage.reading() as connection:
            return instances.find(connection, name)

    def instances(self) -> Sequence[Instance]:
        with self._storage.reading() as connection:
            return instances.all_of(connection)

    def credentials(self, instance_id: str) -> dict[str, str]:
        with self._storage.reading() as connection:
            return instances.credentials(connection, instance_id)

    def replace_credentials(
        self, tokens: Mapping[str, Mapping[str, str]], event: AuditEvent, secrets: Mapping[str, str] | None = None
    ) -> None:
        with ledger.change(self._storage) as change:
            instances.recrypt(change, tokens, event, secrets or {})

    def servers(self) -> Sequence[str]:
        """Return the names of the servers that have, or had, a database attached."""
        with self._storage.reading() as connection:
            return instances.servers_of(connection)

    def add_server(self, name: str, event: AuditEvent) -> None:
        """Keep a server that has nothing attached yet; nothing happens when it is known."""
        with ledger.change(self._storage) as change:
            instances.add_server(change, name, event)

    def define_plugin(self, name: str, version: str, definition: Mapping[str, Json]) -> None:
        """Keep what an installed plugin offers, for hosts that do not have it installed."""
        with ledger.change(self._storage) as change:
            instances.define(change, name, version, definition)

    def plugin_definitions(self) -> dict[str, dict[str, Json]]:
        """Return name -> definition of the plugins that were seen, each with its version."""
        with self._storage.reading() as connection:
            return instances.definitions(connection)

    # -- sessions

    def add_session(self, session: Session, event: AuditEvent) -> None:
        with ledger.change(self._storage) as change:
            sessions.add(change, session, event)

    def session(self, id: str) -> Session:
        with self._storage.reading() as connection:
            return sessions.find(connection, id)

    def sessions(
        self, *, limit: int = 100, before: datetime | None = None, after: Place | None = None
    ) -> Sequence[Session]:
        with self._storage.reading() as connection:
            return sessions.page(connection, limit, before, after)

    def update_session(self, id: str, event: AuditEvent | None = None, **changes: Any) -> Session:
        with ledger.change(self._storage) as change:
            return sessions.alter(change, id, event, changes)

    def lease_session(self, id: str, holder: str, seconds: float) -> Lease:
        """Looks first without a lock: who waits for the end of another host's turn asks often."""
        with self._storage.reading() as connection:
            if sessions.is_held(connection, id, holder):
                return ""
        with self._storage.writing() as connection:
            return sessions.lease(connection, id, holder, seconds)

    def renew_session(self, id: str, holder: str, seconds: float) -> bool:
        with self._storage.writing() as connection:
            return sessions.renew(connection, id, holder, seconds)

    def release_session(self, id: str, holder: str) -> None:
        with self._storage.writing() as connection:
            sessions.release(connection, id, holder)

    def append(self, message: Message, holder: str = "", event: AuditEvent | None = None) -> Message:
        with ledger.change(self._storage) as change:
            return sessions.append(change, message, holder, event)

    def messages(self, session: str, after: int = 0, limit: int = 10_000) -> Sequence[Message]:
        with self._storage.reading() as connection:
            return sessions.transcript(connection, session, after, limit)

    def messages_before(self, session: str, before: int | None, limit: int) -> Sequence[Message]:
        with self._storage.reading() as connection:
            return sessions.transcript_before(connection, session, before, limit)

    # -- approvals

    def add_approval(self, approval: Approval, event: AuditEvent) -> None:
        with ledger.change(self._storage) as change:
            approvals.add(change, approval, event)

    def approval(self, id: str) -> Approval:
        with self._storage.reading() as connection:
            return approvals.find(connection, id)

    def approvals(
        self,
        *,
        states: Sequence[ApprovalState] = (),
        session: str = "",
        limit: int = 100,
        before: datetime | None = None,
        after: Place | None = None,
    ) -> Sequence[Approval]:
        with self._storage.reading() as connection:
            return approvals.page(connection, states, session, limit, before, after)

    def move(self, id: str, new: ApprovalState, event: AuditEvent, **changes: Any) -> Approval:
        """A decision or a claim that comes after its time makes the request expire, and is refused."""
        with ledger.change(self._storage) as change:
            approval = approvals.hold(change, id)
            if new not in approvals.TIMELY or not approvals.overdue(approval, change.at):
                return approvals.transit(change, approval, new, event, changes)
            late = approvals.expire(change, approval, change.at)
        raise already_decided(late)

    def claim(self, id: str, host: str, event: AuditEvent) -> Approval | None:
        """Looks first without a lock: of many hosts that wake up for one approval, only one has something to write.

        Raises ``DigestMismatch`` when the audit does not agree that just this was approved and has not been run."""
        with self._storage.reading() as connection:
            if approvals.state_of(connection, id) is not ApprovalState.APPROVED:
                return None
        with ledger.change(self._storage) as change:
            approval = approvals.hold(change, id)
            if approval.state is not ApprovalState.APPROVED or approvals.overdue(approval, change.at):
                return None
            approvals.require_witness(change.connection, id, approval, event.digest)
            fields = {"host": host, "claimed_at": change.at}
            return approvals.transit(change, approval, ApprovalState.EXECUTING, event, fields)

    def note(self, id: str, host: str, evidence: Mapping[str, Json], secret: str = "") -> None:
        with self._storage.writing() as connection:
            approvals.note(connection, id, host, evidence, secret)

    def reveal_secret(self, id: str, event: AuditEvent, unseal: Callable[[str], T]) -> T:
        """A secret that is asked for after its time is deleted, and refused."""
        with ledger.change(self._storage) as change:
            approval = approvals.hold(change, id)
            if not revealing.is_overdue(change, approval):
                return revealing.reveal(change, approval, event, unseal)
            revealing.expire(change, approval)
        raise SecretExpired

    def expire_secrets(self, at: datetime) -> Sequence[str]:
        """Looks first without a lock: most of the time there is no secret at all."""
        with self._storage.reading() as connection:
            if not one_time.overdue(connection, at):
                return []
        with ledger.change(self._storage) as change:
            late = one_time.overdue(change.connection, at)
            for key in late:
                revealing.expire(change, approvals.hold(change, key))
            return late

    def one_time_secrets(self) -> dict[str, str]:
        with self._storage.reading() as connection:
            return one_time.tokens(connection)

    def expire(self, at: datetime) -> Sequence[Approval]:
        """Looks first without a lock: most of the time nothing is overdue."""
        with self._storage.reading() as connection:
            if not approvals.overdue_ids(connection, at):
                return []
        with ledger.change(self._storage) as change:
            late = [approvals.hold(change, key) for key in approvals.overdue_ids(change.connection, at)]
            return [approvals.expire(change, approval, at) for approval in late if approvals.overdue(approval, at)]

    # -- runbooks

    def add_vetting(self, vetting: Vetting, event: AuditEvent) -> None:
        with ledger.change(self._storage) as change:
            vettings.add(change, vetting, event)

    def vetting(self, id: str) -> Vetting:
        with self._storage.reading() as connection:
            return vettings.find(connection, id)

    def witnessed_vetting(self, id: str) -> Vetting:
        with self._storage.snapshot() as connection:
            return vettings.witnessed(connection, id)

    def vettings(self, runbook: str = "", limit: int = 100) -> Sequence[Vetting]:
        with self._storage.reading() as connection:
            return vettings.page(connection, runbook, limit)

    def revoke_vetting(self, id: str, event: AuditEvent) -> Vetting:
        with ledger.change(self._storage) as change:
            return vettings.revoke(change, id, event)

    def runbook_steps(self, runbook: str = "", run: str = "", limit: int = 1000) -> Sequence[StepRecord]:
        with self._storage.reading() as connection:
            return runbook_steps.page(connection, runbook, run, limit)

    # -- hosts

    def heartbeat(self, host: Host) -> None:
        values = host.model_dump()
        with self._storage.writing() as connection:
            if connection.execute(update(hosts).where(hosts.c.id == host.id).values(values)).rowcount == 0:
                connection.execute(insert(hosts).values(values))

    def hosts(self) -> Sequence[Host]:
        with self._storage.reading() as connection:
            rows = connection.execute(select(hosts).order_by(hosts.c.seen_at.desc(), hosts.c.id))
            return [Host.model_validate(dict(row._mapping)) for row in rows]  # noqa: SLF001 - public in SQLAlchemy

    def forget_host(self, id: str) -> None:
        with self._storage.writing() as connection:
            connection.execute(delete(hosts).where(hosts.c.id == id))

    def orphans(self, dead_before: datetime) -> Sequence[Approval]:
        with self._storage.reading() as connection:
            return approvals.orphans(connection, dead_before)

    # -- upkeep

    @property
    def schema_version(self) -> str:
        """The revision of the tables."""
        with self._storage.reading() as connection:
            return schema.version(connection)

    def upgrade(self) -> None:
        """Bring the tables to the newest revision, a backup of the file first; nothing happens when they are there."""
        schema.migrate(self._storage)

    def backup(self, path: str | Path) -> Path:
        """Copy the store, as it is at one moment, to a new SQLite file that can be opened as a store."""
        target = Path(path).expanduser().absolute()
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            raise StoreError(f"{target} exists already.", hint="Name a new file for the backup.") from None
        except OSError as error:
            raise explain_os(error, target) from None
        try:
            if not self._storage.backup(target):
                copy_rows(self._storage, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return target

    def check(self) -> Sequence[str]:
        """Say what is wrong with the files and with the heads of both sequences; empty when all is well."""
        try:
            with self._storage.snapshot() as connection:
                return self._storage.damage() or ledger.misfits(connection)
        except StoreCorrupt as error:
            return [error.message]

    def close(self) -> None:
        self._watch.close()
        self._storage.close()
