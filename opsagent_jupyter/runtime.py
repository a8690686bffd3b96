"""The composition root of a host: one object graph, one background loop, one bridge between it and synchronous code."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread
import json
import logging
import os
import platform
import re
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from opsagent_jupyter import protocol
from opsagent_jupyter.config import CLAIMS, Settings
from opsagent_jupyter.connections import DSN, LiveConnections
from opsagent_jupyter.credentials import Secret, Vault, open_vault
from opsagent_jupyter.errors import (
    ConfigError,
    DeadlineExceeded,
    ExecutionError,
    NotAsShown,
    OpsAgentError,
    StoreError,
)
from opsagent_jupyter.executor import Ask, Decision, Executor
from opsagent_jupyter.feed import feed_events
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.model_keys import ModelKeys
from opsagent_jupyter.models import (
    Actor,
    Approval,
    AuditEvent,
    CallRecord,
    Catalog,
    FeedEntry,
    Health,
    Host,
    Instance,
    Json,
    Session,
    new_id,
    now,
    sha256,
)
from opsagent_jupyter.plugin import Limits
from opsagent_jupyter.plugins.registry import PluginRegistry
from opsagent_jupyter.redaction import Redactor, place_of
from opsagent_jupyter.session import Conversation, TurnRecord, Voice
from opsagent_jupyter.stores.store import open_store

T = TypeVar("T")
Kind = Literal["kernel", "cli", "server", "worker", "api"]
log = logging.getLogger("opsagent_jupyter")

#: Environment variables that hold a secret, by the end of their name.
SECRET_VARIABLE = re.compile(r"(API_?KEY|ACCESS_KEY|ENCRYPTION_KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
#: The audit's event for what a turn took of a language model.
USAGE = "model.usage"
#: Seconds that a turn waits for what a database says of itself, after which nobody waits, and for which that counts.
FACTS_PATIENCE, FACTS_LIMIT, FACTS_AGE = 3.0, 20.0, 600.0
#: Seconds that other hosts leave to the one where an approved call was asked for.
COURTESY = 0.3


class Runtime:
    """Everything a host holds. ``call`` enters the loop from synchronous code."""

    def __init__(self, settings: Settings, kind: Kind, actor: Actor, *, executes: bool = True) -> None:
        self.settings = settings
        self.actor = actor
        self.executes = executes
        at = now()
        self.host = Host(id=new_id(), kind=kind, pid=os.getpid(), machine=platform.node(), started_at=at, seen_at=at)
        self.policy = settings.policy()
        self.store = open_store(settings.resolved_store_url())
        self.plugins = PluginRegistry(settings.trusted_plugins)
        self.redactor = Redactor()
        self.redactor.add(*held_secrets(settings, os.environ))
        self.vault: Vault = open_vault(store_dir=settings.folder, shared=settings.shared)
        self.model_keys = ModelKeys(settings.folder, self.vault)
        self._models: dict[tuple[str, str], Any] = {}
        self._known_facts: dict[str, tuple[float, str]] = {}
        self._asking_facts: dict[str, asyncio.Task[None]] = {}
        self.limits = Limits(deadline=settings.deadline, change_deadline=settings.change_deadline, rows=settings.rows)
        self.connections = LiveConnections(self.store, self.plugins, self.vault, self.limits, self.redactor)
        self.executor = Executor(
            store=self.store,
            plugins=self.plugins,
            connections=self.connections,
            policy=self.policy,
            host=self.host,
            limits=self.limits,
            setup=settings.setup,
            pending=timedelta(seconds=settings.pending_seconds),
            vault=self.vault,
            hide=self.redactor.add,
        )
        self._listeners: dict[int, Callable[[protocol.Event], None]] = {}
        self._thinking: set[str] = set()
        self._health_watchers: set[object] = set()
        self.known_health: dict[str, Health] = {}
        self._conversations: dict[str, Conversation] = {}
        self._asked_here: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waited_for: set[concurrent.futures.Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opsagent", daemon=True)
        self._closed = False
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def claim(self) -> str:
        """What this set-up honestly protects from."""
        return CLAIMS[self.settings.setup]

    # -- the bridge -----------------------------------------------------------------------------------------------

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start work on the loop and return its future; cancelling the future cancels the work."""
        if self._closed:
            work.close()
            raise ConfigError("This OpsAgent is closed.", hint="Make a new one: OpsAgent().")
        future = asyncio.run_coroutine_threadsafe(self._known(work), self._loop)
        self._waited_for.add(future)
        future.add_done_callback(self._waited_for.discard)
        return future

    async def _known(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work that is cancelled, and waited for, when the runtime closes."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine on the loop is in a task
        self._tasks.add(task)
        try:
            return await work
        finally:
            self._tasks.discard(task)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work on the loop and wait; an interrupt of the waiting thread cancels the work, in the database too."""
        if threading.current_thread() is self._thread:  # waiting for itself would be waiting for ever
            work.close()
            raise ConfigError("OpsAgent was called from its own thread.", hint="Call it from another thread.")
        future = self.submit(work)
        try:
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            future.cancel()
            raise

    def _start(self) -> None:
        self._thread.start()
        self.store.heartbeat(self.host)
        head = self.store.feed_head()
        self.submit(self.keep(self._watch(head)))
        self.submit(self.keep(self._regularly(self._beat)))
        if self.executes:
            self.submit(self.keep(self._pick_up()))
            self.submit(self.keep(self._regularly(self._sweep)))
        _living.add(self)

    async def keep(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run work beside the caller until it ends or the runtime closes."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End in order: stop the tasks, close the connections, forget the host."""
        if self._closed:
            return
        if threading.current_thread() is self._thread:
            raise ConfigError("OpsAgent was closed from its own thread.", hint="Close it from another thread.")
        self._closed = True
        self.executes = False
        if self.host.kind != "kernel":  # a kernel is killed seconds later: there a statement is cancelled in order
            asyncio.run_coroutine_threadsafe(self.executor.drain(), self._loop).result()
        with suppress(concurrent.futures.TimeoutError, OpsAgentError, concurrent.futures.CancelledError):
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(timeout=15)
        for future in list(self._waited_for):
            future.cancel()  # its work will not end any more: whoever waits for it would wait for ever
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._loop.is_running():
            self._loop.close()
        with suppress(OpsAgentError):
            self.store.forget_host(self.host.id)
        self.store.close()

    async def _shut(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._close_models()
        await self.connections.close()  # a driver's own tasks end with it
        # What a cancelled task shields, such as the record of an outcome, still has to be written.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=5)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    async def _close_models(self) -> None:
        if self._models:
            from opsagent_jupyter.agent.providers import close_model

            for model in self._models.values():
                await close_model(model)

    # -- screens --------------------------------------------------------------------------------------------------

    def listen(self, emit: Callable[[protocol.Event], None]) -> Callable[[], None]:
        """Give every event of this host to ``emit`` (called on the loop's thread) until the returned function is called."""
        key = id(emit)
        self._listeners[key] = emit
        return lambda: self._listeners.pop(key, None) and None

    def publish(self, event: protocol.Event) -> None:
        """Tell every listener; one that fails does not silence the others."""
        for emit in list(self._listeners.values()):
            try:
                emit(event)
            except Exception as error:  # noqa: BLE001  # the other screens are still to be told
                log.error("a screen could not take an event: %s", place_of(error))  # noqa: TRY400

    async def watch_health(self, watcher: object) -> None:
        """Ask every database regularly how it is, and publish the answers, until the last watcher has left."""
        first = not self._health_watchers
        self._health_watchers.add(watcher)
        if first:
            await self.keep(self._watch_health())

    def leave_health(self, watcher: object) -> None:
        """Stop asking on this watcher's behalf."""
        self._health_watchers.discard(watcher)

    async def _watch_health(self) -> None:
        while self._health_watchers:
            with suppress(StoreError):
                for health in await self.healths():
                    self.known_health[health.instance] = health
                    self.publish(protocol.HealthChanged(health=health))
            await asyncio.sleep(self.settings.health_seconds)

    # -- the store's changes --------------------------------------------------------------------------------------

    async def _watch(self, after: int) -> None:
        while True:
            try:
                async for entry in self.store.watch(after):
                    await self._seen(entry)
                    after = entry.seq
            except StoreError as error:
                log.warning("the store cannot be watched, trying again: %s", error.message)
                await asyncio.sleep(1)

    async def _seen(self, entry: FeedEntry) -> None:
        try:
            if entry.topic == "approval":
                await self._approval_changed(entry)
            if self._listeners:
                for event in await self.events_of(entry):
                    self.publish(event)
        except OpsAgentError as error:
            if isinstance(error, StoreError) and error.retryable:
                raise  # it is read again: a change that is passed over would never be acted on
            log.warning("change %s (%s) could not be shown: %s", entry.seq, entry.topic, error.message)
        except Exception as error:  # noqa: BLE001  # one bad change must not end the watch
            log.error("change %s (%s) could not be shown: %s", entry.seq, entry.topic, place_of(error))  # noqa: TRY400

    async def _approval_changed(self, entry: FeedEntry) -> None:
        approval = await asyncio.to_thread(self.store.approval, entry.key)
        if approval.state is ApprovalState.APPROVED and self.executes:
            await self.keep(self._execute(approval))
        elif approval.state not in (ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.EXECUTING):
            await self.keep(self._go_on(approval))

    async def events_of(self, entry: FeedEntry) -> Sequence[protocol.Event]:
        """What a change looks like on a screen (see ``feed.py``)."""
        return await asyncio.to_thread(feed_events, self.store, entry)

    async def _execute(self, approval: Approval) -> None:
        if approval.call not in self._asked_here:
            await asyncio.sleep(COURTESY)
        try:
            await self.executor.resume(approval.id)
        except OpsAgentError as error:
            # Nothing was sent: it stays approved, and is tried again until its time is over.
            log.warning("approved request %s cannot be run here: %s", approval.id[:8], error.message)

    async def _go_on(self, approval: Approval) -> None:
        if approval.session in self._conversations:
            await self.go_on(approval.session, approval.requester.model_copy(update={"agent": False}))

    async def go_on(self, session: str, actor: Actor) -> None:
        """Go on with a session after decisions. While another host works on it, or has died while it did, that is asked
        again until the answer is told."""
        while True:
            try:
                await self.conversation(session).resume(actor)
                return
            except OpsAgentError as error:
                log.info("session %s does not go on now: %s", session[:8], error.message)
                if not error.retryable:
                    return
            await asyncio.sleep(self.settings.lease_seconds / 3)

    async def _pick_up(self) -> None:
        """At start: take what was approved while nobody could run it."""
        with suppress(OpsAgentError):
            for approval in await self.executor.every(ApprovalState.APPROVED):
                await self.keep(self._execute(approval))

    async def _regularly(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do work three times a lease for ever. Two kinds of work do not share a turn: a probe of a database that does
        not answer must not keep this host's sign of life back."""
        while True:
            try:
                await work()
            except OpsAgentError as error:
                log.warning("the store does not take what this host tells it: %s", error.message)
            except Exception as error:  # noqa: BLE001  # what fails once must not end for ever
                log.error("a regular task of this host failed: %s", place_of(error))  # noqa: TRY400
            await asyncio.sleep(self.settings.lease_seconds / 3)

    async def _beat(self) -> None:
        await asyncio.to_thread(self.store.heartbeat, self.host.model_copy(update={"seen_at": now()}))

    async def _sweep(self) -> None:
        if self.executes:
            await self.executor.sweep(timedelta(seconds=self.settings.lease_seconds))
            await self._pick_up()

    # -- decisions ------------------------------------------------------------------------------------------------

    async def decide(
        self, id: str, decision: Decision, actor: Actor, *, digest: str, reason: str = "", version: int | None = None
    ) -> Approval:
        """Take a decision from a screen, which says by ``digest`` what it showed: for anything else nothing is decided."""
        approval = await asyncio.to_thread(self.store.approval, id)
        if digest != approval.digest:
            error = NotAsShown(f"Request {approval.id[:8]} is not what the screen showed, so nothing was decided.")
            await asyncio.to_thread(self.store.record, self._denied(approval, actor, error))
            raise error
        return await self.executor.decide(approval.id, decision, actor, reason, version)

    def _denied(self, approval: Approval, actor: Actor, error: OpsAgentError) -> AuditEvent:
        target = approval.target
        event = self.event(
            "approval.denied", actor, status="denied", risk=approval.risk, tool=approval.tool, server=target.server,
            environment=target.environment, session=approval.session, call=approval.call, approval=approval.id,
            digest=approval.digest, summary=error.message, error_code=error.code,
        )  # fmt: skip
        return event.model_copy(update={"instance": target.instance})

    # -- instances ------------------------------------------------------------------------------------------------

    async def attach(self, instance: Instance, secret: Secret, actor: Actor) -> Health:
        """Try a connection out, then keep it; a connection that does not work is not kept."""
        try:
            settings = self.connections.describe(instance.plugin, secret)
            health = await self.connections.try_out(instance.plugin, instance.name, secret)
        except OpsAgentError as error:
            said = {"server": instance.server, "instance": instance.name, "summary": error.message}
            said = {name: self.redactor.redact(text) for name, text in said.items()}
            event = self.event("instance.refused", actor, instance, status="failed", error_code=error.code)
            event = event.model_copy(update=said)
            await asyncio.to_thread(self.store.record, event)
            raise
        instance = instance.model_copy(update={"settings": {**settings, **instance.settings}, "created_by": actor.name})
        await asyncio.to_thread(self._define, instance.plugin)
        known = await self._same(instance)
        instance = known or instance
        token = self.vault.encrypt(secret.reveal(), instance=instance.id, field=DSN)
        if known is not None:
            event = self.event("instance.reattached", actor, known, summary=self.redactor.redact(health.summary))
            await asyncio.to_thread(self.store.replace_credentials, {known.id: {DSN: token}}, event)
            await self.connections.drop(known.id)
            return health
        event = self.event("instance.attached", actor, instance, summary=self.redactor.redact(health.summary))
        await asyncio.to_thread(self.store.add_instance, instance, {DSN: token}, event)
        return health

    def _define(self, name: str) -> None:
        """Keep what the plugin offers, for hosts that do not have it installed."""
        plugin = self.plugins.plugin(name)
        offered: list[Json] = [
            {"name": tool.full_name, "summary": tool.summary, "risk": str(tool.risk), "changes": tool.changes}
            for tool in plugin.toolbox.tools.values()
        ]
        if self.store.plugin_definitions().get(name) != {"version": plugin.version, "tools": offered}:
            self.store.define_plugin(name, plugin.version, {"tools": offered})

    async def _same(self, instance: Instance) -> Instance | None:
        """An attached instance that is this very one, so that a notebook that is run again attaches nothing twice."""
        for known in await asyncio.to_thread(self.store.instances):
            same = known.model_copy(
                update={"id": instance.id, "created_at": instance.created_at, "created_by": instance.created_by}
            )
            if same == instance:
                return known
        return None

    async def detach(self, name: str, actor: Actor) -> Instance:
        """Forget an instance and its credentials."""
        instance = await asyncio.to_thread(self.store.instance, name)
        await asyncio.to_thread(
            self.store.remove_instance, instance.name, self.event("instance.detached", actor, instance)
        )
        await self.connections.drop(instance.id)
        return instance

    def event(self, type: str, actor: Actor, instance: Instance | None = None, **more: Any) -> AuditEvent:
        """An audit event of this host, about an instance or about none."""
        base: dict[str, Any] = {"type": type, "actor": actor, "host": self.host.id, "setup": self.settings.setup}
        if instance is not None:
            base |= {"server": instance.server, "instance": instance.name, "environment": instance.environment}
        return AuditEvent.model_validate(base | more)

    async def health(self, instance: Instance, seconds: float = 10.0) -> Health:
        """Ask an instance how it is; what goes wrong is the answer, not an exception."""
        seconds = min(seconds, self.settings.deadline)
        try:
            async with asyncio.timeout(seconds):
                return await self.connections.health(instance)
        except TimeoutError:
            summary = f"no answer within {seconds:g} s"
            return Health(instance=instance.name, ok=False, summary=summary, error_code=DeadlineExceeded.code)
        except OpsAgentError as error:
            if isinstance(error, ExecutionError):
                await self.connections.drop(instance.id)
            text = self.redactor.redact(str(error))
            return Health(instance=instance.name, ok=False, summary=text, error_code=error.code)

    async def healths(self, seconds: float = 10.0) -> list[Health]:
        """The health of all instances, asked at the same time."""
        instances = await asyncio.to_thread(self.store.instances)
        return list(await asyncio.gather(*(self.health(instance, seconds) for instance in instances)))

    async def catalogs(self) -> dict[str, Catalog]:
        """The names in every attached database that answers, by instance."""
        instances = await asyncio.to_thread(self.store.instances)
        found = await asyncio.gather(*(self._catalog(instance) for instance in instances))
        return {instance.name: catalog for instance, catalog in zip(instances, found, strict=True)}

    async def _catalog(self, instance: Instance) -> Catalog:
        try:
            async with asyncio.timeout(5):
                return await self.connections.catalog(instance)
        except (OpsAgentError, TimeoutError):
            return Catalog()

    async def run(self, ask: Ask, actor: Actor) -> CallRecord:
        """Take one call through the gate, and be the first to run it once it is approved."""
        self._asked_here.add(ask.call)
        return await self.executor.submit(ask, actor)

    # -- conversations --------------------------------------------------------------------------------------------

    def conversation(self, session: str) -> Conversation:
        """The conversation of a session in this host; from then on this host goes on with it after decisions."""
        if session not in self._conversations:
            self._conversations[session] = Conversation(
                session,
                store=self.store,
                plugins=self.plugins,
                executor=self.executor,
                voice=Voice(self.open_model, self._turn_limits, self.facts, self._usage_event),
                holder=self.host.id,
                lease_seconds=self.settings.lease_seconds,
                publish=self._publish_turn,
            )
        return self._conversations[session]

    async def new_session(self, actor: Actor, instance: str = "", model: str = "") -> Session:
        """Begin a session, bound to an instance when there is one to bind to."""
        instances = await asyncio.to_thread(self.store.instances)
        known = {i.name: i for i in instances}
        if not instance and len(instances) == 1:
            instance = instances[0].name
        chosen = known.get(instance)
        if instance and chosen is None:
            chosen = await asyncio.to_thread(self.store.instance, instance)
        session = Session(
            instance=chosen.name if chosen else "",
            server=chosen.server if chosen else "",
            model=model or self.settings.model,
            created_by=actor.name,
        )
        event = self.event("session.opened", actor, chosen, session=session.id)
        await asyncio.to_thread(self.store.add_session, session, event)
        return session

    async def say(self, session: str, text: str, actor: Actor, turn: TurnRecord, model: str = "") -> TurnRecord:
        """Run one turn of a session."""
        return await self.conversation(session).say(text, actor, turn, model)

    def _publish_turn(self, event: protocol.Event) -> None:
        if isinstance(event, protocol.ToolExecution) and event.call.status == "running":
            self._asked_here.add(event.call.id)
        self.publish(event)
        match event:
            case protocol.TurnEvent(session=session, kind=kind):
                self._typing(session, on=kind == "started")
            case protocol.ToolExecution(session=session, call=call):
                self._typing(session, on=call.status not in ("running", "waiting"))

    def _typing(self, session: str, *, on: bool) -> None:
        """Say when a model begins to think, and when something else happens: its words, a call, the end."""
        if on is not (session in self._thinking):
            (self._thinking.add if on else self._thinking.discard)(session)
            self.publish(protocol.Typing(session=session, on=on))

    def _turn_limits(self, session: str) -> Any:
        from opsagent_jupyter.agent.loop import TurnLimits

        kept = self.settings
        spent = self.session_tokens(session) if kept.session_tokens else 0
        return TurnLimits(
            calls=kept.turn_calls,
            seconds=kept.turn_seconds,
            tokens=kept.turn_tokens,
            session_tokens=kept.session_tokens,
            spent=spent,
        )

    def session_tokens(self, session: str) -> int:
        """The tokens that a session has taken, as the audit has them, on whatever host."""
        tokens, before = 0, None
        while True:
            rows = self.store.audit_page(before=before, limit=500, filters={"session": session})
            for row in rows:
                body = json.loads(row.body)
                if body.get("type") == USAGE:
                    tokens += body["details"]["input_tokens"] + body["details"]["output_tokens"]
            if len(rows) < 500:
                return tokens
            before = rows[-1].seq

    def _usage_event(self, turn: TurnRecord, actor: Actor, session: Session) -> AuditEvent:
        """What asking the model took in one turn; a cost only where a price was set."""
        usage = turn.usage
        details: dict[str, Json] = {
            "turn": turn.id,
            "model": session.model,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "calls": usage.calls,
            "estimated_calls": usage.estimated,
            "seconds": round(usage.seconds, 3),
        }
        cost = self.settings.cost(session.model, usage.input_tokens, usage.output_tokens)
        if cost is not None:
            details["cost"] = round(cost, 6)
        summary = f"{session.model}: {usage.input_tokens} tokens read, {usage.output_tokens} written"
        return self.event(
            USAGE,
            actor,
            status=turn.state,
            session=session.id,
            milliseconds=usage.seconds * 1000,
            summary=self.redactor.redact(summary),
            details=details,
        )

    async def facts(self, model: str, instances: Sequence[Instance]) -> dict[str, str]:
        """What each database is and holds, in a line for a model that has to be told; asked again after some minutes."""
        if model == "offline":
            return {}
        lines = await asyncio.gather(*(self._facts(instance) for instance in instances))
        return {instance.name: line for instance, line in zip(instances, lines, strict=True) if line}

    async def _facts(self, instance: Instance) -> str:
        """The line about one database. A server that does not answer delays one turn by some seconds, and no other."""
        until, line = self._known_facts.get(instance.id, (0.0, ""))
        if self._loop.time() < until:
            return line
        if instance.id not in self._asking_facts:
            asking = self._asking_facts[instance.id] = asyncio.ensure_future(self._read_facts(instance))
            self._tasks.add(asking)
            asking.add_done_callback(self._tasks.discard)
            await asyncio.wait({asking}, timeout=FACTS_PATIENCE)
        return self._known_facts.get(instance.id, (0.0, ""))[1]

    async def _read_facts(self, instance: Instance) -> None:
        from opsagent_jupyter.agent.prompts import facts_line, facts_of
        from opsagent_jupyter.agent.shield import Shield

        line = ""
        try:
            async with asyncio.timeout(FACTS_LIMIT):
                facts = await self.connections.facts(instance)
                line = facts_line(facts)
                if not line:
                    health = await self.connections.health(instance)
                    line = facts_of(health, await self.connections.catalog(instance))
        except (OpsAgentError, TimeoutError) as error:
            log.info("%s says nothing of itself now (%s)", instance.name, type(error).__name__)
        finally:
            told = Shield.of(instance).text(self.redactor.redact(line))
            self._known_facts[instance.id] = (self._loop.time() + (FACTS_AGE if told else FACTS_AGE / 10), told)
            self._asking_facts.pop(instance.id, None)

    # -- models ---------------------------------------------------------------------------------------------------

    def open_model(self, name: str, instances: Sequence[Instance]) -> Any:
        """The language model of that name; `ModelError` says what it lacks. A client is kept per model and key, with its
        connections."""
        from opsagent_jupyter.agent.providers import open_model, provider_of

        base_url = self.settings.model_base_url or None
        if name == "offline":
            plugins = sorted({i.plugin for i in instances})
            tools = [tool for plugin in plugins for tool in self.plugins.tools(plugin)]
            return open_model(name, tools=tools, catalog=self.catalogs)
        key = self._model_key(provider_of(name)[0])
        kept = (name, sha256(key.reveal()))
        if kept not in self._models:
            self._models[kept] = open_model(name, base_url=base_url, api_key=key.reveal() or None)
        return self._models[kept]

    def _model_key(self, provider: str) -> Secret:
        """A provider's key: what the environment says, else what is kept; empty when there is none."""
        from opsagent_jupyter.agent.providers import key_variable

        key = Secret(os.environ.get(key_variable(provider)) or "") or self.model_keys.key(provider) or Secret("")
        self.redactor.add(key.reveal())
        return key

    def keep_model_key(self, provider: str, key: Secret, actor: Actor) -> str:
        """Keep a provider's key, encrypted, on this machine; an empty one forgets it. Returns langchain's provider name."""
        from opsagent_jupyter.agent.providers import known_provider

        provider = known_provider(provider)
        self.redactor.add(key.reveal())
        kind = "model.key_kept" if key else "model.key_forgotten"
        self.store.record(self.event(kind, actor, details={"provider": provider}))
        if key:
            self.model_keys.keep(provider, key)
        else:
            self.model_keys.forget(provider)
        return provider


def held_secrets(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """What this process holds and must not let out: passwords of store and model, keys of providers, the encryption key."""
    for url in (settings.store_url, settings.model_base_url):
        with suppress(ValueError):
            yield unquote(urlsplit(url).password or "")
    for name, value in environ.items():
        # A short value could be a number or a word of any text.
        if SECRET_VARIABLE.search(name) and len(value) >= 8:
            yield from value.split(",")


_living: weakref.WeakSet[Runtime] = weakref.WeakSet()


def _close_living() -> None:
    for runtime in [runtime for runtime in _living if runtime.host.pid == os.getpid()]:
        runtime.close()


# ``atexit`` comes too late: Python's pools of threads, which closing needs, have ended by then.
getattr(threading, "_register_atexit", atexit.register)(_close_living)
