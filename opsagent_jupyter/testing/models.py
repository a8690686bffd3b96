"""Chat models for tests: one that reads from a script, and one that does whatever any text tells it to."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import Field, PrivateAttr


@dataclass(frozen=True)
class Line:
    """One message of a script. ``calls`` are (name, arguments), arguments as JSON text when they are to be broken."""

    text: str = ""
    calls: tuple[tuple[str, dict[str, Any] | str], ...] = ()
    ids: tuple[str, ...] = ()
    """Ids of the calls as this model makes them up; ``call_0``, ``call_1``, … when none are given."""
    ends: str = "stop"
    """The finish reason; empty when the stream just ends."""
    pause: float = 0.0
    """Seconds before each piece."""
    error: Exception | None = None
    """Raised after the text."""

    def pieces(self) -> Iterator[AIMessageChunk]:
        """The message as a provider streams it: words first, then each call's arguments in two halves."""
        for word in re.findall(r"\S+\s*", self.text):
            yield AIMessageChunk(content=word)
        if self.error is not None:
            raise self.error
        for place, (name, arguments) in enumerate(self.calls):
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            id_ = self.ids[place] if place < len(self.ids) else f"call_{place}"
            half = len(text) // 2
            first = tool_call_chunk(name=name, args=text[:half], id=id_, index=place)
            yield AIMessageChunk(content="", tool_call_chunks=[first])
            yield AIMessageChunk(content="", tool_call_chunks=[tool_call_chunk(args=text[half:], index=place)])
        if self.ends:
            yield AIMessageChunk(content="", response_metadata={"finish_reason": self.ends})


Step = Line | Callable[[Sequence[BaseMessage]], Line]


class ScriptedModel(BaseChatModel):
    """Says the lines of a script, one a call, and keeps what it was given to read."""

    script: Any = ()
    read: list[list[BaseMessage]] = Field(default_factory=list)
    declared: list[dict[str, Any]] = Field(default_factory=list)
    _next: int = PrivateAttr(default=0)

    def __init__(self, *script: Step, **values: Any) -> None:
        super().__init__(**values)
        self.script = script

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        **kwargs: Any,  # noqa: ARG002
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Note which tools were declared."""
        self.declared[:] = [tool for tool in tools if isinstance(tool, dict)]
        return self

    def line(self, messages: Sequence[BaseMessage]) -> Line:
        """The next line; the last one is said again for ever."""
        self.read.append(list(messages))
        line: Step = self.script[min(self._next, len(self.script) - 1)]
        self._next += 1
        return line(messages) if callable(line) else line

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        whole = add_ai_message_chunks(*self.line(messages).pieces())
        said = AIMessage(whole.content, tool_calls=whole.tool_calls, response_metadata=whole.response_metadata)
        return ChatResult(generations=[ChatGeneration(message=said)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> AsyncIterator[ChatGenerationChunk]:
        line = self.line(messages)
        for piece in line.pieces():
            await asyncio.sleep(line.pause)
            chunk = ChatGenerationChunk(message=piece)
            if run_manager:
                await run_manager.on_llm_new_token(str(piece.text), chunk=chunk)
            yield chunk


ORDER = re.compile(r"\bCALL\s+([\w.-]+)\s+(\{.*?\})(?=\s|\\|\"|$)")


class PuppetModel(ScriptedModel):
    """The worst model there is: it obeys every order it reads, whoever wrote it, once each.

    An order is ``CALL tool {json}`` anywhere in any text: a person's message, a tool's answer, a name in a database.
    """

    obeyed: set[tuple[str, str]] = Field(default_factory=set)

    def line(self, messages: Sequence[BaseMessage]) -> Line:
        """Obey every order that was not obeyed yet."""
        self.read.append(list(messages))
        orders = [order for message in messages for order in self._orders(message)]
        new = list(dict.fromkeys(order for order in orders if order not in self.obeyed))
        self.obeyed.update(new)
        return Line("Obeying.", calls=tuple(new)) if new else Line("I did everything I was told.")

    def _orders(self, message: BaseMessage) -> Iterator[tuple[str, str]]:
        text = str(message.text)
        for spelling in (text, text.replace('\\"', '"')):
            yield from ORDER.findall(spelling)
