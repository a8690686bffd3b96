"""What the gate and its callers know of the store, the audit and the plugins: protocols, no adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import (
    Actor,
    Approval,
    AuditEvent,
    AuditRow,
    Effect,
    FeedEntry,
    Health,
    Host,
    Instance,
    Json,
    Message,
    Session,
)
from opsagent_jupyter.plugin import Connection, Plugin, Tool
from opsagent_jupyter.vetting import StepRecord, Vetting

T = TypeVar("T")
#: The vault's field of a one-time secret; its ``instance`` is the id of the approval request.
ONE_TIME = "one_time_secret"


Place = tuple[datetime, str]
"""Where a row stands in a list by time: its time and its id."""
Lease = Literal["", "free", "left"]
"""How a session could be had: not at all, because another holder's lease still runs; free, or held already; or left by a
holder whose time ran out before it gave the session back, so that its turn may have broken off."""


class Store(Protocol):
    """The shared store. Methods are synchronous, short and thread-safe; each change is one transaction with its audit
    event and its feed entry. Raises ``StoreError`` subclasses only."""

    url: str
    """For the eye: no password in it."""
    log_id: str
    """Of the audit log; no other store has it."""

    @property
    def swift(self) -> bool:
        """True while a record is likely to take less time than handing it to a thread."""

    # -- audit and feed
    def record(self, *events: AuditEvent, at_once: bool = False) -> int:
        """Append audit events; return the seq of the last. Durable when it returns. With ``at_once``, where records are
        swift, ``StoreLocked`` takes the place of waiting for another writer: then nothing was written."""

    def audit_rows(self, after: int, limit: int) -> Sequence[AuditRow]:
        """Return the chain's rows with seq > after, in order, gapless."""

    def audit_page(self, *, before: int | None, limit: int, filters: Mapping[str, str]) -> Sequence[AuditRow]:
        """Return rows newest first; filters: risk, status, server, instance, tool, actor, session, approval, since, until."""

    def audit_counts(self, since: datetime) -> dict[str, dict[str, int]]:
        """Return how many rows there are since then, by status, risk, server and tool: column -> value -> number."""

    def audit_head(self) -> tuple[int, str]:
        """Return (seq, hash) of the newest row; (0, genesis) when empty."""

    def feed(self, after: int, limit: int = 500) -> Sequence[FeedEntry]:
        """Return the changes with seq > after, in order."""

    def feed_head(self) -> int:
        """Return the newest change's seq, 0 when there is none."""

    def watch(self, after: int) -> AsyncIterator[FeedEntry]:
        """Yield changes as they happen, from after on, for ever; seen within 100 ms of the commit."""

    # -- instances
    def add_instance(self, instance: Instance, credentials: Mapping[str, str], event: AuditEvent) -> None:
        """Keep an instance with its encrypted credential tokens; ``InstanceExists`` when the name is taken."""

    def remove_instance(self, name: str, event: AuditEvent) -> None:
        """Forget an instance and its credentials; ``UnknownInstance`` when there is none."""

    def instance(self, name: str) -> Instance:
        """Return an instance by name or id; ``UnknownInstance`` names near matches and what is attached."""

    def instances(self) -> Sequence[Instance]:
        """Return all instances by name."""

    def credentials(self, instance_id: str) -> dict[str, str]:
        """Return field -> encrypted token."""

    def replace_credentials(
        self, tokens: Mapping[str, Mapping[str, str]], event: AuditEvent, secrets: Mapping[str, str] | None = None
    ) -> None:
        """Replace tokens of many instances in one transaction (key rotation): instance id -> field -> token; and those of
        one-time secrets: approval id -> token, where the secret is still kept."""

    def servers(self) -> Sequence[str]:
        """Return the names of the servers."""

    def add_server(self, name: str, event: AuditEvent) -> None:
        """Keep a server that has nothing attached yet; nothing happens when it is known."""

    # -- sessions
    def add_session(self, session: Session, event: AuditEvent) -> None:
        """Keep a new session."""

    def session(self, id: str) -> Session:
        """Return a session by id or unique prefix; ``UnknownSession``."""

    def sessions(
        self, *, limit: int = 100, before: datetime | None = None, after: Place | None = None
    ) -> Sequence[Session]:
        """Return sessions, the last used first; ``after`` is the place of the last one of the page before."""

    def update_session(self, id: str, event: AuditEvent | None = None, **changes: Any) -> Session:
        """Change title, model, instance, server or closed."""

    def lease_session(self, id: str, holder: str, seconds: float) -> Lease:
        """Take the right to work on a session, unless another holder's lease still runs."""

    def renew_session(self, id: str, holder: str, seconds: float) -> bool:
        """Keep a session for longer; False when it is not, or no longer, in the holder's hands, even if it is free again."""

    def release_session(self, id: str, holder: str) -> None:
        """Give the lease back."""

    def append(self, message: Message, holder: str = "", event: AuditEvent | None = None) -> Message:
        """Append a message (its ``seq`` is set here), with an audit event when it needs one, and return it; ``SessionBusy``
        when a ``holder`` is given and the session is not, or no longer, in its hands."""

    def messages(self, session: str, after: int = 0, limit: int = 10_000) -> Sequence[Message]:
        """Return a transcript's messages with seq > after, in order."""

    def messages_before(self, session: str, before: int | None, limit: int) -> Sequence[Message]:
        """Return a transcript's last messages, those with seq < before, newest first."""

    # -- approvals
    def add_approval(self, approval: Approval, event: AuditEvent) -> None:
        """Keep a new pending request; when it names ``supersedes``, that one moves to superseded in the same transaction."""

    def approval(self, id: str) -> Approval:
        """Return a request by id or unique prefix (4 characters or more); ``UnknownApproval``."""

    def approvals(
        self,
        *,
        states: Sequence[ApprovalState] = (),
        session: str = "",
        limit: int = 100,
        before: datetime | None = None,
        after: Place | None = None,
    ) -> Sequence[Approval]:
        """Return requests, newest first; ``after`` is the place of the last one of the page before."""

    def move(self, id: str, new: ApprovalState, event: AuditEvent, **changes: Any) -> Approval:
        """Move a request along one arrow, one conditional UPDATE; ``AlreadyDecided`` (state, by, at) when somebody else was
        first, ``IllegalTransition`` when the table has no such arrow. ``changes`` are the fields that go with it
        (decided_by, decided_at, reason, use_by, host, claimed_at, effect, ended_at)."""

    def claim(self, id: str, host: str, event: AuditEvent) -> Approval | None:
        """Take an approved request that is still in time, once: approved -> executing. None when it is not to be had."""

    def note(self, id: str, host: str, evidence: Mapping[str, Json], secret: str = "") -> None:
        """Add evidence to an executing request of this host, durably, before its statement is sent; with it the token of
        a one-time secret, which is deleted when the request fails. ``evidence["secret"]`` says what became of it."""

    def reveal_secret(self, id: str, event: AuditEvent, unseal: Callable[[str], T]) -> T:
        """Return what ``unseal`` makes of the token, and delete it, with the audit event, in one transaction; nothing is
        deleted when ``unseal`` raises. ``SecretRevealed``, ``SecretExpired``, ``SecretMissing``."""

    def expire_secrets(self, at: datetime) -> Sequence[str]:
        """Delete the secrets that nobody asked for within 7 days of the success; return the ids of their requests."""

    def one_time_secrets(self) -> dict[str, str]:
        """Return approval id -> token of the secrets that are kept (key rotation)."""

    def expire(self, at: datetime) -> Sequence[Approval]:
        """Move what is overdue (pending past expires_at, approved past use_by) to expired; return those."""

    # -- runbooks
    def add_vetting(self, vetting: Vetting, event: AuditEvent) -> None:
        """Keep a signature of a runbook."""

    def vetting(self, id: str) -> Vetting:
        """Return a signature by id or unique prefix; ``VettingUnknown``."""

    def witnessed_vetting(self, id: str) -> Vetting:
        """Return a signature by its whole id; ``VettingVoid`` unless the audit agrees that just this was signed, by just
        this person, and that nobody took it back."""

    def vettings(self, runbook: str = "", limit: int = 100) -> Sequence[Vetting]:
        """Return signatures, of one runbook or of all, newest first."""

    def revoke_vetting(self, id: str, event: AuditEvent) -> Vetting:
        """Take a signature back; ``VettingVoid`` when it was taken back before."""

    def runbook_steps(self, runbook: str = "", run: str = "", limit: int = 1000) -> Sequence[StepRecord]:
        """Return how the newest steps stand, of a run, of a runbook or of all, in the order in which they were asked for."""

    # -- hosts
    def heartbeat(self, host: Host) -> None:
        """Say that this host lives."""

    def hosts(self) -> Sequence[Host]:
        """Return the hosts that have been seen."""

    def forget_host(self, id: str) -> None:
        """Remove a host that ended in order."""

    def orphans(self, dead_before: datetime) -> Sequence[Approval]:
        """Return executing requests whose host's heartbeat is older than that (or gone)."""

    def close(self) -> None:
        """Let go of the connections."""


