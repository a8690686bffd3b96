"""One conversation: its turns, its lease, and its transcript in the store, which is the only truth about it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from opsagent_jupyter import protocol
from opsagent_jupyter.agent.events import Usage
from opsagent_jupyter.contracts import Plugins, Store
from opsagent_jupyter.errors import OpsAgentError, SessionBusy, SessionClosed
from opsagent_jupyter.executor import Ask, Executor, record_of, struck
from opsagent_jupyter.lifecycle import DECIDED, OPEN, ApprovalState
from opsagent_jupyter.models import Actor, Approval, AuditEvent, CallRecord, Instance, Message, Risk, Session, new_id
from opsagent_jupyter.redaction import place_of

if TYPE_CHECKING:
    from opsagent_jupyter.agent.loop import AgentEvent, ToolRequest, TurnLimits

T = TypeVar("T")
Publish = Callable[[protocol.Event], None]
log = logging.getLogger("opsagent_jupyter")
#: Seconds to wait for a session that another host works on, before it is called busy.
PATIENCE = 1.0
#: Opens the language model of a session: (model name, instances) -> chat model.
OpenModel = Callable[[str, Sequence[Instance]], Any]

TurnState = Literal["running", "finished", "parked", "failed", "cancelled"]


@dataclass
class TurnRecord:
    """One question with its answer, as it grows."""

    session: str
    id: str = field(default_factory=new_id)
    text: str = ""
    calls: dict[str, CallRecord] = field(default_factory=dict)
    state: TurnState = "running"
    error: OpsAgentError | None = None
    stored: int = 0
    """How much of the text is in the transcript already."""
    usage: Usage = field(default_factory=Usage)
    """What asking the model has taken so far."""

    def spend(self, usage: Usage) -> None:
        """Add what asking the model once more has taken."""
        self.usage += usage


@dataclass(frozen=True)
class Voice:
    """How a host lets a model speak in its conversations."""

    open_model: OpenModel
    limits: Callable[[str], TurnLimits]
    """What the next turn of a session may take."""
    facts: Callable[[str, Sequence[Instance]], Awaitable[Mapping[str, str]]]
    """What a model is told of each database."""
    report: Callable[[TurnRecord, Actor, Session], AuditEvent]
    """The audit's event for what a turn took."""


