"""What screens and Python say to each other: commands one way, events the other, one JSON form for every transport.

The JSON Schema of ``Protocol`` is committed as ``js/src/protocol/schema.json`` and the TypeScript types are generated
from it, so there is one set of shapes. On the wire each message stands in an envelope: ``{"v": 1, "command": ...}`` or
``{"v": 1, "event": ...}``. Who decided is never a field of a command: the host knows who speaks.

========================  ==============================================================================================
command                   answer
========================  ==============================================================================================
``hello``                 ``hello``. With ``since``, the feed's seq that the screen saw last, and ``resumed`` in the answer, then
                          every change after it, in order and each once; the screen joins its sessions again by itself.
                          Not ``resumed``: too much happened, or another store answers, so the screen begins anew
``chat:join``             ``chat:joined``; while a turn runs, then its events so far (``started``, the text, its calls);
                          from then on every event of that session
``chat:history``          ``chat:joined`` with the older messages
``chat:message``          ``chat:message``, then the turn's events
``approval:subscribe``    ``approval:list`` of what is open; from then on ``approval:request`` and ``approval:response``
``approval:get``          ``approval:response``, and again at each later state of that request
``approval:respond``      ``approval:response``, or ``error`` (and ``approval:response`` when somebody was first)
``approval:resolve``      the same
``plugin:subscribe``      ``plugin:status`` and ``plugin:health`` of what is attached; from then on those, and
                          ``plugin:tool_executed`` and ``chat:session``, as they happen
``result:get``            ``result``
``secret:reveal``         ``secret:shown``, to this screen alone and once; or ``error``
any                       ``error`` when it could not be done; ``command`` and ``about`` say which it was
========================  ==============================================================================================
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from opsagent_jupyter.errors import ProtocolError, UnknownMessage, VersionMismatch
from opsagent_jupyter.models import Actor, Approval, CallRecord, Health, Instance, Result, Session
from opsagent_jupyter.models import Message as Entry

#: The version of the wire; a change that an older screen cannot read raises it.
WIRE = 1
#: The largest whole number that JavaScript holds exactly; larger ones travel as text.
EXACT = 2**53 - 1

Id = Annotated[str, Field(max_length=64)]
Reason = Annotated[str, Field(max_length=2_000)]
Text = Annotated[str, Field(max_length=100_000)]
Seq = Annotated[int, Field(ge=0)]


class Message(BaseModel):
    """A frozen message; unknown fields and values of another type are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_serialization_defaults_required=True
    )


# -- commands: screen -> Python. No defaults but ``type``: a screen says what it means.


class Hello(Message):
    """A screen introduces itself with the release it belongs to and the last feed seq it saw, 0 when it is new."""

    type: Literal["hello"] = "hello"
    version: Id
    since: Seq


class Join(Message):
    """Watch a session; an empty id starts a new one. ``since`` is the seq of the last message that the screen holds."""

    type: Literal["chat:join"] = "chat:join"
    session: Id
    since: Seq


class Leave(Message):
    """Stop watching a session."""

    type: Literal["chat:leave"] = "chat:leave"
    session: Id


class Say(Message):
    """Start a turn with a person's words."""

    type: Literal["chat:message"] = "chat:message"
    session: Id
    text: Text


class Cancel(Message):
    """Stop the running turn, in the database too."""

    type: Literal["chat:cancel"] = "chat:cancel"
    session: Id


class History(Message):
    """Ask for the messages before ``before`` (a seq)."""

    type: Literal["chat:history"] = "chat:history"
    session: Id
    before: Seq


class Subscribe(Message):
    """Watch the approval requests."""

    type: Literal["approval:subscribe"] = "approval:subscribe"


class Unsubscribe(Message):
    """Stop watching the approval requests."""

    type: Literal["approval:unsubscribe"] = "approval:unsubscribe"


class Respond(Message):
    """Decide a request as it was seen: ``version`` and ``digest`` are those that were on the screen."""

    type: Literal["approval:respond"] = "approval:respond"
    id: Id
    decision: Literal["approve", "reject", "withdraw", "revoke"]
    reason: Reason
    version: Seq
    digest: Id


