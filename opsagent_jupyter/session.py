"""One conversation: its turns, its lease, and its transcript in the store, which is the only truth about it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from opsagent_jupyter import protocol
from opsagent_jupyter.agent.events import Usage
from opsagent_jupyter.agent.interruptions import (
    end_of,
    is_unfinished,
    missing_record,
    traces,
    unanswered,
    with_requests,
)
from opsagent_jupyter.contracts import Lease, Plugins, Store
from opsagent_jupyter.errors import OpsAgentError, SessionBusy, SessionClosed
from opsagent_jupyter.executor import Ask, Executor, record_of, struck
from opsagent_jupyter.lifecycle import OPEN, ApprovalState
from opsagent_jupyter.models import Actor, Approval, AuditEvent, CallRecord, Instance, Message, Risk, Session, new_id
from opsagent_jupyter.redaction import place_of

if TYPE_CHECKING:
    from opsagent_jupyter.agent.loop import AgentEvent, ToolRequest, TurnLimits

T = TypeVar("T")
Publish = Callable[[protocol.Event], None]
log = logging.getLogger("opsagent_jupyter")
#: Seconds to wait for a session that another host works on, before it is called busy.
PATIENCE = 1.0
#: How far the clocks of two hosts may be apart.
CLOCKS = timedelta(minutes=10)
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
        """Go on after decisions, when nothing is waiting any more, or with a turn that broke off because its host ended;
        None when there is nothing to go on with."""
        if not await self._rest():
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
            lease = await self._take_lease()
            self._task = asyncio.current_task()
            self.current = turn
            renewing = asyncio.create_task(self._renew())
            try:
                # Asked again under the lock and the lease: another screen or host may have gone on meanwhile.
                if text is not None or await self._rest() in ("answers", lease):
                    await self._worked(turn, actor, text, model)
            finally:
                self._task = self.current = None
                renewing.cancel()
                with suppress(OpsAgentError):
                    await asyncio.shield(self._stored(self._store.release_session, self.id, self._holder))
        return turn

    async def _take_lease(self) -> Lease:
        """Take the session over; a host that has just told the end of its turn gives it back a moment later."""
        deadline = time.monotonic() + PATIENCE
        while not (lease := await self._stored(self._store.lease_session, self.id, self._holder, self._lease)):
            if time.monotonic() > deadline:
                raise SessionBusy
            await asyncio.sleep(0.05)
        return lease

    async def _held(self) -> bool:
        """Renew the lease; False when this host slept too long, and another one may have gone on with the session."""
        return await self._stored(self._store.renew_session, self.id, self._holder, self._lease)

    async def _worked(self, turn: TurnRecord, actor: Actor, text: str | None, model: str) -> None:
        session = await self._opened(text, model)
        await self._answered_calls()  # what broke off is told before what is asked next
        if text is not None:
            await self._append(turn, role="user", text=text, author=actor.name)
        self._event(turn, "started")
        try:
            await self._run_agent(turn, actor, session)
        except asyncio.CancelledError:
            await asyncio.shield(self._broken_off(turn, actor, session.model))
            turn.state = "cancelled"
            self._event(turn, "cancelled", text=turn.text)
        except OpsAgentError as error:
            await self._broken_off(turn, actor, session.model)
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
        facts = await self._voice.facts(session.model, instances)
        events = loop.run(
            model=self._voice.open_model(session.model, instances),
            tools=tools,
            instances=instances,
            focus=session.instance,
            transcript=await self._transcript(),
            dispatch=lambda request: self._dispatch(request, actor, session, facts),
            limits=await self._stored(self._voice.limits, self.id),
            spend=turn.spend,
            facts=facts,
        )
        async with aclosing(events):  # a turn that breaks off here must not go on in the background
            async for event in events:
                await self._handle(turn, event, session.model)

    async def _transcript(self) -> Sequence[Message]:
        """What was said, with the requests that wait for a person at their calls."""
        messages = await self._stored(self._store.messages, self.id)
        pending = await self._stored(self._store.approvals, session=self.id, states=(ApprovalState.PENDING,))
        return with_requests(messages, {approval.call: approval.id for approval in pending})

    async def _dispatch(
        self, request: ToolRequest, actor: Actor, session: Session, facts: Mapping[str, str]
    ) -> CallRecord:
        """The model's only way to a database: through the gate, as an agent on the person's behalf."""
        if not await self._held():
            raise SessionBusy
        asker = actor.model_copy(update={"agent": True})
        on = request.on or session.instance
        ask = Ask(request.tool, dict(request.arguments), on, session=self.id, call=request.id, told=facts)
        record = await self._executor.submit(ask, asker)
        if record.status == "waiting" and not await self._held():
            raise SessionBusy
        return record

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
                if known and known.status == "running":  # the turn has ended without it
                    known = known.model_copy(update={"status": "cancelled", "summary": text})
                    self._call(turn, known)
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

    async def _broken_off(self, turn: TurnRecord, actor: Actor, model: str) -> None:
        """Keep what was said of an answer, and end the calls that were open: nobody goes on with this turn."""
        with suppress(OpsAgentError):
            await self._withdraw_late(actor)
            await self._answered_calls()
            text = turn.text[turn.stored :].strip()
            if text:
                turn.stored = len(turn.text)
                await self._append(turn, role="assistant", text=text, model=model, partial=True)

    # -- calls that waited ----------------------------------------------------------------------------------------

    async def _rest(self) -> Literal["answers", "left", ""]:
        """What there is to go on with: parked calls have ended and none of the session's requests is open any more, or the
        last exchange has no end. The latter is nobody's wish, and to be ended, only in a session that was ``left``."""
        messages = await self._stored(self._store.messages, self.id)
        open_ = tuple(OPEN - {ApprovalState.UNKNOWN})
        waiting = await self._stored(self._store.approvals, session=self.id, states=open_)
        if not waiting and unanswered(messages):
            return "answers"
        return "left" if is_unfinished(messages, {approval.call for approval in waiting}) else ""

    async def _answered_calls(self) -> None:
        """Write the answer of each call that has ended, or whose host has; one that still waits for a person is left out."""
        from opsagent_jupyter.agent.shield import Shield
        from opsagent_jupyter.agent.transcript import DEFAULT_CAPS, tool_text

        messages = await self._stored(self._store.messages, self.id)
        calls = unanswered(messages)
        if not calls:
            return
        approvals = await self._stored(self._store.approvals, session=self.id, limit=1000)
        requests: dict[str, Approval] = {approval.call: approval for approval in approvals}
        instances = await self._stored(self._store.instances)
        traces_ = await self._traces(messages, calls)
        for call in calls:
            approval = requests.get(call.id)
            if approval is not None and approval.state in OPEN - {ApprovalState.UNKNOWN}:
                continue
            known = traces_.get(call.id, {})
            record = record_of(approval) if approval else end_of(call, known)
            # In one transaction: a host that has lost the session says nothing of its calls in the audit either.
            event = None if approval else missing_record(record, known, self._holder)
            text = tool_text(record, DEFAULT_CAPS, Shield.named(record.instance, instances))
            await self._append(TurnRecord(self.id), event, role="tool", text=text, call=call.id, calls=(record,))

    async def _withdraw_late(self, actor: Actor) -> None:
        """Take back requests that this host brought after another one, which took it for dead, had answered their calls."""
        answered = {message.call for message in await self._stored(self._store.messages, self.id)}
        for approval in await self._stored(self._store.approvals, session=self.id, states=(ApprovalState.PENDING,)):
            if approval.call in answered and approval.requester.id == actor.id:
                await self._executor.decide(approval.id, "withdraw", actor, "the conversation went on without it")

    async def _traces(self, messages: Sequence[Message], calls: Sequence[CallRecord]) -> Mapping[str, Any]:
        """What the audit knows of calls, by their ids."""
        ids = {call.id for call in calls}
        asked = min(message.created_at for message in messages if ids & {call.id for call in message.calls})
        filters = {"session": self.id, "since": (asked - CLOCKS).isoformat()}
        rows = await self._stored(self._store.audit_page, before=None, limit=10_000, filters=filters)
        return traces(rows, ids)

    # -- writing and telling --------------------------------------------------------------------------------------

    def _redact(self, text: str) -> str:
        return self._executor.connections.redact(text)

    async def _append(self, turn: TurnRecord, event: AuditEvent | None = None, **fields: Any) -> Message:
        if fields["role"] != "tool":  # what a tool answers is clean already, and has a form to keep
            fields["text"] = self._redact(fields["text"])
        message = Message(session=self.id, seq=0, turn=turn.id, **fields)
        writing = asyncio.ensure_future(self._stored(self._store.append, message, self._holder, event))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:  # what follows has to know what was written, or it would be written twice
            with suppress(OpsAgentError):
                await writing
            raise

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            with suppress(OpsAgentError):
                if not await self._held():
                    self.cancel()
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