class Conversation:
    """A session in the hands of one host."""

    def __init__(
        self,
        session: str,
        *,
        store: Store,
        plugins: Plugins,
        executor: Executor,
        voice: Voice,
        holder: str,
        lease_seconds: float,
        publish: Publish,
    ) -> None:
        self.id = session
        self._store = store
        self._plugins = plugins
        self._executor = executor
        self._voice = voice
        self._holder = holder
        self._lease = lease_seconds
        self._publish = publish
        self._turns = asyncio.Lock()
        self._task: asyncio.Task[Any] | None = None
        self.current: TurnRecord | None = None

    async def say(self, text: str, actor: Actor, turn: TurnRecord, model: str = "") -> TurnRecord:
        """Run one turn for a new message; it ends finished, parked on an approval, failed or cancelled."""
        return await self._turn(turn, actor, self._redact(text), model)  # it is kept, and read by the model

    async def resume(self, actor: Actor, turn: TurnRecord | None = None) -> TurnRecord | None:
        """Go on after decisions, when nothing is waiting any more; None when there is nothing to go on with."""
        if not await self._answerable():
            return None
        turn = await self._turn(turn or TurnRecord(self.id), actor, None, "")
        return turn if turn.state != "running" else None

    def cancel(self) -> bool:
        """Stop the turn that runs: the model, the tool, and the statement in the database."""
        return self._task is not None and self._task.cancel()

    @property
    def busy(self) -> bool:
        """Whether a turn runs here."""
        return self._turns.locked()

    # -- a turn ---------------------------------------------------------------------------------------------------

    async def _turn(self, turn: TurnRecord, actor: Actor, text: str | None, model: str) -> TurnRecord:
        async with self._turns:
            await self._take_lease()
            self._task = asyncio.current_task()
            self.current = turn
            renewing = asyncio.create_task(self._renew())
            try:
                # Asked again under the lock and the lease: another screen or host may have gone on meanwhile.
                if text is not None or await self._answerable():
                    await self._worked(turn, actor, text, model)
            finally:
                self._task = self.current = None
                renewing.cancel()
                with suppress(OpsAgentError):
                    await asyncio.shield(self._stored(self._store.release_session, self.id, self._holder))
        return turn

    async def _take_lease(self) -> None:
        """Take the session over; a host that has just told the end of its turn gives it back a moment later."""
        deadline = time.monotonic() + PATIENCE
        while not await self._stored(self._store.lease_session, self.id, self._holder, self._lease):
            if time.monotonic() > deadline:
                raise SessionBusy
            await asyncio.sleep(0.05)

    async def _worked(self, turn: TurnRecord, actor: Actor, text: str | None, model: str) -> None:
        session = await self._opened(text, model)
        if text is not None:
            await self._append(turn, role="user", text=text, author=actor.name)
        self._event(turn, "started")
        try:
            await self._answered_calls()
            await self._run_agent(turn, actor, session)
        except asyncio.CancelledError:
            await asyncio.shield(self._keep_partial(turn, session.model))
            turn.state = "cancelled"
            self._event(turn, "cancelled", text=turn.text)
        except OpsAgentError as error:
            await self._keep_partial(turn, session.model)
            self._failed(turn, error)
        except Exception as error:  # noqa: BLE001  # a bug must end the turn, not leave it running
            log.error("a turn failed inside: %s", place_of(error))  # noqa: TRY400
            self._failed(turn, OpsAgentError(f"OpsAgent failed inside ({type(error).__name__}); the log says where."))
        finally:
            await asyncio.shield(self._account(turn, actor, session))

    async def _account(self, turn: TurnRecord, actor: Actor, session: Session) -> None:
        """Put into the audit what the turn took, however it ended."""
        if not turn.usage.calls:
            return
        try:
            await self._stored(self._store.record, self._voice.report(turn, actor, session))
        except OpsAgentError as error:
            log.warning("what a turn of session %s took is not in the audit: %s", self.id[:8], error.message)

    async def _opened(self, text: str | None, model: str) -> Session:
        session = await self._stored(self._store.session, self.id)
        if session.closed:
            raise SessionClosed
        changes: dict[str, Any] = {}
        if model and model != session.model:
            changes["model"] = model
        if text and not session.title:
            changes["title"] = " ".join(text.split())[:80]
        return await self._stored(self._store.update_session, self.id, **changes) if changes else session

    async def _run_agent(self, turn: TurnRecord, actor: Actor, session: Session) -> None:
        from opsagent_jupyter.agent import loop

        instances = await self._stored(self._store.instances)
        tools = [tool for plugin in sorted({i.plugin for i in instances}) for tool in self._plugins.tools(plugin)]
        events = loop.run(
            model=self._voice.open_model(session.model, instances),
            tools=tools,
            instances=instances,
            focus=session.instance,
            transcript=await self._stored(self._store.messages, self.id),
            dispatch=lambda request: self._dispatch(request, actor, session),
            limits=await self._stored(self._voice.limits, self.id),
            spend=turn.spend,
            facts=await self._voice.facts(session.model, instances),
        )
        async with aclosing(events):  # a turn that breaks off here must not go on in the background
            async for event in events:
                await self._handle(turn, event, session.model)

    async def _dispatch(self, request: ToolRequest, actor: Actor, session: Session) -> CallRecord:
        """The model's only way to a database: through the gate, as an agent on the person's behalf."""
        asker = actor.model_copy(update={"agent": True})
        on = request.on or session.instance
        ask = Ask(request.tool, dict(request.arguments), on, session=self.id, call=request.id)
        return await self._executor.submit(ask, asker)

    async def _handle(self, turn: TurnRecord, event: AgentEvent, model: str) -> None:
        from opsagent_jupyter.agent import loop

        match event:
            case loop.TextDelta(text=text):
                turn.text += text
                self._event(turn, "delta", text=text)
            case loop.Said(text=text, calls=calls, partial=partial):
                records = tuple(self._asked(request) for request in calls)
                await self._append(turn, role="assistant", text=text, calls=records, model=model, partial=partial)
                # A later message starts a new paragraph of the answer.
                turn.text = turn.text.rstrip() + "\n\n" if turn.text.strip() else ""
                turn.stored = len(turn.text)
            case loop.Called(request=request):
                self._call(turn, self._asked(request))
            case loop.Answered(record=record):
                self._call(turn, record)
            case loop.ToolSaid(call_id=call_id, text=text):
                known = turn.calls.get(call_id)
                await self._append(turn, role="tool", text=text, call=call_id, calls=(known,) if known else ())
            case loop.Parked():
                turn.state = "parked"
                turn.text = turn.text.strip()
                self._event(turn, "parked", text=turn.text)
            case loop.Finished():
                turn.state = "finished"
                turn.text = turn.text.strip()
                self._event(turn, "finished", text=turn.text)
            case loop.Failed(error=error):
                self._failed(turn, error)

    def _failed(self, turn: TurnRecord, error: OpsAgentError) -> None:
        turn.state, turn.error = "failed", error
        self._event(turn, "failed", text=error.message, error=error)

    async def _keep_partial(self, turn: TurnRecord, model: str) -> None:
        text = turn.text[turn.stored :].strip()
        if text:
            turn.stored = len(turn.text)
            with suppress(OpsAgentError):
                await self._append(turn, role="assistant", text=text, model=model, partial=True)

    # -- calls that waited ----------------------------------------------------------------------------------------

    async def _answerable(self) -> bool:
        """Whether some parked call has ended and none of the session's requests is still open."""
        waiting = await self._stored(
            self._store.approvals, session=self.id, states=tuple(OPEN - {ApprovalState.UNKNOWN})
        )
        return not waiting and bool(await self._unanswered())

    async def _unanswered(self) -> list[CallRecord]:
        messages = await self._stored(self._store.messages, self.id)
        answered = {message.call for message in messages if message.role == "tool"}
        return [
            call
            for message in messages
            if message.role == "assistant"
            for call in message.calls
            if call.id not in answered
        ]

    async def _answered_calls(self) -> None:
        """Write the answer of each call that ended since; a call that never reached the gate is said not to have run."""
        from opsagent_jupyter.agent.shield import Shield
        from opsagent_jupyter.agent.transcript import DEFAULT_CAPS, tool_text

        instances = await self._stored(self._store.instances)
        requests: dict[str, Approval] = {
            approval.call: approval
            for approval in await self._stored(self._store.approvals, session=self.id, limit=1000)
        }
        for call in await self._unanswered():
            approval = requests.get(call.id)
            if (
                approval is not None
                and approval.state not in DECIDED - OPEN
                and approval.state is not ApprovalState.UNKNOWN
            ):
                continue
            record = record_of(approval) if approval else _interrupted(call)
            turn = TurnRecord(self.id)
            text = tool_text(record, DEFAULT_CAPS, Shield.named(record.instance, instances))
            await self._append(turn, role="tool", text=text, call=call.id, calls=(record,))

    # -- writing and telling --------------------------------------------------------------------------------------

    def _redact(self, text: str) -> str:
        return self._executor.connections.redact(text)

    async def _append(self, turn: TurnRecord, **fields: Any) -> Message:
        if fields["role"] != "tool":  # what a tool answers is clean already, and has a form to keep
            fields["text"] = self._redact(fields["text"])
        message = Message(session=self.id, seq=0, turn=turn.id, **fields)
        return await self._stored(self._store.append, message)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            with suppress(OpsAgentError):
                if not await self._stored(self._store.lease_session, self.id, self._holder, self._lease):
                    self.cancel()  # this host slept too long: another one goes on with the session
                    return

    async def _stored(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        return await asyncio.to_thread(function, *arguments, **named)

    def _asked(self, request: ToolRequest) -> CallRecord:
        """A call before the gate has looked at it: the tool's own level, or the highest when there is no such tool."""
        try:
            risk = self._plugins.tool(request.tool).risk
        except OpsAgentError:
            risk = Risk.CRITICAL
        arguments = struck(dict(request.arguments), self._redact)
        return CallRecord(
            id=request.id, tool=request.tool, arguments=arguments, instance=request.on, risk=risk, status="running"
        )

    def _call(self, turn: TurnRecord, record: CallRecord) -> None:
        turn.calls[record.id] = record
        self._publish(protocol.ToolExecution(session=self.id, turn=turn.id, call=record))

    def _event(self, turn: TurnRecord, kind: Any, text: str = "", error: OpsAgentError | None = None) -> None:
        self._publish(
            protocol.TurnEvent(
                session=self.id,
                turn=turn.id,
                kind=kind,
                text=text,
                code=error.code if error else "",
                hint=error.hint if error else "",
            )
        )


def _interrupted(call: CallRecord) -> CallRecord:
    text = "no answer: the turn was cancelled or its host ended before this call was answered; it changed nothing"
    return call.model_copy(update={"status": "cancelled", "summary": text, "error_code": "call.interrupted"})