class GetApproval(Message):
    """Ask how a request stands."""

    type: Literal["approval:get"] = "approval:get"
    id: Id


class Resolve(Message):
    """Record what became of a call whose outcome nobody saw."""

    type: Literal["approval:resolve"] = "approval:resolve"
    id: Id
    state: Literal["succeeded", "failed"]
    reason: Reason


class SubscribePlugins(Message):
    """Watch what is attached, how it is, and what runs on it."""

    type: Literal["plugin:subscribe"] = "plugin:subscribe"


class UnsubscribePlugins(Message):
    """Stop watching what is attached."""

    type: Literal["plugin:unsubscribe"] = "plugin:unsubscribe"


class Reveal(Message):
    """Take the secret that a call has made, such as a new role's password: it is shown once, to this screen."""

    type: Literal["secret:reveal"] = "secret:reveal"
    id: Id


class GetResult(Message):
    """Ask for the rows of a call; they are in no saved notebook, so they are fetched when somebody looks."""

    type: Literal["result:get"] = "result:get"
    call: Id


Command = Annotated[
    Hello
    | Join
    | Leave
    | Say
    | Cancel
    | History
    | Subscribe
    | Unsubscribe
    | Respond
    | GetApproval
    | Resolve
    | SubscribePlugins
    | UnsubscribePlugins
    | GetResult
    | Reveal,
    Field(discriminator="type", title="Command"),
]


# -- events: Python -> screen. ``seq`` is the feed's sequence number, 0 for what does not come from the feed.


class Welcome(Message):
    """Python introduces itself: its release, what its approvals are worth, and as whom it takes this screen."""

    type: Literal["hello"] = "hello"
    seq: int = 0
    version: str
    setup: str
    claim: str
    """One honest sentence on what the set-up guards against."""
    actor: Actor
    model: str
    store: str = ""
    """A mark of the store behind this host, the same on each host that shares it; empty when there is none yet."""
    resumed: bool = False
    """True when every change after the screen's ``since`` follows."""


class Joined(Message):
    """A session with a page of its transcript; ``messages`` may overlap what the screen holds."""

    type: Literal["chat:joined"] = "chat:joined"
    seq: int = 0
    session: Session
    messages: tuple[Entry, ...]
    busy: bool


class Appended(Message):
    """A new entry of a transcript."""

    type: Literal["chat:message"] = "chat:message"
    seq: int = 0
    message: Entry


class TurnEvent(Message):
    """How a turn goes. ``text`` is what ``delta`` adds, why it ``failed``, else the whole answer so far.

    A parked turn goes on, after the decision, under another id.
    """

    type: Literal["chat:event"] = "chat:event"
    seq: int = 0
    session: str
    turn: str
    kind: Literal["started", "delta", "finished", "failed", "cancelled", "parked"]
    text: str = ""
    code: str = ""
    hint: str = ""


class Typing(Message):
    """The model is thinking, or has stopped."""

    type: Literal["chat:typing"] = "chat:typing"
    seq: int = 0
    session: str
    on: bool


class ToolExecution(Message):
    """A tool call of a turn, as it stands now. Rows may be left out; ``result:get`` has them."""

    type: Literal["chat:tool_execution"] = "chat:tool_execution"
    seq: int = 0
    session: str
    turn: str
    call: CallRecord


class ApprovalRequested(Message):
    """A new approval request."""

    type: Literal["approval:request"] = "approval:request"
    seq: int = 0
    approval: Approval


class ApprovalChanged(Message):
    """An approval request as it stands now."""

    type: Literal["approval:response"] = "approval:response"
    seq: int = 0
    approval: Approval


class ApprovalsListed(Message):
    """The approval requests that are open, oldest first."""

    type: Literal["approval:list"] = "approval:list"
    seq: int = 0
    approvals: tuple[Approval, ...]


class ResultRead(Message):
    """The rows of a call."""

    type: Literal["result"] = "result"
    seq: int = 0
    call: str
    result: Result


class SecretShown(Message):
    """The secret of a request, for the one screen that asked for it. Nothing keeps it: no state, no trait, no log."""

    type: Literal["secret:shown"] = "secret:shown"
    seq: int = 0
    id: str
    text: str = Field(repr=False)


