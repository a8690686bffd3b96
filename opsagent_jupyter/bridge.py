"""One screen's line into a runtime: commands in, events out, whatever carries them (a widget's comm, a WebSocket)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from opsagent_jupyter import protocol
from opsagent_jupyter.errors import OpsAgentError, UnknownMessage, VersionMismatch
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Actor, Message, Result
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.session import TurnRecord

log = logging.getLogger("opsagent_jupyter")
Emit = Callable[[protocol.Event], None]

#: Messages of a transcript in one page.
PAGE = 100
WAITING = (ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.EXECUTING, ApprovalState.UNKNOWN)


class Bridge:
    """Makes links for the screens of one host, all for the same person."""

    def __init__(self, runtime: Runtime, actor: Actor, version: str) -> None:
        self.runtime = runtime
        self.actor = actor
        self.version = version

    def connect(self, emit: Emit) -> Link:
        """Open a link; ``emit`` is called on the runtime's thread."""
        return Link(self.runtime, self.actor, self.version, emit)


class Link:
    """One screen. ``handle`` returns at once; answers and later events come through ``emit``."""

    def __init__(self, runtime: Runtime, actor: Actor, version: str, emit: Emit) -> None:
        self._runtime = runtime
        self._actor = actor
        self._version = version
        self._emit = emit
        self._sessions: set[str] = set()
        self._subscribed = False
        self._watched: set[str] = set()
        self._forget = runtime.listen(self._heard)

    def handle(self, command: protocol.Command) -> None:
        """Carry a command out in the background; what goes wrong becomes an ``error`` event."""
        self._runtime.submit(self._handled(command))

    def close(self) -> None:
        """End the link; turns that it started go on."""
        self._forget()

    # -- events that concern this screen --------------------------------------------------------------------------

    def _heard(self, event: protocol.Event) -> None:
        match event:
            case protocol.ApprovalRequested(approval=approval) | protocol.ApprovalChanged(approval=approval):
                wanted = self._subscribed or approval.session in self._sessions or approval.id in self._watched
            case protocol.Appended(message=message):
                wanted = message.session in self._sessions
            case (
                protocol.TurnEvent(session=session)
                | protocol.ToolExecution(session=session)
                | protocol.Typing(session=session)
            ):
                wanted = session in self._sessions
            case _:
                wanted = True
        if wanted:
            self._emit(event)

    # -- commands -------------------------------------------------------------------------------------------------

    async def _handled(self, command: protocol.Command) -> None:
        about = str(getattr(command, "id", "") or getattr(command, "session", "") or getattr(command, "call", ""))
        try:
            await self._answer(command)
        except OpsAgentError as error:
            self._emit(
                protocol.Failure(
                    code=error.code,
                    message=self._runtime.redactor.redact(error.message),
                    hint=error.hint,
                    command=command.type,
                    about=about,
                )
            )
        except Exception as error:
            log.exception("a command failed")
            text = f"OpsAgent failed inside ({type(error).__name__}); the log of the kernel says where."
            self._emit(protocol.Failure(code=OpsAgentError.code, message=text, command=command.type, about=about))

    def _answer(self, command: protocol.Command) -> Coroutine[Any, Any, None]:
        match command:
            case protocol.Hello():
                return self._hello(command)
            case protocol.Join():
                return self._join(command)
            case protocol.Leave():
                return self._leave(command)
            case protocol.Say():
                return self._say(command)
            case protocol.Cancel():
                return self._cancel(command)
            case protocol.History():
                return self._page(command.session, max(0, command.before - 1 - PAGE), command.before)
            case protocol.Subscribe() | protocol.Unsubscribe():
                return self._subscribe(on=isinstance(command, protocol.Subscribe))
            case protocol.Respond():
                return self._respond(command)
            case protocol.GetApproval():
                return self._approval(command.id)
            case protocol.Resolve():
                return self._resolve(command)
            case protocol.GetResult():
                return self._result(command.call)
            case _:
                raise UnknownMessage

    async def _hello(self, command: protocol.Hello) -> None:
        settings = self._runtime.settings
        self._emit(
            protocol.Welcome(
                version=self._version,
                setup=settings.setup,
                claim=self._runtime.claim,
                actor=self._actor,
                model=settings.model,
            )
        )
        if command.version != self._version:
            raise VersionMismatch(f"The screen is of release {command.version}, this kernel has {self._version}.")

    async def _join(self, command: protocol.Join) -> None:
        session = command.session or (await self._runtime.new_session(self._actor)).id
        known = await asyncio.to_thread(self._runtime.store.session, session)
        self._sessions.add(known.id)
        await self._page(known.id, command.since)
        conversation = self._runtime.conversation(known.id)
        if conversation.current is not None and conversation.current.state == "running":
            self._emit_turn(conversation.current)
        else:
            await self._runtime.keep(self._runtime.go_on(known.id, self._actor))

    def _emit_turn(self, turn: TurnRecord) -> None:
        self._emit(protocol.TurnEvent(session=turn.session, turn=turn.id, kind="started"))
        if turn.text:
            self._emit(protocol.TurnEvent(session=turn.session, turn=turn.id, kind="delta", text=turn.text))
        for call in turn.calls.values():
            self._emit(protocol.ToolExecution(session=turn.session, turn=turn.id, call=call))

    async def _page(self, session: str, after: int, before: int | None = None) -> None:
        store = self._runtime.store
        messages: list[Message] = list(await asyncio.to_thread(store.messages, session, after))
        if before is not None:
            messages = [message for message in messages if message.seq < before]
        known = await asyncio.to_thread(store.session, session)
        busy = self._runtime.conversation(session).busy
        self._emit(protocol.Joined(session=known, messages=tuple(messages[-PAGE:]), busy=busy))

    async def _leave(self, command: protocol.Leave) -> None:
        self._sessions.discard(command.session)

    async def _say(self, command: protocol.Say) -> None:
        await self._runtime.say(command.session, command.text, self._actor, TurnRecord(command.session))

    async def _cancel(self, command: protocol.Cancel) -> None:
        self._runtime.conversation(command.session).cancel()

    async def _subscribe(self, *, on: bool) -> None:
        self._subscribed = on
        if on:
            found = await asyncio.to_thread(self._runtime.store.approvals, states=WAITING, limit=200)
            self._emit(protocol.ApprovalsListed(approvals=tuple(reversed(found))))

    async def _approval(self, id: str) -> None:
        approval = await asyncio.to_thread(self._runtime.store.approval, id)
        self._watched.add(approval.id)
        self._emit(protocol.ApprovalChanged(approval=approval))

    async def _respond(self, command: protocol.Respond) -> None:
        decide = self._runtime.executor.decide
        try:
            await decide(command.id, command.decision, self._actor, command.reason, command.version)
        finally:
            await self._approval(command.id)

    async def _resolve(self, command: protocol.Resolve) -> None:
        try:
            await self._runtime.executor.resolve(command.id, command.state, self._actor, command.reason)
        finally:
            await self._approval(command.id)

    async def _result(self, call: str) -> None:
        for session in list(self._sessions):
            for message in await asyncio.to_thread(self._runtime.store.messages, session):
                for record in message.calls:
                    if record.id == call and record.result is not None:
                        self._emit(protocol.ResultRead(call=call, result=record.result))
                        return
        self._emit(protocol.ResultRead(call=call, result=Result(summary="These rows are not kept any more.")))
