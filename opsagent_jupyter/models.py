"""The values everything speaks in: frozen, validated, JSON-shaped, free of drivers and of secrets."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from opsagent_jupyter.lifecycle import ApprovalState

Json = JsonValue
Environment = Literal["production", "staging", "development"]
#: How a changing tool can be checked after a crash (see reference of the plugin contract in CONTRIBUTING).
Execution = Literal["probeable", "once"]


class Record(BaseModel):
    """A frozen value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Risk(StrEnum):
    """How much a call can hurt. Only ``low`` runs without a person."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for low up to 3 for critical."""
        return _RANKS[self]


_RANKS = {risk: rank for rank, risk in enumerate(Risk)}


def highest(*risks: Risk) -> Risk:
    """The highest of some risk levels: levels only ever round up."""
    return max(risks, key=lambda risk: risk.rank)


def now() -> datetime:
    """The time of the host, aware, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A random 128-bit id as 32 hexadecimal characters; any unique prefix of at least 4 names it to a person."""
    return secrets.token_hex(16)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN; raises ValueError for what JSON has no text for."""
    return _CANONICAL.encode(value)


def sha256(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


class Actor(Record):
    """Who did something: a person as the door they came through names them."""

    id: str
    """Stable within the door, for example ``os:alice`` or ``jupyter:alice``."""
    name: str
    via: Literal["kernel", "cli", "server", "worker", "api"]
    agent: bool = False
    """True when the language model asked, on this person's behalf."""
    stable: bool = False
    """True when two browsers of one person are one identity (JupyterHub, OIDC), so that four eyes mean something."""


class Instance(Record):
    """One database attached under a name. Its credentials are not in here."""

    id: str = Field(default_factory=new_id)
    name: str
    server: str
    plugin: str
    environment: Environment = "production"
    read_only: bool = False
    settings: dict[str, Json] = Field(default_factory=dict)
    """Connection settings that are no secrets, for the eye: host, port, database, user."""
    created_by: str = ""
    created_at: AwareDatetime = Field(default_factory=now)


class Target(Record):
    """What a call is aimed at, as it was when the call was planned."""

    server: str
    instance: str
    instance_id: str
    plugin: str
    environment: Environment
    identity: dict[str, Json] = Field(default_factory=dict)
    """Which database really answers: for PostgreSQL system_identifier, database, role and version."""


class Table(Record):
    """Rows of a result. ``rows`` holds JSON values only, capped; ``total`` counts what there was."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Json, ...], ...]
    total: int
    units: dict[str, str] = Field(default_factory=dict)


class Suggestion(Record):
    """A ready call that would follow from a result. It is offered, never run by itself."""

    tool: str
    arguments: dict[str, Json]
    why: str


class Result(Record):
    """What a read tool found. ``summary`` is plain text that reads well alone; ``highlights`` are its points."""

    summary: str
    highlights: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    tree: str = ""
    """A plan or hierarchy as preformatted text."""
    figures: dict[str, Json] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What limits the answer: rights that lack, statistics that are young, rows cut off."""
    suggestions: tuple[Suggestion, ...] = ()


class Comparison(Record):
    """The planner's cost of a statement before and after a hypothetical change (unit: planner cost)."""

    before: float
    after: float
    note: str


class Plan(Record):
    """What a changing call would do: shown on the card, bound by the digest, executed to the letter."""

    title: str
    statements: tuple[str, ...]
    risk: Risk
    reasons: tuple[str, ...]
    lock: str
    size: str = ""
    waits: tuple[str, ...] = ()
    duration: str = ""
    undo: str = ""
    """The statement that takes it back; empty when there is none."""
    undo_note: str = ""
    cautions: tuple[str, ...] = ()
    comparison: Comparison | None = None
    preconditions: dict[str, Json] = Field(default_factory=dict)
    """Facts of the target that must still hold at execution; part of the digest, re-read before the run."""
    before: dict[str, Json] = Field(default_factory=dict)
    """The state before, for the post-check and the probe."""
    execution: Execution = "probeable"


