"""The gate: the only place that runs a tool.

    validate -> assess -> policy:   allow -> audit intent -> run -> audit outcome
                                    ask   -> durable request; after a person's decision any host resumes it:
                                             digest -> preconditions -> claim once -> run -> read back -> audit outcome
                                    deny  -> a refusal that is audited and readable

Nothing that needs a person runs without a stored decision for its digest, nothing runs without a durable audit record
before it, and what may have run is ``unknown``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from opsagent_jupyter.contracts import ONE_TIME, Connections, Plugins, Store, Vault
from opsagent_jupyter.errors import (
    AlreadyDecided,
    ApprovalError,
    AuditUnavailable,
    CallRefused,
    Cancelled,
    CredentialError,
    DatabaseError,
    DeadlineExceeded,
    DigestMismatch,
    EffectMissing,
    ExecutionError,
    KeyMissing,
    NotAllowedToReveal,
    OpsAgentError,
    OutcomeUnknown,
    PluginError,
    PreconditionChanged,
    SecretInClear,
    StoreError,
    StoreLocked,
    UnknownInstance,
    VettingVoid,
)
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import (
    Actor,
    Approval,
    Assessment,
    AuditEvent,
    CallRecord,
    CallStatus,
    Effect,
    Host,
    Instance,
    Json,
    Message,
    Origin,
    Plan,
    Result,
    Risk,
    Target,
    Verdict,
    canonical,
    highest,
    new_id,
    now,
    without_nulls,
)
from opsagent_jupyter.origins import origins
from opsagent_jupyter.plugin import Connection, Limits, Tool
from opsagent_jupyter.policy import USE_WITHIN, Policy
from opsagent_jupyter.vetting import RULE, SEAL, Vetting

T = TypeVar("T")
Decision = Literal["approve", "reject", "withdraw", "revoke"]

DECISIONS: dict[str, ApprovalState] = {
    "approve": ApprovalState.APPROVED,
    "reject": ApprovalState.REJECTED,
    "withdraw": ApprovalState.WITHDRAWN,
    "revoke": ApprovalState.REVOKED,
}

#: Tries, with pauses of up to 5 s, to record an outcome in a store that is busy or full.
SETTLE_ATTEMPTS = 60

#: Requests that are read from the store at a time.
PAGE = 100

#: Levels of lists and objects in an argument that are recorded.
NESTED = 20

#: Steps of a run that are looked at: all, so that no number of calls hides an earlier one.
EVERY = 1_000_000

_GRANT_SEAL = object()


@dataclass(frozen=True)
class Ask:
    """A call as somebody asks for it: nothing in it is trusted yet."""

    tool: str
    arguments: dict[str, Any]
    on: str
    session: str = ""
    call: str = field(default_factory=new_id)
    dry_run: bool = False
    supersedes: str = ""
    request: str = ""
    """The id that an approval request for it shall have: a step of a runbook can be asked for once, because the store
    keeps an id once. A random one by default."""
    details: Mapping[str, Json] = field(default_factory=dict)
    """Where it comes from, for the audit: which step of which run of a runbook."""
    vetting: str = ""
    """The signature of the runbook that may take the place of a person's decision; only a name, the store has the rest."""
    told: Mapping[str, str] = field(default_factory=dict)
    """What the model that asks was told of each database before the conversation: text of databases, like answers."""


@dataclass(frozen=True)
class Grant:
    """Proof that one prepared call may run once: made only by the policy's allow or by a claim."""

    call: str
    seal: object

    def __post_init__(self) -> None:
        if self.seal is not _GRANT_SEAL:
            raise CallRefused("A grant comes only from the gate.")


@dataclass(frozen=True)
class Prepared:
    """A validated, assessed call: what the policy judges."""

    ask: Ask
    actor: Actor
    tool: Tool
    instance: Instance
    values: dict[str, Json]
    parsed: Any
    assessment: Assessment
    plan: Plan | None = None
    identity: dict[str, Json] = field(default_factory=dict)
    origins: tuple[Origin, ...] = ()

    @property
    def target(self) -> Target:
        """What it is aimed at."""
        i = self.instance
        return Target(
            server=i.server,
            instance=i.name,
            instance_id=i.id,
            plugin=i.plugin,
            environment=i.environment,
            identity=self.identity,
        )

    def usual(self, name: str) -> bool:
        """Whether an argument has the value that the tool gives it by itself."""
        default = type(self.parsed).model_fields[name].get_default(call_default_factory=True)
        return bool(default == getattr(self.parsed, name))

    def record(self, status: CallStatus, **more: Any) -> CallRecord:
        """The caller's view of this call."""
        base: dict[str, Any] = {
            "id": self.ask.call,
            "tool": self.tool.full_name,
            "arguments": self.values,
            "instance": self.instance.name,
            "risk": self.assessment.risk,
            "reasons": self.assessment.reasons,
            "status": status,
        }
        return CallRecord.model_validate(base | more)


