"""One turn: the model speaks, its calls go to the gate, until it has answered or a person is needed.

The loop is langchain's ``create_agent``; the gate is ours. Tools are declared to the model as bare schemas, so there is
no function that langchain could run: every call goes to ``dispatch``. There is no checkpoint: the stored transcript is
the truth, and resuming is a new run over a transcript that ends in tool messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from langchain.agents import create_agent
from langchain.agents.middleware.types import AgentMiddleware, ModelRequest, ModelResponse, ToolCallRequest, hook_config
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langsmith import tracing_context

from opsagent_jupyter.agent.events import (
    AgentEvent,
    Answered,
    Called,
    Channel,
    Failed,
    Finished,
    Parked,
    Said,
    TextDelta,
    ToolRequest,
    ToolSaid,
    Usage,
)
from opsagent_jupyter.agent.offline import OfflineModel
from opsagent_jupyter.agent.prompts import declaration, model_name, system_prompt
from opsagent_jupyter.agent.providers import explained, pause
from opsagent_jupyter.agent.replies import CUT_OFF, Listener, Wish, end_reason, settled, wishes
from opsagent_jupyter.agent.shield import Shield
from opsagent_jupyter.agent.transcript import DEFAULT_CAPS, Caps, Reading, tool_message, tool_text, waiting_text
from opsagent_jupyter.errors import (
    AnswerCutOff,
    CallRefused,
    ExecutionError,
    ModelNonsense,
    OpsAgentError,
    PluginError,
    TurnLimit,
)
from opsagent_jupyter.models import CallRecord, Instance, Message, canonical, new_id
from opsagent_jupyter.plugin import Tool

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = [
    "AgentEvent", "Answered", "Called", "Caps", "Dispatch", "Failed", "Finished", "Parked", "Said", "TextDelta",
    "ToolRequest", "ToolSaid", "TurnLimits", "Usage", "run", "tool_text",
]  # fmt: skip

Dispatch = Callable[[ToolRequest], Awaitable[CallRecord]]
#: Characters that a token stands for, where a provider does not count: rather too few, so that a guess is high.
CHARACTERS = 3
SESSION = "the session's limit"


@dataclass(frozen=True)
class TurnLimits:
    """What one turn may take: tool calls, seconds on the clock, runs of the very same call, tokens (0: no limit)."""

    calls: int = 20
    seconds: float = 300
    identical: int = 3
    tokens: int = 0
    session_tokens: int = 0
    spent: int = 0
    """Tokens that the session has taken in its earlier turns."""
    retries: int = 3
    """How often a provider that is busy or broken is asked again for one message."""


async def run(
    *,
    model: BaseChatModel,
    tools: Sequence[Tool],
    instances: Sequence[Instance],
    focus: str,
    transcript: Sequence[Message],
    dispatch: Dispatch,
    limits: TurnLimits = TurnLimits(),
    caps: Caps = DEFAULT_CAPS,
    spend: Callable[[Usage], None] = lambda _: None,
    facts: Mapping[str, str] | None = None,
) -> AsyncGenerator[AgentEvent, None]:
    """Run one turn and yield what happens; the last event is ``Parked``, ``Finished`` or ``Failed``.

    Cancelling the reader cancels the turn and the call it is in; what was said until then, and is in no ``Said``, are
    the ``TextDelta`` since the last one. ``spend`` is told what each asking of the model took, also one that broke off.
    ``facts`` say by instance what a database is and holds.
    """
    gate = Gate(tools, instances, focus, dispatch, limits, caps, spend, facts or {})
    turn = asyncio.create_task(_drive(gate, model, transcript))
    try:
        async for event in gate.channel.read():
            yield event
        await turn
    finally:
        turn.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(asyncio.gather(turn, return_exceptions=True))


async def _drive(gate: Gate, model: BaseChatModel, transcript: Sequence[Message]) -> None:
    clock = asyncio.timeout(gate.limits.seconds)
    gate.until = asyncio.get_running_loop().time() + gate.limits.seconds
    try:
        try:
            async with clock:
                await _converse(gate, model, transcript)
        except TimeoutError:
            if not clock.expired():
                raise
            gate.over = f"its limit of {gate.limits.seconds:g} seconds"
        except OpsAgentError as error:
            gate.error = error
        for event in gate.ending():
            await gate.channel.tell(event)
    finally:
        gate.channel.end()


async def _converse(gate: Gate, model: BaseChatModel, transcript: Sequence[Message]) -> None:
    if isinstance(model, OfflineModel):
        model = model.placed(gate.toolbox, gate.instances, gate.focus)
    reading = Reading({tool.full_name: tool for tool in gate.toolbox}, gate.instances, gate.caps)
    history = reading.history(transcript)
    if history and isinstance(history[-1], AIMessage):  # everything was answered: nothing is asked, and called, twice
        gate.last = str(history[-1].text)
        return
    agent = create_agent(
        model,
        [declaration(tool, gate.instances) for tool in gate.toolbox],
        system_prompt=system_prompt(gate.instances, gate.focus, gate.facts),
        middleware=[gate],
    )
    config: RunnableConfig = {"callbacks": [gate.listener], "recursion_limit": 10_000}
    # Streaming in messages mode makes the model stream; the pieces are taken by our listener, so that they keep their
    # place among the other events. No trace of a conversation goes to a tracing service, whatever the environment says.
    with tracing_context(enabled=False):
        state: Any = {"messages": history}
        async for _ in agent.astream(state, config, stream_mode="messages"):
            pass


@dataclass
class Gate(AgentMiddleware[Any, Any, Any]):
    """Stands between langchain and everything that happens: settles what the model asked for, and passes calls on."""

    toolbox: Sequence[Tool]
    instances: Sequence[Instance]
    focus: str
    dispatch: Dispatch
    limits: TurnLimits
    caps: Caps
    spend: Callable[[Usage], None]
    facts: Mapping[str, str]
    channel: Channel = field(default_factory=Channel)
    error: OpsAgentError | None = None
    over: str = ""
    """Which limit the turn has reached."""
    cut: str = ""
    """Why the last answer has no end."""
    until: float = 0.0
    """The loop's time at which the turn ends."""
    usage: Usage = field(default_factory=Usage)
    text: str = ""
    """What the model has said since its last finished message."""
    last: str = ""
    parked: list[str] = field(default_factory=list)
    open: dict[str, Wish] = field(default_factory=dict)
    """Calls that have no answer yet, by id."""
    made: dict[str, int] = field(default_factory=dict)
    """How often each very same call was made."""
    calls: int = 0

    def __post_init__(self) -> None:
        self.listener = Listener(self._hear)
        self._names = {alias: tool for tool in self.toolbox for alias in (model_name(tool), tool.full_name)}

    def _hear(self, text: str) -> None:
        self.text += text
        self.channel.note(TextDelta(text))

    # -- the model

    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002  langchain's hook
        """End the turn before the model is asked again when a person is needed, or a limit is reached."""
        self.over = self.over or self._over_budget()
        return {"jump_to": "end"} if self.parked or self.over else None

    def _over_budget(self) -> str:
        limits, tokens = self.limits, self.usage.tokens
        if limits.session_tokens and limits.spent + tokens >= limits.session_tokens:
            return f"{SESSION} of {limits.session_tokens} tokens"
        return f"its limit of {limits.tokens} tokens" if limits.tokens and tokens >= limits.tokens else ""

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Ask the model, and settle what it said before anything of it is run."""
        started = asyncio.get_running_loop().time()
        message: AIMessage | None = None
        try:
            response = await self._asked(request, handler)
            last = response.result[-1]
            if not isinstance(last, AIMessage):
                raise ModelNonsense
            message = last
        finally:
            self._spend(request, message, asyncio.get_running_loop().time() - started)
        return ModelResponse(result=[await self._settle(message)])

    async def _asked(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Ask once more, a few times and within the turn's time, as long as nothing was heard and it may help."""
        for attempt in itertools.count(1):
            self.listener.forget()
            try:
                return await handler(request)
            except Exception as error:  # foreign code: whatever it raises, the model did not answer
                if isinstance(request.model, OfflineModel):
                    raise  # our own code: a bug in it is a bug
                left = self.until - asyncio.get_running_loop().time()
                wait = pause(error, attempt, left) if attempt <= self.limits.retries and not self.text else None
                if wait is None:
                    raise explained(error, request.model) from None
            await asyncio.sleep(wait)
        raise AssertionError  # itertools.count does not end

    def _spend(self, request: ModelRequest[Any], message: AIMessage | None, seconds: float) -> None:
        """Count what was asked and said; a message that was begun and never finished has been paid for, too."""
        if isinstance(request.model, OfflineModel) or (message is None and not self.listener.pieces):
            return
        usage = replace(_usage(request, message or self.listener.heard), seconds=seconds)
        self.usage += usage
        self.spend(usage)

    async def _settle(self, message: AIMessage) -> AIMessage:
        asked = wishes(message, self.listener.heard, new_id()[:16])
        text = str(message.text)
        if text and not self.text:
            self._hear(text)
        if not asked and not text.strip():
            raise ModelNonsense("The model gave an empty answer.")
        taken = asked[: max(self.limits.calls - self.calls, 0)]
        if len(taken) < len(asked):
            self.over = f"its limit of {self.limits.calls} tool calls"
        self.calls += len(taken)
        self.open.update({wish.id: wish for wish in taken})
        self.text, self.last = "", text
        self.cut = "" if asked else _cut(message, streamed=bool(self.listener.pieces))
        partial = bool(self.cut)
        await self.channel.tell(Said(text, tuple(self._request(wish) for wish in taken), partial))
        return settled(message, taken)

    def _request(self, wish: Wish) -> ToolRequest:
        tool = self._names.get(wish.name)
        arguments = dict(wish.arguments)
        on = ""
        if tool is None or "on" not in tool.arguments.model_fields:
            on = str(arguments.pop("on", "") or "")
        return ToolRequest(wish.id, tool.full_name if tool else wish.name[:100], arguments, on or self._default(tool))

    def _default(self, tool: Tool | None) -> str:
        fitting = [instance.name for instance in self.instances if tool is None or instance.plugin == tool.plugin]
        return self.focus if self.focus in fitting else fitting[0] if len(fitting) == 1 else ""

    # -- the calls

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[Any]],  # noqa: ARG002  langchain's own way to run a tool
    ) -> ToolMessage:
        """Pass one call to ``dispatch``, unless it cannot be taken as a call. ``handler`` is never called."""
        wish = self.open.get(str(request.tool_call["id"]))
        if wish is None:
            raise ModelNonsense("A call came up that the model did not make.")
        asked = self._request(wish)
        text = self._objection(wish, asked) or await self._dispatched(asked)
        return tool_message(wish.id, wish.name, text)

    def _objection(self, wish: Wish, asked: ToolRequest) -> str:
        """Why a call is not even passed on; empty when it is. The text is told as the call's answer."""
        if wish.defect:
            return self._answer(wish.id, f"not run: {wish.defect}. Send the whole call again.")
        if asked.tool in {tool.full_name for tool in self.toolbox} and not asked.on:
            names = ", ".join(instance.name for instance in self.instances) or "none is attached"
            return self._answer(wish.id, f"not run: say which database with `on` ({names}).")
        return self._repeated(asked)

    def _repeated(self, asked: ToolRequest) -> str:
        key = canonical([asked.tool, asked.arguments, asked.on])
        self.made[key] = self.made.get(key, 0) + 1
        if self.made[key] <= self.limits.identical:
            return ""
        if self.made[key] > self.limits.identical + 1:
            self.over = "the same call over and over"
        times = self.limits.identical
        return self._answer(asked.id, f"not run: this very call was made {times} times already; use its answer.")

    def _answer(self, call_id: str, text: str) -> str:
        self.open.pop(call_id, None)
        self.channel.note(ToolSaid(call_id, text))
        return text

    async def _dispatched(self, asked: ToolRequest) -> str:
        await self.channel.tell(Called(asked))
        try:
            record = await self.dispatch(asked)
        except (CallRefused, PluginError, ExecutionError) as error:
            return self._answer(asked.id, f"refused ({error.code}): {self._shield(asked.on).text(str(error))}")
        await self.channel.tell(Answered(record))
        if record.status == "waiting":
            self.parked.append(record.approval or record.id)
            self.open.pop(asked.id, None)
            return waiting_text(record.approval or record.id)
        return self._answer(asked.id, tool_text(record, self.caps, self._shield(record.instance)))

    def _shield(self, on: str) -> Shield:
        return Shield.named(on, self.instances)

    # -- the end

    def ending(self) -> list[AgentEvent]:
        """The last events of the turn: what broke off, what has no answer, and how it ended."""
        broken: list[AgentEvent] = [Said(self.text, (), partial=True)] if self.text else []
        lost = [ToolSaid(call, "no answer: the turn ended before this call was answered") for call in self.open]
        if self.error is not None:
            return [*broken, *lost, Failed(self.error)]
        if self.parked:
            return [*broken, *lost, Parked(tuple(self.parked))]
        if self.over:
            return [*broken, *lost, Failed(self._limit())]
        if self.cut:
            return [*broken, *lost, Failed(AnswerCutOff(f"The answer broke off: {self.cut}. What was said is kept."))]
        return [Finished(self.last)]

    def _limit(self) -> TurnLimit:
        hint = "Say “go on” to continue, or ask for less at once."
        if self.over.startswith(SESSION):
            hint = "Start a new session, or raise OPSAGENT_SESSION_TOKENS."
        return TurnLimit(f"The turn was stopped at {self.over}.", hint=hint)


def _cut(message: AIMessage, *, streamed: bool) -> str:
    """Why an answer is not whole; empty when it is. What is streamed and whole says how it ended."""
    reason = end_reason(message)
    if reason in {"content_filter", "safety"}:
        return "the provider filtered the rest"
    if reason in CUT_OFF:
        return "it reached the length that the provider allows"
    return "the connection ended before the answer did" if streamed and not reason else ""


def _usage(request: ModelRequest[Any], message: AIMessage | None) -> Usage:
    """Tokens as the provider counted them, else a guess from the characters that were sent and heard."""
    told = message.usage_metadata if message is not None else None
    if told:
        return Usage(told["input_tokens"], told["output_tokens"], calls=1)
    sent = [request.system_message, *request.messages] if request.system_message else request.messages
    asked = sum(len(str(one.content)) + len(str(getattr(one, "tool_calls", "") or "")) for one in sent)
    heard = len(str(message.content)) + len(str(message.tool_calls or "")) if message is not None else 0
    return Usage(-(-asked // CHARACTERS), -(-heard // CHARACTERS), calls=1, estimated=1)
