"""What the REST interface takes and answers beyond the values of ``models.py``. No answer has a field for a secret."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field, JsonValue, RootModel, SecretStr

from opsagent_jupyter.models import (
    Actor,
    AuditEvent,
    Environment,
    Health,
    Instance,
    Json,
    Record,
    Risk,
)
from opsagent_jupyter.server.paging import Paging

Name = Annotated[str, Field(max_length=63, pattern=r"^[^\W_][\w.\-]*$")]
Word = Annotated[str, Field(max_length=200)]
Id = Annotated[str, Field(max_length=64)]


class Fault(Record):
    """Why a request was not done. ``code`` is stable; ``hint`` says what to do."""

    code: str
    message: str
    hint: str


class Versions(Record):
    """What answers here, for the handshake with a kernel and with the lab extension: all are of one release."""

    version: str
    wire: int
    """The version of the messages on the WebSocket and on a widget's comm."""
    jupyter_server: str


class Document(RootModel[dict[str, JsonValue]]):
    """An OpenAPI document."""


class Condition(Record):
    """How this host is."""

    ok: bool
    version: str
    setup: str
    claim: str
    store: str
    """Its URL, without a password."""
    store_kind: str
    notices: tuple[str, ...]
    """What an operator should know about the place of the store."""
    model: str
    feed: int
    """The seq of the newest change."""


class Identity(Record):
    """As whom this Jupyter server takes whoever asks, and what that person may do."""

    actor: Actor
    rights: tuple[str, ...]
    decides: bool
    """Whether this very request could decide: a browser's login stands behind it and the right is there."""


class PluginSummary(Record):
    """A kind of integration that is installed."""

    name: str
    version: str
    tools: int
    missing: str = ""
    """What has to be installed before it can be used."""


class ToolSummary(Record):
    """One operation of a plugin."""

    name: str
    full_name: str
    summary: str
    risk: Risk
    changes: bool
    arguments: dict[str, Json]
    """JSON Schema of its arguments."""


class Server(Record):
    """A managed host with what is attached to it and how that was when it was last asked."""

    name: str
    plugins: tuple[Instance, ...]
    health: tuple[Health, ...]


class NewServer(Record):
    """A server to be known by name."""

    name: Name


class Attachment(Record):
    """A database to attach. One of ``dsn``, ``dsn_env`` and ``service`` says how to connect; it is never given back."""

    model_config = ConfigDict(hide_input_in_errors=True)

    plugin: Word
    name: Name
    environment: Environment = "production"
    read_only: bool = False
    dsn: SecretStr | None = Field(default=None, max_length=4_000)
    dsn_env: str | None = Field(default=None, max_length=200)
    service: str | None = Field(default=None, max_length=200)
    keep: bool = True
    """False only tries the connection out."""


class Attached(Record):
    """How a database answered that was attached, or only tried out."""

    instance: Instance | None
    health: Health


class Detached(Record):
    """What was taken away."""

    instance: Instance


class Execution(Record):
    """A call of a tool. One that needs a person is answered with status ``waiting`` and the id of its request."""

    tool: Word
    arguments: dict[str, Json] = Field(default_factory=dict, max_length=100)
    dry_run: bool = False
    session: Id = ""
    supersedes: Id = ""


class NewSession(Record):
    """A conversation to begin; without an instance it is bound to the only one there is."""

    instance: Word = ""
    model: Word = ""


class Words(Record):
    """What a person says in a session."""

    text: str = Field(min_length=1, max_length=100_000)
    model: Word = ""


class Begun(Record):
    """A turn that has started; its events are on the WebSocket, its messages in the session."""

    session: str
    turn: str


class Decision(Record):
    """A person's decision on what the screen showed: ``digest`` is that request's, and any other is refused."""

    digest: str = Field(min_length=64, max_length=64)
    reason: str = Field(default="", max_length=2_000)
    version: int | None = Field(default=None, ge=0)


class Outcome(Record):
    """What a person found out about a call whose end nobody saw."""

    state: Literal["succeeded", "failed"]
    reason: str = Field(max_length=2_000)


class ApprovalQuery(Paging):
    """Which requests: ``open`` (something can still happen), ``all``, or one state."""

    state: Literal[
        "open", "all", "pending", "approved", "rejected", "expired", "withdrawn", "superseded", "revoked", "stale",
        "executing", "succeeded", "failed", "unknown",
    ] = "open"  # fmt: skip
    session: Id = ""


class AuditFilters(Record):
    """Which records of the audit."""

    risk: Risk | None = Field(default=None, description="That level and those above it.")
    risk_exactly: Risk | None = Field(default=None, description="That level alone.")
    search: str = Field(default="", max_length=200, description="Words that a text of the record contains.")
    status: Word = ""
    server: Word = ""
    instance: Word = ""
    tool: Word = ""
    actor: Word = ""
    session: Id = ""
    approval: Id = ""
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class AuditQuery(AuditFilters, Paging):
    """Which records of the audit, newest first."""


class TimelineQuery(AuditFilters):
    """Which records of the audit, and into how many spans of time they are counted."""

    spans: int = Field(default=48, ge=1, le=200)


class ExportQuery(AuditFilters):
    """Which records of the audit, and as what kind of file."""

    format: Literal["csv", "parquet"] = "csv"


class TimeSpan(Record):
    """The records of one span of time that match: ``until`` is not part of it."""

    since: AwareDatetime
    until: AwareDatetime
    total: int
    by_status: dict[str, int]
    by_risk: dict[str, int]
    """A record without a level counts under an empty name."""


class Timeline(Record):
    """The records that match, counted by equal spans of time from the first to the last; spans without any are left out."""

    total: int
    since: AwareDatetime | None
    """When the first span begins; None when nothing matches."""
    milliseconds: int
    """The length of each span."""
    spans: tuple[TimeSpan, ...]


class ChainCheck(Record):
    """What the last check of the whole audit found: each record against its hash, the head and the copy for analysis."""

    checked_at: AwareDatetime
    ok: bool
    rows: int
    head: str
    first_bad: int | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]


class Checking(Record):
    """The check of the audit, which runs in the background: ``last`` is its newest result, None before the first."""

    running: bool
    current: bool
    """Whether ``last`` is about the audit's present end; newer records are checked by and by."""
    last: ChainCheck | None
    failure: str
    """Why the last check did not come to an end; empty when it did."""


class ModelChoice(Record):
    """A language model that can be chosen, or one that only lacks what ``missing`` says."""

    name: str
    provider: str
    origin: Literal["offline", "configured", "used"]
    ready: bool
    missing: str = ""
    """What to install or to set, in words."""


class ProviderChoice(Record):
    """Whose models can be named, as ``name:model``, and whether its client and its key are there."""

    name: str
    installed: bool
    key: bool
    """Whether a key is set or kept, or none is needed. Which one is told nowhere."""
    missing: str = ""


class ModelQuery(Record):
    """For which session; its model stands first."""

    session: Id = ""


class ModelChoices(Record):
    """The models that are known by name, and the providers whose others can be written."""

    items: tuple[ModelChoice, ...]
    providers: tuple[ProviderChoice, ...]


class AuditEntry(Record):
    """A record of the audit with its place in the chain."""

    seq: int
    event_id: str
    hash: str
    event: AuditEvent


class StatsQuery(Record):
    """From when on; a week when it is left out."""

    since: AwareDatetime | None = None


class AuditStats(Record):
    """How many records there are since then, by what they say."""

    since: AwareDatetime
    total: int
    by_status: dict[str, int]
    by_risk: dict[str, int]
    by_server: dict[str, int]
    by_tool: dict[str, int]