class Executor:
    """Runs tools for every door: magics, widgets, REST, CLI, runbooks and the agent all enter here."""

    def __init__(
        self,
        *,
        store: Store,
        plugins: Plugins,
        connections: Connections,
        policy: Policy,
        host: Host,
        limits: Limits,
        setup: str = "personal",
        pending: timedelta = timedelta(hours=24),
        vault: Vault | None = None,
        hide: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.vault = vault
        """Seals the secrets that calls make; without it such calls fail before anything is sent."""
        self.hide = hide
        """Makes a secret known to everything that redacts in this host."""
        self.store = store
        self.plugins = plugins
        self.connections = connections
        self.policy = policy
        self.host = host
        self.limits = limits
        self.setup = setup
        self.pending = pending
        self._running: dict[str, asyncio.Future[Any]] = {}
        self._claimed: set[str] = set()
        self._executor = Actor(id=f"host:{host.id[:8]}", name=f"{host.kind} {host.pid}", via=host.kind)

    # -- asking ---------------------------------------------------------------------------------------------------

    async def submit(self, ask: Ask, actor: Actor) -> CallRecord:
        """Take a call through the gate: it ends finished, refused or waiting. Refusals are values, not exceptions;
        ``StoreError`` and ``AuditError`` are raised, because then nothing was recorded and so nothing ran."""
        try:
            call, verdict = await self._swiftly(self._admitted, ask, actor)
        except (CallRefused, PluginError, CredentialError, ExecutionError) as error:
            return await self._refused(ask, actor, error)
        if verdict.decision == "deny":
            return await self._refused(ask, actor, self.policy.refuse(verdict, call.tool.full_name), call)
        if verdict.decision == "allow":
            return await self._run_reading(call, Grant(ask.call, _GRANT_SEAL))
        return await self._ask_person(call, verdict)

    def _admitted(self, ask: Ask, actor: Actor, *, at_once: bool = False) -> tuple[Prepared, Verdict]:
        """Validate and judge a call, and record the intent of one that needs nobody."""
        call = self._prepared(ask, actor)
        verdict = self._verdict(call)
        if verdict.decision == "allow":
            self._write(self._event("call.intent", call, status="running"), at_once=at_once)
        return call, verdict

    def _prepared(self, ask: Ask, actor: Actor) -> Prepared:
        instance = self.store.instance(ask.on)
        tool = self.plugins.tool(ask.tool, instance.plugin)
        if tool.plugin != instance.plugin:
            raise CallRefused(
                f"{tool.full_name} does not work on {instance.name}, which is a {instance.plugin} database."
            )
        if ask.supersedes and actor.agent:
            raise CallRefused("A language model cannot replace a request.", hint="A person can.")
        parsed = tool.parse(ask.arguments)
        values = without_nulls(parsed.model_dump(mode="json"))
        return Prepared(ask, actor, tool, instance, values, parsed, _assessed(tool, parsed))

    def _verdict(self, call: Prepared) -> Verdict:
        return self.policy.verdict(
            call.tool.full_name,
            call.assessment,
            call.target,
            changes=call.tool.changes,
            read_only=call.instance.read_only,
        )

    # -- reading --------------------------------------------------------------------------------------------------

    async def _run_reading(self, call: Prepared, grant: Grant) -> CallRecord:
        """Run a call whose intent is recorded."""
        started = time.perf_counter()
        try:
            result = await self._guarded(call, self._read(call, grant))
        except OpsAgentError as error:
            return await self._ended(call, error, started)
        except asyncio.CancelledError:
            await asyncio.shield(self._ended(call, Cancelled(), started))
            raise
        took, result = _milliseconds(started), self._clean_result(result)
        await self._audit(
            self._event("call.outcome", call, status="succeeded", summary=result.summary, milliseconds=took)
        )
        return self._record(call, "succeeded", summary=result.summary, result=result, milliseconds=took)

    async def _read(self, call: Prepared, grant: Grant) -> Result:
        if grant.call != call.ask.call:
            raise CallRefused("The grant is for another call.")
        async with self.connections.use(call.instance) as connection:
            found = await call.tool.function(connection, **_arguments(call.parsed))
        if not isinstance(found, Result):
            raise PluginError(f"{call.tool.full_name} returned no result; its plugin is at fault.")
        return found

    async def _guarded(self, call: Prepared, work: Awaitable[T], deadline: float | None = None) -> T:
        """Run work of a plugin under a deadline and name; its bugs become errors with no foreign text in them."""
        seconds = deadline or self.limits.deadline
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise DeadlineExceeded(f"{call.tool.full_name} took longer than {seconds:g} s and was cancelled.") from None
        except (OpsAgentError, asyncio.CancelledError):
            raise
        except Exception as error:  # a plugin is foreign code: its bug must not take the host down
            raise PluginError(f"{call.tool.full_name} failed inside its plugin ({type(error).__name__}).") from error

    async def _ended(self, call: Prepared, error: OpsAgentError, started: float) -> CallRecord:
        """Audit and return the end of a call that did not succeed. Refusals of a plugin are refusals, not failures."""
        status: CallStatus = "failed"
        if isinstance(error, CallRefused | CredentialError):
            status = "refused"
        elif isinstance(error, Cancelled):
            status = "cancelled"
        text, took = self._clean(str(error)), _milliseconds(started)
        await self._audit(
            self._event("call.outcome", call, status=status, summary=text, error_code=error.code, milliseconds=took)
        )
        return self._record(call, status, summary=text, error_code=error.code, milliseconds=took)

    async def _refused(self, ask: Ask, actor: Actor, error: OpsAgentError, call: Prepared | None = None) -> CallRecord:
        text = self._clean(str(error))
        event = AuditEvent(
            type="call.refused",
            actor=actor,
            status="refused",
            tool=call.tool.full_name if call else self._clean(ask.tool[:200]),
            risk=call.assessment.risk if call else None,
            instance=self._clean(ask.on[:200]),
            server=call.instance.server if call else "",
            session=ask.session,
            call=ask.call,
            arguments=self._clean_values(ask.arguments),
            summary=text,
            error_code=error.code,
            host=self.host.id,
            setup=self.setup,
            details=self._clean_values(dict(ask.details)),
        )
        await self._audit(event)
        if call:
            return self._record(call, "refused", summary=text, error_code=error.code)
        return CallRecord(
            id=ask.call,
            tool=self._clean(ask.tool[:200]),
            arguments=self._clean_values(ask.arguments),
            instance=self._clean(ask.on[:200]),
            risk=Risk.CRITICAL,
            status="refused",
            summary=text,
            error_code=error.code,
        )

    # -- asking a person --------------------------------------------------------------------------------------------

    async def _ask_person(self, call: Prepared, verdict: Verdict) -> CallRecord:
        await self._audit(self._event("call.requested", call, status="planning", risk=verdict.risk))
        started = time.perf_counter()
        try:
            call = await self._guarded(call, self._planned(call, verdict))
            approval = self._approval(call)
        except OpsAgentError as error:
            return await self._ended(call, error, started)
        except asyncio.CancelledError:
            await asyncio.shield(self._ended(call, Cancelled(), started))
            raise
        if call.ask.dry_run:
            return await self._dry_run(call, approval, started)
        approval, vetting = await self._vetted(call, approval)
        event = self._approval_event("approval.pending", approval, call.actor, status="pending")
        event = event.model_copy(update={"details": {**event.details, **self._clean_values(dict(call.ask.details))}})
        await self._added(approval, event)
        if vetting is not None:
            return record_of(await self._pre_approve(approval, vetting))
        return self._record(
            call, "waiting", approval=approval.id, summary=approval.plan.title, milliseconds=_milliseconds(started)
        )

    async def _added(self, approval: Approval, event: AuditEvent) -> None:
        """Keep a request. Cancelled in that moment, it is known to be kept before anybody is told that the call ended."""
        adding = asyncio.ensure_future(self._stored(self.store.add_approval, approval, event))
        try:
            await asyncio.shield(adding)
        except asyncio.CancelledError:
            await adding
            raise

    async def _vetted(self, call: Prepared, approval: Approval) -> tuple[Approval, Vetting | None]:
        """The request with the signature that covers it; or with the reason why a person is asked all the same."""
        if not call.ask.vetting:
            return approval, None
        details = call.ask.details
        try:
            vetting = await self._signed(call.ask.vetting, approval)
            place = (str(details.get("runbook")), str(details.get("run")))
            ran = await self._stored(self.store.runbook_steps, *place, limit=EVERY)
            vetting.require(approval, details, ran)
        except VettingVoid as void:
            reasons = (*approval.reasons, self._clean(f"not pre-approved: {void.message}"))
            asked = approval.model_copy(update={"reasons": reasons})
            return asked.model_copy(update={"digest": asked.computed_digest()}), None
        return approval, vetting

    async def _signed(self, id: str, approval: Approval) -> Vetting:
        """A signature that may let this request pass now: sealed by this installation, witnessed by the audit, still
        good by its time and by the policy. ``VettingVoid`` says what it lacks."""
        vetting = await self._stored(self.store.witnessed_vetting, id)
        try:
            sealed = self.vault is not None and self.vault.decrypt(vetting.seal, instance=vetting.id, field=SEAL)
        except CredentialError:
            sealed = False
        if sealed != vetting.digest:
            raise VettingVoid("the signature was not made with a key of this installation")
        self.policy.require_vetted(approval, vetting, now(), setup=self.setup)
        return vetting

    async def _pre_approve(self, approval: Approval, vetting: Vetting) -> Approval:
        """Decide a request by the policy's rule, on the strength of what an approver signed; whoever was first stays so."""
        reason, at = self._clean(vetting.told()), now()
        event = self._approval_event("approval.approved", approval, vetting.signer, status="approved", reason=reason)
        cited: dict[str, Json] = {"rule": RULE, "vetting": vetting.id, "vetting_digest": vetting.digest}
        event = event.model_copy(
            update={"details": {**event.details, **cited, "signed_at": vetting.signed_at.isoformat()}}
        )
        changes: dict[str, Any] = {"decided_by": vetting.signer, "decided_at": at, "reason": reason}
        changes |= {"use_by": at + USE_WITHIN[approval.risk], "evidence": {**approval.evidence, RULE: vetting.cited()}}
        try:
            return await self._stored(self.store.move, approval.id, ApprovalState.APPROVED, event, **changes)
        except ApprovalError:
            return await self._stored(self.store.approval, approval.id)

    async def _planned(self, call: Prepared, verdict: Verdict) -> Prepared:
        """Add what would be done, as the database stands now, and the risk that comes out of it."""
        self._require_no_secret(call.values)
        async with self.connections.use(call.instance) as connection:
            identity = await connection.identity()
            plan = await self._plan(call, connection)
        found = await self._stored(self._origins, call) if call.actor.agent else ()
        self._require_no_secret(plan.model_dump(mode="json"))
        risk = highest(verdict.risk, plan.risk, call.assessment.risk)
        reasons = tuple(dict.fromkeys((*verdict.reasons, *plan.reasons)))
        # Planning may have found more than the arguments showed, so the policy judges again.
        final = self.policy.verdict(
            call.tool.full_name,
            Assessment(risk=risk, reasons=reasons),
            call.target,
            changes=call.tool.changes,
            read_only=call.instance.read_only,
        )
        if final.decision == "deny":
            raise self.policy.refuse(final, call.tool.full_name)
        assessment = Assessment(risk=final.risk, reasons=final.reasons)
        return replace(call, plan=plan, identity=identity, assessment=assessment, origins=found)

    def _origins(self, call: Prepared) -> tuple[Origin, ...]:
        """Where the model's arguments come from that no person wrote; what it left out the tool filled in itself."""
        ask, instances = call.ask, self.store.instances()
        chosen = {"on": ask.on} if self._was_chosen(call, instances) else {}
        given = {name: value for name, value in call.values.items() if name in ask.arguments and not call.usual(name)}
        servers = {instance.name: instance.server for instance in instances}
        return origins({**chosen, **given}, self._transcript(ask.session), told=ask.told, servers=servers)

    def _was_chosen(self, call: Prepared, instances: Sequence[Instance]) -> bool:
        """Whether the model picked the database: neither the conversation's own nor the only one for this tool."""
        fitting = [instance for instance in instances if instance.plugin == call.instance.plugin]
        bound = self.store.session(call.ask.session).instance if call.ask.session else ""
        return len(fitting) > 1 and call.instance.name != bound

    def _transcript(self, session: str) -> list[Message]:
        """All of a conversation, page by page."""
        found: list[Message] = []
        while session:
            page = self.store.messages(session, found[-1].seq if found else 0)
            if not page:
                break
            found += page
        return found

    async def _plan(self, call: Prepared, connection: Connection) -> Plan:
        if not call.tool.changes:
            return _reading_plan(call)
        plan = await call.tool.function(connection, **_arguments(call.parsed))
        if not isinstance(plan, Plan):
            raise PluginError(f"{call.tool.full_name} returned no plan; its plugin is at fault.")
        return plan

    def _approval(self, call: Prepared) -> Approval:
        assert call.plan is not None  # set by _planned on the only way here
        created = now()
        draft = Approval(
            id=call.ask.request or new_id(),
            digest="",
            tool=call.tool.full_name,
            tool_version=call.tool.version,
            arguments=call.values,
            target=call.target,
            plan=call.plan,
            risk=call.assessment.risk,
            reasons=call.assessment.reasons,
            requester=call.actor,
            session=call.ask.session,
            call=call.ask.call,
            origins=call.origins,
            policy=self.policy.hash,
            setup=self.setup,
            supersedes=call.ask.supersedes,
            created_at=created,
            expires_at=created + self.pending,
            nonce=new_id(),
        )
        try:
            return draft.model_copy(update={"digest": draft.computed_digest()})
        except ValueError:  # NaN, or half a surrogate pair: what cannot be written cannot be bound
            raise CallRefused(
                f"{call.tool.full_name} was asked or planned with a value that JSON cannot hold."
            ) from None

    async def _dry_run(self, call: Prepared, approval: Approval, started: float) -> CallRecord:
        plan = approval.plan
        lines = [
            plan.title,
            *plan.statements,
            f"Risk: {approval.risk} ({'; '.join(approval.reasons)})",
            f"Lock: {plan.lock}",
        ]
        if plan.undo:
            lines.append(f"Undo: {plan.undo}")
        result = Result(summary="\n".join(lines), figures={"plan": plan.model_dump(mode="json")})
        took = _milliseconds(started)
        await self._audit(self._event("call.outcome", call, status="succeeded", summary="dry run", milliseconds=took))
        return self._record(call, "succeeded", summary=result.summary, result=result, milliseconds=took)

    # -- deciding -------------------------------------------------------------------------------------------------

    async def decide(
        self, id: str, decision: Decision, actor: Actor, reason: str = "", version: int | None = None
    ) -> Approval:
        """Take a person's decision: one code path for every door. Raises ``ApprovalError`` subclasses."""
        approval = await self._stored(self.store.approval, id)
        if version is not None and version != approval.version and approval.state is not ApprovalState.PENDING:
            raise _late(approval)
        reason = self._clean(reason.strip())[:2000]
        await self._entitled(approval, actor, decision, reason, setup=self.setup)
        state, at = DECISIONS[decision], now()
        changes: dict[str, Any] = {"decided_by": actor, "decided_at": at, "reason": reason}
        if state is ApprovalState.APPROVED:
            if at > approval.expires_at:
                await self._stored(self.store.expire, at)
                raise _late(await self._stored(self.store.approval, approval.id))
            changes["use_by"] = at + USE_WITHIN[approval.risk]
        else:
            changes["ended_at"] = at
        event = self._approval_event(f"approval.{state}", approval, actor, status=str(state), reason=reason)
        return await self._stored(self.store.move, approval.id, state, event, **changes)

    async def _entitled(self, approval: Approval, actor: Actor, decision: str, reason: str, *, setup: str) -> None:
        """Raise, and audit, unless the policy lets this actor take this decision."""
        try:
            self.policy.check_decision(approval, actor, decision, reason, setup=setup)
        except ApprovalError as error:
            event = self._approval_event("approval.denied", approval, actor, status="denied", reason=reason)
            await self._audit(event.model_copy(update={"error_code": error.code, "summary": error.message}))
            raise

    async def resolve(self, id: str, state: Literal["succeeded", "failed"], actor: Actor, reason: str) -> Approval:
        """Record what a person found out about an unknown outcome; a reason is required."""
        approval = await self._stored(self.store.approval, id)
        if approval.state is not ApprovalState.UNKNOWN:  # what still runs is told by its host, not by a person
            text = f"This request is {approval.state}: only the end of a call whose outcome is unknown is recorded by hand."
            raise AlreadyDecided(text, hint=f"See %opsagent show {approval.id[:8]}.", state=str(approval.state))
        critical = approval.model_copy(update={"risk": Risk.CRITICAL})
        reason = self._clean(reason.strip())[:2000]
        await self._entitled(critical, actor, "approve", reason, setup="personal")
        effect = Effect(state=state, summary=f"{actor.name} recorded: {reason}")
        return await self._settle(approval, effect, actor, reason=reason)

    # -- running what was approved --------------------------------------------------------------------------------

    async def resume(self, id: str) -> CallRecord | None:
        """Run an approved request if this host can and is first; None when another host has it or it cannot be had here."""
        approval = await self._stored(self.store.approval, id)
        if approval.state is not ApprovalState.APPROVED or approval.id in self._running:
            return None
        task = asyncio.current_task()
        if task is not None:
            self._running[approval.id] = task
        try:
            return await self._resume(approval)
        finally:
            self._claimed.discard(approval.id)
            if self._running.get(approval.id) is task:
                self._running.pop(approval.id, None)

    async def _resume(self, approval: Approval) -> CallRecord | None:
        started = time.perf_counter()
        try:
            call = await self._rebuilt(approval)
            async with self.connections.use(call.instance) as connection:
                await self._guarded(call, self._recheck(approval, call, connection))
                claimed = await self._claim(approval)
                if claimed is None:
                    return None
                self._claimed.add(approval.id)
                effect = await self._perform(claimed, call, connection)
        except (CallRefused, UnknownInstance) as error:
            return await self._stale(approval, error)
        self._claimed.discard(approval.id)  # from here on there is nothing left to cancel
        settling = asyncio.ensure_future(self._settle_surely(claimed, effect, _milliseconds(started)))
        self._running[approval.id] = settling  # known as running until recorded, even when this task is cancelled
        settling.add_done_callback(lambda _: self._running.pop(approval.id, None))
        return record_of(await asyncio.shield(settling))

    async def _rebuilt(self, approval: Approval) -> Prepared:
        """Make the call again from the stored bytes, which must be the approved ones."""
        if approval.computed_digest() != approval.digest:
            raise DigestMismatch
        ask = Ask(approval.tool, dict(approval.arguments), approval.target.instance, approval.session, approval.call)
        call = await self._stored(self._prepared, ask, approval.requester)
        same = (call.instance.id, call.instance.environment, call.tool.version) == (
            approval.target.instance_id,
            approval.target.environment,
            approval.tool_version,
        )
        if not same:
            raise PreconditionChanged(
                f"{call.instance.name} is not what it was when this was approved.", what="instance"
            )
        if canonical(call.values) != canonical(approval.arguments):
            raise DigestMismatch
        return call

    async def _same_database(self, approval: Approval, connection: Connection) -> None:
        if canonical(await connection.identity()) != canonical(approval.target.identity):
            raise PreconditionChanged(
                f"Another database or role answers for {approval.target.instance} now.", what="identity"
            )

    def _permit(self, approval: Approval, call: Prepared, planned: Risk) -> None:
        """Judge again by the policy of the host that runs it: a host with a weaker one may have asked and approved."""
        if approval.decided_by is None:
            raise DigestMismatch("Nobody approved this request; nothing was run.")
        assessment = Assessment(risk=highest(planned, call.assessment.risk))
        verdict = self._verdict(replace(call, assessment=assessment))
        if verdict.decision == "deny":
            raise self.policy.refuse(verdict, call.tool.full_name)
        if verdict.risk.rank > approval.risk.rank:
            raise PreconditionChanged(f"The risk is {verdict.risk} now; {approval.risk} was approved.", what="risk")
        try:
            self.policy.check_decision(approval, approval.decided_by, "approve", approval.reason, setup=self.setup)
        except ApprovalError as error:
            raise CallRefused(f"{approval.decided_by.name} could not approve this here: {error.message}") from None

    async def _recheck(self, approval: Approval, call: Prepared, connection: Connection) -> None:
        """Plan again and compare: the approved statements run only against the state that was approved."""
        await self._same_database(approval, connection)
        plan = await self._plan(call, connection)
        approved = approval.plan
        if canonical(plan.preconditions) != canonical(approved.preconditions):
            changed = sorted(
                key
                for key in {*plan.preconditions, *approved.preconditions}
                if plan.preconditions.get(key) != approved.preconditions.get(key)
            )
            raise PreconditionChanged(f"Changed since the approval: {', '.join(changed)}.", what=changed)
        if plan.statements != approved.statements:
            raise PreconditionChanged("The statements would be others now.", what="statements")
        self._permit(approval, call, plan.risk)
        await self._require_still_vetted(approval)

    async def _require_still_vetted(self, approval: Approval) -> None:
        """Raise when the signature that let a request pass has ended, or was taken back, before the run."""
        cited = approval.evidence.get(RULE)
        if cited is None:
            return
        try:
            await self._signed(str(cited.get("id") if isinstance(cited, dict) else ""), approval)
        except VettingVoid as void:
            raise CallRefused(f"It was pre-approved, but now {void.message}.") from None

    async def _claim(self, approval: Approval) -> Approval | None:
        event = self._approval_event("approval.executing", approval, self._executor, status="executing")
        claim = asyncio.ensure_future(self._stored(self.store.claim, approval.id, self.host.id, event))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            claimed = await claim
            if claimed is not None:
                effect = Effect(state="failed", summary="cancelled before anything was sent", error_code=Cancelled.code)
                await self._settle_surely(claimed, effect, 0.0)
            raise

    async def _perform(self, approval: Approval, call: Prepared, connection: Connection) -> Effect:
        """Send what was approved. Whatever happens after the claim becomes an effect; the doubtful is unknown."""
        sent = False
        if not call.tool.changes:
            return await self._read_approved(call)

        async def note(evidence: dict[str, Json], *, secret: Callable[[], str] | None = None) -> None:
            nonlocal sent
            token = self._sealed(approval, secret) if secret else ""
            await self._stored(self.store.note, approval.id, self.host.id, evidence, token)
            sent = True

        try:
            async with asyncio.timeout(self.limits.change_deadline):
                effect = await call.tool.hooks["perform"](connection, approval.plan, note)
                if isinstance(effect, Effect):
                    return effect
                return _doubtful("the plugin reported no effect", "plugin", sent=True)
        except OutcomeUnknown as error:
            return _doubtful(self._clean(str(error)), error.code, sent=True)
        except (CallRefused, DatabaseError, EffectMissing) as error:
            # The server answered: it is known that this did not take effect.
            return Effect(state="failed", summary=self._clean(str(error)), error_code=error.code)
        except OpsAgentError as error:
            return _doubtful(self._clean(str(error)), error.code, sent=sent)
        except (TimeoutError, asyncio.CancelledError):
            return _doubtful("it was cancelled and its end was not seen", Cancelled.code, sent=sent)
        except Exception as error:  # noqa: BLE001  # after the claim even a bug must end in a recorded state
            return _doubtful(f"the plugin failed ({type(error).__name__})", PluginError.code, sent=sent)

    async def _read_approved(self, call: Prepared) -> Effect:
        """A read changes nothing, so however it ends, that is known."""
        try:
            found = await self._guarded(
                call, self._read(call, Grant(call.ask.call, _GRANT_SEAL)), self.limits.change_deadline
            )
        except OpsAgentError as error:
            return Effect(state="failed", summary=self._clean(str(error)), error_code=error.code)
        except asyncio.CancelledError:
            return Effect(state="failed", summary="It was cancelled; it only reads.", error_code=Cancelled.code)
        found = self._clean_result(found)
        return Effect(state="succeeded", summary=found.summary, result=found)

    async def _settle(
        self, approval: Approval, effect: Effect, actor: Actor, *, reason: str = "", milliseconds: float | None = None
    ) -> Approval:
        """Record how an approved call ended, with its audit event, in one transaction."""
        state = ApprovalState(effect.state)
        effect = self._clean_effect(effect)
        event = self._approval_event(
            f"approval.{state}", approval, actor, status=str(state), reason=self._clean(reason)
        )
        event = event.model_copy(
            update={"summary": effect.summary, "error_code": effect.error_code, "milliseconds": milliseconds}
        )
        ended = None if state is ApprovalState.UNKNOWN else now()
        return await self._stored(self.store.move, approval.id, state, event, effect=effect, ended_at=ended)

    async def _settle_surely(self, approval: Approval, effect: Effect, milliseconds: float) -> Approval:
        """Settle what this host ran, patient with a busy store: the outcome is known only here."""
        for attempt in range(1, SETTLE_ATTEMPTS + 1):
            try:
                return await self._settle(approval, effect, self._executor, milliseconds=milliseconds)
            except ApprovalError:  # taken for dead meanwhile, and a probe or a person was first
                return await self._too_late(approval, effect)
            except StoreError:
                if attempt == SETTLE_ATTEMPTS:
                    raise
                await asyncio.sleep(min(attempt, 10) * 0.5)
        raise AssertionError("unreachable")

    async def _too_late(self, approval: Approval, effect: Effect) -> Approval:
        """Final states do not change, but what this host saw of the run must not be lost: the audit gets it."""
        event = self._approval_event("approval.late_outcome", approval, self._executor, status=effect.state)
        summary = f"reported after the request had ended: {self._clean(effect.summary)}"
        await self._audit(event.model_copy(update={"summary": summary, "error_code": effect.error_code}))
        return await self._stored(self.store.approval, approval.id)

    async def _stale(self, approval: Approval, error: OpsAgentError) -> CallRecord | None:
        """End an approved request whose target is not what was approved; nothing was sent."""
        text = self._clean(str(error))
        effect = Effect(state="failed", summary=text, error_code=error.code)
        event = self._approval_event("approval.stale", approval, self._executor, status="stale")
        event = event.model_copy(update={"summary": text, "error_code": error.code})
        try:
            ended = await self._stored(
                self.store.move, approval.id, ApprovalState.STALE, event, effect=effect, ended_at=now()
            )
        except AlreadyDecided:
            return None
        return record_of(ended)

    # -- secrets that are shown once --------------------------------------------------------------------------------

    def _sealed(self, approval: Approval, secret: Callable[[], str]) -> str:
        """The token of a secret that a call has made; it decrypts for this request only."""
        if self.vault is None:
            raise KeyMissing("This host has no key to keep the secret that this call makes.")
        self.hide(secret())
        return self.vault.encrypt(secret(), instance=approval.id, field=ONE_TIME)

    async def reveal(self, id: str, actor: Actor) -> Callable[[], str]:
        """Return what tells the secret of a request, for the one time: to the person who asked for the call or approved
        it. From then on it is gone from the store. Raises ``ApprovalError`` subclasses."""
        vault = self.vault
        if vault is None:
            raise KeyMissing("This host has no key to read the secret with.")
        approval = await self._stored(self.store.approval, id)
        if actor.agent or actor.id not in {who.id for who in (approval.requester, approval.decided_by) if who}:
            error = NotAllowedToReveal()
            event = self._approval_event("secret.denied", approval, actor, status="denied")
            await self._audit(event.model_copy(update={"error_code": error.code, "summary": error.message}))
            raise error

        def unseal(token: str) -> Callable[[], str]:
            text = vault.decrypt(token, instance=approval.id, field=ONE_TIME)
            self.hide(text)
            return lambda: text

        event = self._approval_event("secret.revealed", approval, actor, status="revealed")
        return await self._stored(self.store.reveal_secret, approval.id, event, unseal)

    # -- cancelling and recovering --------------------------------------------------------------------------------

    def cancel(self, id: str) -> bool:
        """Cancel an approved call that this host is running, in the database too; False when it is not running here."""
        task = self._running.get(id)
        # Before its claim it would stay approved and run later: that is revoked, not cancelled.
        return task is not None and id in self._claimed and task.cancel()

    async def drain(self) -> None:
        """Wait until what this host is running has ended and is recorded."""
        while self._running:
            await asyncio.wait([*self._running.values()])

    async def sweep(self, lease: timedelta) -> None:
        """Expire what is overdue, take dead hosts' calls for unknown, and probe what is unknown."""
        at = now()
        await self._stored(self.store.expire, at)
        await self._stored(self.store.expire_secrets, at)
        for approval in [*await self._stored(self.store.orphans, at - lease), *await self._lost()]:
            effect = Effect(
                state="unknown", summary="the host that ran it ended before it reported", error_code="host.lost"
            )
            try:
                await self._settle(approval, effect, self._executor)
            except ApprovalError:
                continue  # its host, or another sweeper, was first
        for approval in await self.every(ApprovalState.UNKNOWN):
            await self.probe(approval)

    async def every(self, state: ApprovalState) -> list[Approval]:
        """All requests in a state, page by page: many that cannot be settled must not hide one that can."""
        found: list[Approval] = []
        while True:
            after = (found[-1].created_at, found[-1].id) if found else None
            page = await self._stored(self.store.approvals, states=(state,), limit=PAGE, after=after)
            found += page
            if len(page) < PAGE:
                return found

    async def _lost(self) -> list[Approval]:
        """Calls that this host claimed and whose outcome it could not record."""
        executing = await self.every(ApprovalState.EXECUTING)
        return [
            approval for approval in executing if approval.host == self.host.id and approval.id not in self._running
        ]

    async def probe(self, approval: Approval) -> Approval:
        """Try to read back how an unknown call ended; it stays unknown when that cannot be told."""
        try:
            call = await self._rebuilt(approval)
            probe = call.tool.hooks.get("probe")
            if probe is None:
                return approval
            async with self.connections.use(call.instance) as connection:
                await self._guarded(call, self._same_database(approval, connection))
                effect = await self._guarded(call, probe(connection, approval.plan, approval.evidence))
        except OpsAgentError:
            return approval  # not reachable or not the same database: a person decides
        if not isinstance(effect, Effect) or effect.state == "unknown":
            return approval
        try:
            return await self._settle(approval, effect, self._executor)
        except ApprovalError:
            return await self._stored(self.store.approval, approval.id)

    # -- records ----------------------------------------------------------------------------------------------------

    async def _stored(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        return await asyncio.to_thread(function, *arguments, **named)

    async def _swiftly(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do what ends in one record here and now, where the store is quicker at it than a thread at beginning; on a
        thread when somebody else is writing."""
        if self.store.swift:
            with suppress(StoreLocked):
                return function(*arguments, at_once=True)
        return await self._stored(function, *arguments)

    async def _audit(self, event: AuditEvent) -> None:
        await self._swiftly(self._write, event)

    def _write(self, event: AuditEvent, *, at_once: bool = False) -> None:
        try:
            self.store.record(event, at_once=at_once)
        except StoreError as error:
            if at_once and isinstance(error, StoreLocked):
                raise
            raise AuditUnavailable(
                f"The audit record could not be written, so {event.tool or 'the call'} is not run: {error.message}",
                hint=error.hint,
            ) from error

    def _event(self, type: str, call: Prepared, **more: Any) -> AuditEvent:
        base: dict[str, Any] = {
            "type": type,
            "actor": call.actor,
            "risk": call.assessment.risk,
            "tool": call.tool.full_name,
            "server": call.instance.server,
            "instance": call.instance.name,
            "environment": call.instance.environment,
            "session": call.ask.session,
            "call": call.ask.call,
            "arguments": self._clean_values(call.values),
            "statements": tuple(self._clean(text) for text in call.plan.statements) if call.plan else (),
            "host": self.host.id,
            "setup": self.setup,
            "details": self._clean_values(dict(call.ask.details)),
        }
        return AuditEvent.model_validate(base | more)

    def _approval_event(
        self, type: str, approval: Approval, actor: Actor, *, status: str, reason: str = ""
    ) -> AuditEvent:
        return AuditEvent(
            type=type,
            actor=actor,
            status=status,
            risk=approval.risk,
            tool=approval.tool,
            server=approval.target.server,
            instance=approval.target.instance,
            environment=approval.target.environment,
            session=approval.session,
            call=approval.call,
            approval=approval.id,
            digest=approval.digest,
            arguments=self._clean_values(approval.arguments),
            statements=tuple(self._clean(text) for text in approval.plan.statements),
            reason=reason,
            summary=self._clean(approval.plan.title),
            host=self.host.id,
            setup=self.setup,
            details=self._clean_values({"origins": [one.model_dump(mode="json") for one in approval.origins]})
            if approval.origins
            else {},
        )

    def _record(self, call: Prepared, status: CallStatus, **more: Any) -> CallRecord:
        """The caller's view of a call: it is shown, stored and read by models, so its arguments are without secrets."""
        return call.record(status, arguments=self._clean_values(call.values), **more)

    def _require_no_secret(self, values: dict[str, Json]) -> None:
        """Raise for what a request would keep in clear: it is run to the letter, so nothing in it can be struck out."""
        if struck(values, self._clean) != values:
            raise SecretInClear(
                "This call holds what looks like a password, a key or a token, and a request keeps its arguments.",
                hint="Leave that value out; in a statement write $1 in its place, or give the query id.",
            )

    def _clean_result(self, result: Result) -> Result:
        """A result without secrets: a database's statements and names can hold some."""
        if self.connections.all_clean(texts_of(result)):
            return result
        shape = result.model_dump()
        clean = struck(shape, self._clean)
        return result if clean == shape else Result.model_validate(clean)

    def _clean(self, text: str) -> str:
        return self.connections.redact(text)

    def _clean_values(self, values: dict[str, Any]) -> dict[str, Json]:
        return {str(key)[:100]: self._clean_value(value) for key, value in values.items()}

    def _clean_value(self, value: Any, depth: int = 0) -> Json:
        if isinstance(value, bool | int | None) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if depth > NESTED and isinstance(value, list | tuple | dict):
            return "(nested too deep)"
        if isinstance(value, list | tuple):
            return [self._clean_value(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self._clean(str(key))[:1000]: self._clean_value(item, depth + 1) for key, item in value.items()}
        return self._clean(str(value))[:20_000]

    def _clean_effect(self, effect: Effect) -> Effect:
        residue = tuple(self._clean(text) for text in effect.residue)
        cleaned = effect.model_copy(update={"summary": self._clean(effect.summary), "residue": residue})
        try:
            canonical(cleaned.model_dump(mode="json"))
        except ValueError:  # NaN among the figures must not cost the outcome
            return Effect(state=cleaned.state, summary=cleaned.summary, error_code=cleaned.error_code, residue=residue)
        return cleaned


_WITHOUT_TEXT = frozenset((int, float, bool, type(None)))
_SERIES = (list, tuple)


def texts_of(value: Any) -> list[str]:
    """Every text in a model of JSON-shaped values, names included."""
    found: list[str] = []
    rest: list[Iterable[Any]] = [(value,)]
    while rest:
        for item in rest.pop():
            if type(item) in _WITHOUT_TEXT:  # first, because most cells of a table end here or at the next
                continue
            if isinstance(item, str):
                found.append(item)
            elif isinstance(item, _SERIES):
                rest.append(item)
            elif isinstance(item, dict):
                found.extend(item)
                rest.append(item.values())
            elif isinstance(item, BaseModel):
                rest.append(item.__dict__.values())
    return found


def struck(value: Any, redact: Callable[[str], str]) -> Any:
    """A JSON-shaped value with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(key): struck(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [struck(item, redact) for item in value]
    return value


def record_of(approval: Approval) -> CallRecord:
    """The caller's view of a request, at whatever point of its life."""
    statuses: dict[ApprovalState, CallStatus] = {
        ApprovalState.PENDING: "waiting",
        ApprovalState.APPROVED: "waiting",
        ApprovalState.EXECUTING: "running",
        ApprovalState.SUCCEEDED: "succeeded",
        ApprovalState.FAILED: "failed",
        ApprovalState.UNKNOWN: "unknown",
    }
    effect = approval.effect
    return CallRecord(
        id=approval.call,
        tool=approval.tool,
        arguments=approval.arguments,
        instance=approval.target.instance,
        risk=approval.risk,
        reasons=approval.reasons,
        status=statuses.get(approval.state, "refused"),
        summary=told(approval),
        result=effect.result if effect else None,
        effect=effect,
        approval=approval.id,
        error_code=effect.error_code if effect else "",
    )


def told(approval: Approval) -> str:
    """One plain sentence on where a request stands."""
    who = approval.decided_by.name if approval.decided_by else "nobody"
    if RULE in approval.evidence:
        who = f"{who} in advance, by a signed runbook"
    effect = approval.effect.summary.removesuffix(".") if approval.effect else ""
    because = f" ({approval.reason})" if approval.reason else ""
    sentences = {
        ApprovalState.PENDING: f"{approval.plan.title}: waiting for a decision.",
        ApprovalState.APPROVED: f"{approval.plan.title}: approved by {who}, not started yet.",
        ApprovalState.EXECUTING: f"{approval.plan.title}: approved by {who}, running.",
        ApprovalState.REJECTED: f"{approval.plan.title}: rejected by {who}{because}. Nothing was run.",
        ApprovalState.EXPIRED: f"{approval.plan.title}: expired. Nothing was run.",
        ApprovalState.WITHDRAWN: f"{approval.plan.title}: withdrawn by {who}. Nothing was run.",
        ApprovalState.SUPERSEDED: f"{approval.plan.title}: replaced by a newer request. Nothing was run.",
        ApprovalState.REVOKED: f"{approval.plan.title}: the approval was taken back by {who}. Nothing was run.",
        ApprovalState.STALE: f"{approval.plan.title}: not run. {effect}.",
        ApprovalState.SUCCEEDED: f"{effect} (approved by {who}).",
        ApprovalState.FAILED: f"{effect} (approved by {who}).",
        ApprovalState.UNKNOWN: f"{approval.plan.title}: the outcome is unknown: {effect}. It is not retried.",
    }
    return sentences.get(approval.state, effect)


def _late(approval: Approval) -> AlreadyDecided:
    who = approval.decided_by.name if approval.decided_by else ""
    at = approval.decided_at or approval.ended_at
    when = f" at {at:%H:%M:%S} UTC" if at else ""
    by = f" by {who}" if who else ""
    return AlreadyDecided(
        f"This request is {approval.state} already{by}{when}.",
        state=str(approval.state),
        by=who,
        at=at.isoformat() if at else "",
    )


def _assessed(tool: Tool, parsed: Any) -> Assessment:
    try:
        return tool.assess(parsed)
    except OpsAgentError:
        raise
    except Exception as error:  # noqa: BLE001  # a plugin is foreign code, and its text may hold a secret
        kind = type(error).__name__
    raise PluginError(f"{tool.full_name} failed inside its plugin ({kind}): its risk is not known.")


def _doubtful(why: str, code: str, *, sent: bool) -> Effect:
    if sent:
        return Effect(state="unknown", summary=why, error_code=code)
    return Effect(state="failed", summary=f"{why}; nothing was sent", error_code=code)


def _reading_plan(call: Prepared) -> Plan:
    """The card of a reading call that needs a person, for example EXPLAIN ANALYZE, which runs the statement."""
    shown = tuple(str(value) for name, value in call.values.items() if call.tool.slots[name].slot == "sql")
    return Plan(
        title=f"{call.tool.summary.rstrip('.')} ({call.tool.name})",
        statements=shown,
        risk=call.assessment.risk,
        reasons=call.assessment.reasons,
        lock="ACCESS SHARE on what it reads",
        undo_note="It reads; there is nothing to take back.",
        execution="once",
    )


def _arguments(parsed: Any) -> dict[str, Any]:
    return {name: getattr(parsed, name) for name in type(parsed).model_fields}


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