class HealthChanged(Message):
    """How an instance answered when it was last asked."""

    type: Literal["plugin:health"] = "plugin:health"
    seq: int = 0
    health: Health


class PluginStatus(Message):
    """A server or a database that is attached to it, as it stands now; ``detached`` when it was taken away."""

    type: Literal["plugin:status"] = "plugin:status"
    seq: int = 0
    server: str
    name: str
    """The instance's name; empty when this is about the server alone."""
    status: Literal["attached", "detached", "changed"]
    instance: Instance | None = None


class ToolExecuted(Message):
    """A tool call that ended, whatever door it came through."""

    type: Literal["plugin:tool_executed"] = "plugin:tool_executed"
    seq: int = 0
    server: str
    instance: str
    tool: str
    call: str
    session: str
    approval: str
    risk: str
    status: str
    summary: str
    actor: str
    milliseconds: float | None = None


class SessionChanged(Message):
    """A session was opened, renamed or closed, or said something new."""

    type: Literal["chat:session"] = "chat:session"
    seq: int = 0
    session: Session


class Failure(Message):
    """A command that could not be done. ``code`` is stable; ``about`` is the id that the command named."""

    type: Literal["error"] = "error"
    seq: int = 0
    code: str
    message: str
    hint: str = ""
    command: str = ""
    about: str = ""


Event = Annotated[
    Welcome
    | Joined
    | Appended
    | TurnEvent
    | Typing
    | ToolExecution
    | ApprovalRequested
    | ApprovalChanged
    | ApprovalsListed
    | ResultRead
    | SecretShown
    | HealthChanged
    | PluginStatus
    | ToolExecuted
    | SessionChanged
    | Failure,
    Field(discriminator="type", title="Event"),
]


# -- the wire


class Asked(Message):
    """A command in its envelope."""

    v: Literal[1]
    command: Command


class Told(Message):
    """An event in its envelope."""

    v: Literal[1] = 1
    event: Event


class Protocol(Message):
    """Everything that is said; it exists only to be exported as one JSON Schema."""

    asked: Asked
    told: Told


class WireSchema(GenerateJsonSchema):
    """JSON Schema without a title per field, which would become a type per field in TypeScript."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


_ASKED: TypeAdapter[Asked] = TypeAdapter(Asked)
_TOLD: TypeAdapter[Told] = TypeAdapter(Told)


def schema_text() -> str:
    """The JSON Schema of the protocol, as it is committed."""
    schema = Protocol.model_json_schema(mode="serialization", schema_generator=WireSchema)
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse_command(text: str | bytes) -> Command:
    """Read a command out of its envelope; raise ``ProtocolError`` that says what is wrong, never what was in it."""
    try:
        return _ASKED.validate_json(text, strict=True).command
    except ValidationError as error:
        raise _complaint(error) from None


def parse_event(text: str | bytes) -> Event:
    """Read an event out of its envelope, as a screen would."""
    try:
        return _TOLD.validate_json(text, strict=True).event
    except ValidationError as error:
        raise _complaint(error) from None


def envelope(event: Event) -> dict[str, Any]:
    """The event as JSON values in its envelope: no NaN, and no number that JavaScript would round."""
    values: dict[str, Any] = plain(Told(event=event))
    return values


def plain(value: BaseModel) -> Any:
    """A model as JSON values that every language reads alike: no NaN, and no number that JavaScript would round."""
    return json.loads(value.model_dump_json(), parse_int=_exact)


def _exact(digits: str) -> int | str:
    return int(digits) if len(digits) < 16 or abs(int(digits)) <= EXACT else digits


def _complaint(error: ValidationError) -> ProtocolError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if path == "v":
        return VersionMismatch(f"The message is not of version {WIRE} of the protocol.")
    if first["type"] == "union_tag_invalid":
        return UnknownMessage("A message of a kind that this release does not know.", hint=VersionMismatch.hint)
    return ProtocolError(f"A message could not be read: {path or 'it'}: {first['msg']}.", hint=VersionMismatch.hint)


if __name__ == "__main__":  # python -m opsagent_jupyter.protocol > js/src/protocol/schema.json
    sys.stdout.write(schema_text())
