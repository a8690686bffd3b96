"""One screen's line into a runtime: commands in, events out, whatever carries them (a widget's comm, a WebSocket)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from opsagent_jupyter import protocol
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import OpsAgentError, UnknownMessage, VersionMismatch
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Actor, Message, Result, sha256
from opsagent_jupyter.redaction import place_of
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.session import TurnRecord

log = logging.getLogger("opsagent_jupyter")
Emit = Callable[[protocol.Event], None]

#: Messages of a transcript in one page.
PAGE = 100
#: Changes that a screen which comes back is told one by one; after more it begins anew.
RESUMABLE = 5_000
WAITING = (ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.EXECUTING, ApprovalState.UNKNOWN)


def mark_of(store: Store) -> str:
    """A mark by which two hosts see that they share a store: of its address and its log's own id. A copy of a store lies
    elsewhere, and another store in the same place has another log."""
    return sha256(f"{store.url}\n{store.log_id}")


class Bridge:
    """Makes links for the screens of one host, all for the same person."""

    def __init__(self, runtime: Runtime, actor: Actor, version: str) -> None:
        self.runtime = runtime
        self.actor = actor
        self.version = version

    def connect(self, emit: Emit, *, operates: bool = True, crowded: Callable[[], bool] = lambda: False) -> Link:
        """Open a link; ``emit`` is called on the runtime's thread. One that does not ``operate`` only looks on. While it is
        ``crowded``, catching up waits."""
        return Link(self.runtime, self.actor, self.version, emit, operates=operates, crowded=crowded)


class Link:
    """One screen. ``handle`` returns at once; answers and later events come through ``emit``."""

    def __init__(
        self,
        runtime: Runtime,
        actor: Actor,
        version: str,
        emit: Emit,
        *,
        operates: bool = True,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._runtime = runtime
        self._actor = actor
        self._version = version
        self._emit = emit
        self._operates = operates
        self._crowded = crowded
        self._sessions: set[str] = set()
        self._subscribed = False
        self._plugins = False
        self._watched: set[str] = set()
        self._position = 0
        self._held: list[protocol.Event] | None = None
        self._greeting = asyncio.Lock()
        self._closed = False
        self._forget = runtime.listen(self._heard)

    def handle(self, command: protocol.Command) -> None:
        """Carry a command out in the background; what goes wrong becomes an ``error`` event."""
        self._runtime.submit(self._handled(command))

    def close(self) -> None:
        """End the link; turns that it started go on."""
        self._closed = True
        self._forget()
        self._runtime.leave_health(self)

    # -- events that concern this screen --------------------------------------------------------------------------

    def _heard(self, event: protocol.Event) -> None:
        """Take an event of the host. Those of the feed come in its order; what this screen knows already is left out."""
        if self._held is not None and event.seq:
            self._held.append(event)
        elif event.seq == 0 or event.seq > self._position:
            self._position = max(self._position, event.seq)
            self._show(event)

    def _show(self, event: protocol.Event) -> None:
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
            case protocol.SessionChanged(session=session):
                wanted = self._plugins or session.id in self._sessions
            case protocol.PluginStatus() | protocol.ToolExecuted() | protocol.HealthChanged():
                wanted = self._plugins
            case _:
                wanted = True
        if wanted:
            self._emit(event)

    # -- commands -------------------------------------------------------------------------------------------------

    async def _handled(self, command: protocol.Command) -> None:
        about = str(getattr(command, "id", "") or getattr(command, "session", "") or getattr(command, "call", ""))
        try:
            if not isinstance(command, protocol.Hello):
                async with self._greeting:  # what is asked after a hello is answered after it
                    pass
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
        except Exception as error:  # noqa: BLE001  # a bug must be answered, not end the link
            log.error("a command failed: %s", place_of(error))  # noqa: TRY400
            text = f"OpsAgent failed inside ({type(error).__name__}); the log of this host says where."
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
            case protocol.SubscribePlugins() | protocol.UnsubscribePlugins():
                return self._watch_plugins(on=isinstance(command, protocol.SubscribePlugins))
            case _:
                return self._answer_about_one(command)

    def _answer_about_one(self, command: protocol.Command) -> Coroutine[Any, Any, None]:
        """Carry out what is about one request or one call."""
        match command:
            case protocol.GetApproval():
                return self._approval(command.id)
            case protocol.Resolve():
                return self._resolve(command)
            case protocol.GetResult():
                return self._result(command.call)
            case protocol.Reveal():
                return self._reveal(command.id)
            case _:
                raise UnknownMessage

    async def _hello(self, command: protocol.Hello) -> None:
        async with self._greeting:
            self._held = []
            try:
                await self._greet(command)
            finally:
                held, self._held = self._held or [], None
                for event in held:
                    self._heard(event)
        if command.version != self._version:
            raise VersionMismatch(f"The screen is of release {command.version}, this host has {self._version}.")

    async def _greet(self, command: protocol.Hello) -> None:
        head = await asyncio.to_thread(self._runtime.store.feed_head)
        resumed = 0 < command.since <= head <= command.since + RESUMABLE
        self._position = command.since if resumed else head
        settings = self._runtime.settings
        self._emit(
            protocol.Welcome(
                version=self._version,
                setup=settings.setup,
                claim=self._runtime.claim,
                actor=self._actor,
                model=settings.model,
                store=await asyncio.to_thread(mark_of, self._runtime.store),
                resumed=resumed,
                seq=self._position,
            )
        )
        if resumed:
            self._subscribed = self._plugins = True
            await self._catch_up()

    async def _catch_up(self) -> None:
        """Tell what happened since, in the feed's order; what happens meanwhile is held back until then."""
        while not self._closed and (entries := await asyncio.to_thread(self._runtime.store.feed, self._position)):
            for entry in entries:
                while self._crowded() and not self._closed:  # noqa: ASYNC110 - the other end lives on another loop
                    await asyncio.sleep(0.05)
                for event in await self._runtime.events_of(entry):
                    self._show(event)
                self._position = entry.seq

    async def _join(self, command: protocol.Join) -> None:
        session = command.session or (await self._runtime.new_session(self._actor)).id
        known = await asyncio.to_thread(self._runtime.store.session, session)
        self._sessions.add(known.id)
        await self._page(known.id, command.since)
        conversation = self._runtime.conversation(known.id)
        if conversation.current is not None and conversation.current.state == "running":
            self._emit_turn(conversation.current)
        elif self._operates:
            await self._runtime.keep(self._runtime.go_on(known.id, self._actor))

    def _emit_turn(self, turn: TurnRecord) -> None:
        self._emit(protocol.TurnEvent(session=turn.session, turn=turn.id, kind="started"))
        if turn.text:
            self._emit(protocol.TurnEvent(session=turn.session, turn=turn.id, kind="delta", text=turn.text))
        for call in turn.calls.values():
            self._emit(protocol.ToolExecution(session=turn.session, turn=turn.id, call=call))

    async def _page(self, session: str, after: int, before: int | None = None) -> None:
        store = self._runtime.store
        last = await asyncio.to_thread(store.messages_before, session, before, PAGE)
        messages: list[Message] = [message for message in reversed(last) if message.seq > after]
        known = await asyncio.to_thread(store.session, session)
        busy = self._runtime.conversation(session).busy
        self._emit(protocol.Joined(session=known, messages=tuple(messages), busy=busy))

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

    async def _watch_plugins(self, *, on: bool) -> None:
        self._plugins = on
        if not on:
            self._runtime.leave_health(self)
            return
        store = self._runtime.store
        for server in await asyncio.to_thread(store.servers):
            self._emit(protocol.PluginStatus(server=server, name="", status="attached"))
        for instance in await asyncio.to_thread(store.instances):
            self._emit(
                protocol.PluginStatus(server=instance.server, name=instance.name, status="attached", instance=instance)
            )
        for health in list(self._runtime.known_health.values()):
            self._emit(protocol.HealthChanged(health=health))
        await self._runtime.watch_health(self)

    async def _approval(self, id: str) -> None:
        approval = await asyncio.to_thread(self._runtime.store.approval, id)
        self._watched.add(approval.id)
        self._emit(protocol.ApprovalChanged(approval=approval))

    async def _respond(self, command: protocol.Respond) -> None:
        seen: dict[str, Any] = {"digest": command.digest, "version": command.version}
        try:
            await self._runtime.decide(command.id, command.decision, self._actor, reason=command.reason, **seen)
        finally:
            await self._approval(command.id)

    async def _resolve(self, command: protocol.Resolve) -> None:
        try:
            await self._runtime.executor.resolve(command.id, command.state, self._actor, command.reason)
        finally:
            await self._approval(command.id)

    async def _reveal(self, id: str) -> None:
        """Show a secret to this screen alone: it is emitted here, never published."""
        shown = await self._runtime.executor.reveal(id, self._actor)
        self._emit(protocol.SecretShown(id=id, text=shown()))

    async def _result(self, call: str) -> None:
        for session in list(self._sessions):
            for message in await asyncio.to_thread(self._runtime.store.messages, session):
                for record in message.calls:
                    if record.id == call and record.result is not None:
                        self._emit(protocol.ResultRead(call=call, result=record.result))
                        return
        self._emit(protocol.ResultRead(call=call, result=Result(summary="These rows are not kept any more.")))