class Vault(Protocol):
    """Encrypts and decrypts credentials (``credentials.py``)."""

    def encrypt(self, text: str, *, instance: str, field: str) -> str:
        """Return a token bound to instance and field."""

    def decrypt(self, token: str, *, instance: str, field: str) -> str:
        """Return the text; ``CredentialError`` when it cannot be read."""


class Plugins(Protocol):
    """The plugins that are installed (``plugins/registry.py``)."""

    def plugin(self, name: str) -> Plugin:
        """Return a plugin by name; ``UnknownPlugin`` or ``MissingExtra``."""

    def names(self) -> Sequence[str]:
        """Return the names of the plugins that are installed."""

    def tool(self, name: str, plugin: str = "") -> Tool:
        """Return a tool by full name, or by short name within ``plugin``; ``UnknownTool`` names near matches."""

    def tools(self, plugin: str = "") -> Sequence[Tool]:
        """Return the tools of one plugin, or of all."""


class Connections(Protocol):
    """Live connections by instance (``runtime.py``)."""

    def use(self, instance: Instance) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection for one call; a broken one is not lent again."""

    def redact(self, text: str) -> str:
        """Strike every known secret out of a text."""

    def all_clean(self, texts: Collection[str]) -> bool:
        """Whether none of these texts holds a secret; False may also mean that each has to be looked at by itself."""


class Projection(Protocol):
    """The audit in DuckDB (``audit/projection.py``)."""

    def carry(self) -> int | None:
        """Carry new rows from the store exactly once; the number carried, or None when another process holds the file."""


__all__ = [
    "Actor", "Approval", "ApprovalState", "AuditEvent", "AuditRow", "Connection", "Connections", "Effect", "FeedEntry",
    "Health", "Host", "Instance", "Lease", "Message", "Plugin", "Plugins", "Projection", "Session", "StepRecord", "Store",
    "Tool", "Vault", "Vetting",
]  # fmt: skip