class Effect(Record):
    """How a changing call ended, as read back from the database, not as the driver reported it."""

    state: Literal["succeeded", "failed", "unknown"]
    summary: str
    error_code: str = ""
    residue: tuple[str, ...] = ()
    """What a failure left behind, named exactly."""
    suggestions: tuple[Suggestion, ...] = ()
    figures: dict[str, Json] = Field(default_factory=dict)
    result: Result | None = None
    """The rows, when a reading call needed an approval."""


class Origin(Record):
    """Where something in a language model's call comes from that no person wrote; found in the transcript by code."""

    argument: str
    """Which argument, with the place in it: ``index``, ``columns[1]``; ``on`` is the database that was chosen."""
    kind: Literal["database", "model"]
    """``database``: it stands in what a database or a tool answered. ``model``: neither there nor in a person's words."""
    text: str
    """The part of the value that this is about, cut to a readable length."""
    tool: str = ""
    """The tool whose answer it is from; empty for what the database said of itself."""
    call: str = ""
    instance: str = ""
    server: str = ""
    at: AwareDatetime | None = None


class Approval(Record):
    """The durable question about one call, and everything that became of it."""

    id: str
    digest: str
    tool: str
    tool_version: str
    arguments: dict[str, Json]
    target: Target
    plan: Plan
    risk: Risk
    reasons: tuple[str, ...]
    requester: Actor
    session: str = ""
    call: str = ""
    """Id of the tool call within the session's transcript."""
    origins: tuple[Origin, ...] = ()
    """What in a language model's call was not said by a person; bound by the digest where there is some."""
    policy: str
    """Hash of the policy under which it was asked."""
    setup: str
    """personal, separated or team: what the approval is worth."""
    supersedes: str = ""
    created_at: AwareDatetime
    expires_at: AwareDatetime
    nonce: str
    state: ApprovalState = ApprovalState.PENDING
    version: int = 1
    use_by: AwareDatetime | None = None
    """An approved request that no host took by then expires."""
    decided_by: Actor | None = None
    decided_at: AwareDatetime | None = None
    reason: str = ""
    host: str = ""
    claimed_at: AwareDatetime | None = None
    evidence: dict[str, Json] = Field(default_factory=dict)
    """What was recorded before sending: backend pid and start, for the probe and for cancelling."""
    effect: Effect | None = None
    ended_at: AwareDatetime | None = None

    def bound(self) -> str:
        """The digest's input: canonical JSON of everything that was approved."""
        # A request without origins is bound as it was before there were any, so that older digests hold.
        origins = {"origins": [origin.model_dump(mode="json") for origin in self.origins]} if self.origins else {}
        return canonical(
            {
                **origins,
                "v": 1,
                "tool": self.tool,
                "tool_version": self.tool_version,
                "arguments": self.arguments,
                "target": self.target.model_dump(mode="json"),
                "plan": self.plan.model_dump(mode="json"),
                "risk": str(self.risk),
                "reasons": list(self.reasons),
                "requester": self.requester.model_dump(mode="json"),
                "session": self.session,
                "call": self.call,
                "policy": self.policy,
                "setup": self.setup,
                "supersedes": self.supersedes,
                "created_at": self.created_at.astimezone(UTC).isoformat(),
                "expires_at": self.expires_at.astimezone(UTC).isoformat(),
                "nonce": self.nonce,
            }
        )

    def computed_digest(self) -> str:
        """SHA-256 of ``bound()``; differs from ``digest`` when the store was edited."""
        return sha256(self.bound())


CallStatus = Literal["running", "succeeded", "failed", "refused", "waiting", "unknown", "cancelled"]


class CallRecord(Record):
    """One tool call as its caller sees it, whatever door it came through."""

    id: str
    tool: str
    arguments: dict[str, Json]
    instance: str
    risk: Risk
    reasons: tuple[str, ...] = ()
    status: CallStatus
    summary: str = ""
    result: Result | None = None
    effect: Effect | None = None
    approval: str = ""
    error_code: str = ""
    milliseconds: float = 0.0
    requested: str = ""
    """How the request read when it differs from ``tool`` (an unknown tool, for example)."""


