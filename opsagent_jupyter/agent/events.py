"""What a turn tells its caller, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import CallRecord


@dataclass(frozen=True)
class ToolRequest:
    """One tool call as the model asked for it; nothing of it has been checked."""

    id: str
    tool: str
    """Full name, or what the model wrote when there is no such tool."""
    arguments: dict[str, Any] = field(default_factory=dict)
    on: str = ""
    """Name of the instance; empty when the model named none and none is in focus."""


@dataclass(frozen=True)
class TextDelta:
    """A piece of the answer as it is being written."""

    text: str


@dataclass(frozen=True)
class Said:
    """A finished message of the model, told before its calls are run. ``partial``: it broke off in the middle."""

    text: str
    calls: tuple[ToolRequest, ...] = ()
    partial: bool = False


@dataclass(frozen=True)
class Called:
    """A call goes to the gate now."""

    request: ToolRequest


@dataclass(frozen=True)
class Answered:
    """The gate's answer to a call."""

    record: CallRecord


@dataclass(frozen=True)
class ToolSaid:
    """The text of a tool message, to be stored as the answer to a call."""

    call_id: str
    text: str


@dataclass(frozen=True)
class Usage:
    """What asking a model has taken: tokens as its provider counted them, seconds until the last word."""

    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    estimated: int = 0
    """Calls whose tokens were not told and are a guess from the length of the text, on the high side."""
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Read and written together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.calls + other.calls,
            self.estimated + other.estimated,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Parked:
    """The end: calls wait for a person. Resume with a transcript that holds their outcomes."""

    approvals: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """The end: the model's last message."""

    text: str


@dataclass(frozen=True)
class Failed:
    """The end: the turn could not be finished."""

    error: OpsAgentError


AgentEvent = TextDelta | Said | Called | Answered | ToolSaid | Parked | Finished | Failed


class Channel:
    """Carries events from a turn to its one reader, in order."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[AgentEvent | None, asyncio.Future[None] | None]] = asyncio.Queue()

    def note(self, event: AgentEvent) -> None:
        """Pass an event on and go on at once."""
        self._events.put_nowait((event, None))

    async def tell(self, event: AgentEvent) -> None:
        """Pass an event on and wait until the reader is done with it: what it stores is stored before what follows."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._events.put_nowait((event, done))
        await done

    def end(self) -> None:
        """Say that nothing follows."""
        self._events.put_nowait((None, None))

    async def read(self) -> AsyncIterator[AgentEvent]:
        """Yield the events until the end."""
        while True:
            event, done = await self._events.get()
            if event is None:
                return
            yield event
            if done is not None and not done.done():
                done.set_result(None)