class Session(Record):
    """One conversation."""

    id: str = Field(default_factory=new_id)
    title: str = ""
    instance: str = ""
    server: str = ""
    model: str = "offline"
    created_by: str = ""
    created_at: AwareDatetime = Field(default_factory=now)
    updated_at: AwareDatetime = Field(default_factory=now)
    closed: bool = False


Role = Literal["user", "assistant", "tool"]


class Message(Record):
    """One entry of a transcript. ``seq`` is gapless within the session, from 1."""

    session: str
    seq: int
    role: Role
    text: str = ""
    calls: tuple[CallRecord, ...] = ()
    """On an assistant message: what it called, as far as known when it was written."""
    call: str = ""
    """On a tool message: the id of the call it answers."""
    author: str = ""
    model: str = ""
    turn: str = ""
    partial: bool = False
    """True when the turn was cancelled or broke in the middle of this text."""
    created_at: AwareDatetime = Field(default_factory=now)


#: The event by which the chain knows that its beginning was removed, and its status, by which it is found.
PRUNED, PRUNED_STATUS = "audit.pruned", "pruned"


class AuditEvent(Record):
    """One record of something asked, decided, run, refused or failed, before the chain gives it its place."""

    type: str
    """For example ``call.intent``, ``call.outcome``, ``call.refused``, ``approval.approved``, ``instance.attached``."""
    actor: Actor
    at: AwareDatetime = Field(default_factory=now)
    status: str = ""
    """For calls the outcome (succeeded, failed, refused, unknown, …); for approvals the new state."""
    risk: Risk | None = None
    tool: str = ""
    server: str = ""
    instance: str = ""
    environment: str = ""
    session: str = ""
    call: str = ""
    approval: str = ""
    digest: str = ""
    arguments: dict[str, Json] = Field(default_factory=dict)
    statements: tuple[str, ...] = ()
    reason: str = ""
    summary: str = ""
    error_code: str = ""
    milliseconds: float | None = None
    host: str = ""
    setup: str = ""
    details: dict[str, Json] = Field(default_factory=dict)


class AuditRow(NamedTuple):
    """An audit event with its place in the chain, as every reader gets it; a tuple, because there are millions."""

    seq: int
    event_id: str
    body: str
    """Canonical JSON of the event with seq and event_id: the hashed text."""
    prev_hash: str
    hash: str


class FeedEntry(Record):
    """One change, with its gapless sequence number: what watchers resume from."""

    seq: int
    at: AwareDatetime
    topic: Literal["approval", "session", "message", "instance", "server", "audit", "health"]
    key: str
    """The id of what changed; for a message ``session:seq``, for audit events the last seq."""
    kind: str
    """What happened, for example ``pending``, ``approved``, ``appended``, ``attached``."""


class Host(Record):
    """One process with a runtime. ``seen_at`` is its heartbeat."""

    id: str
    kind: Literal["kernel", "cli", "server", "worker", "api"]
    pid: int
    machine: str
    started_at: AwareDatetime
    seen_at: AwareDatetime


class Health(Record):
    """How an instance answered when it was last asked."""

    instance: str
    ok: bool
    milliseconds: float = 0.0
    version: str = ""
    summary: str
    error_code: str = ""
    warnings: tuple[str, ...] = ()
    checked_at: AwareDatetime = Field(default_factory=now)


class Catalog(Record):
    """Names that exist in a database right now, by kind, for completion and for the offline model's slots."""

    names: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Kind (table, index, role, …) to names as a person writes them."""
    columns: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Table to its columns."""


class Assessment(Record):
    """The risk of *this* call with its reasons."""

    risk: Risk
    reasons: tuple[str, ...] = ()


class Verdict(Record):
    """What the policy says to an assessed call."""

    decision: Literal["allow", "ask", "deny"]
    risk: Risk
    reasons: tuple[str, ...] = ()
    rule: str = ""


def without_nulls(values: Mapping[str, Json]) -> dict[str, Json]:
    """The entries that have a value: optional arguments that were not given say nothing."""
    return {key: value for key, value in values.items() if value is not None}
