"""A conversation as the offline model sees it: what was asked, what was called, what came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from opsagent_jupyter.agent.transcript import NOTE, Answer, read_answer


@dataclass(frozen=True)
class Called:
    """A call of this conversation with its answer. ``text`` is the answer as it was told, ``answer`` what it says."""

    name: str
    """As the model wrote it: ``postgresql_list_indexes``."""
    arguments: Mapping[str, Any]
    id: str = ""
    text: str = ""
    answer: Answer | None = None


@dataclass
class Step:
    """One message of the model, and the answers to what it called."""

    said: str = ""
    calls: list[Called] = field(default_factory=list)


@dataclass
class Exchange:
    """What a person wrote, and everything until they wrote again."""

    asked: str
    steps: list[Step] = field(default_factory=list)

    @property
    def calls(self) -> list[Called]:
        """All calls of the exchange, in order."""
        return [call for step in self.steps for call in step.calls]

    @property
    def answered(self) -> list[Called]:
        """The calls that were made last, as far as they have an answer."""
        last: Sequence[Called] = next((step.calls for step in reversed(self.steps) if step.calls), ())
        return [call for call in last if call.text]

    @property
    def is_open(self) -> bool:
        """Whether answers have come that nothing was said to yet."""
        return bool(self.steps) and any(call.text for call in self.steps[-1].calls)


def exchanges(messages: Sequence[BaseMessage]) -> list[Exchange]:
    """The conversation, exchange by exchange; what has no question before it is under an empty one."""
    found: list[Exchange] = []
    for message in messages:
        if isinstance(message, HumanMessage) and not message.additional_kwargs.get(NOTE):
            found.append(Exchange(str(message.text)))
        elif isinstance(message, (AIMessage, ToolMessage, HumanMessage)):
            if not found:
                found.append(Exchange(""))
            _add(found[-1], message)
    return found


def _add(exchange: Exchange, message: AIMessage | ToolMessage | HumanMessage) -> None:
    text = str(message.text)
    if isinstance(message, AIMessage):
        calls = [Called(call["name"], call["args"], str(call["id"])) for call in message.tool_calls]
        exchange.steps.append(Step(text, calls))
    elif isinstance(message, ToolMessage):
        _answer(exchange, message.tool_call_id, text)
    elif (answer := read_answer(text.partition("\n")[2])) is not None:
        exchange.steps.append(Step("", [Called(answer.tool, {}, "", text, answer)]))


def _answer(exchange: Exchange, call_id: str, text: str) -> None:
    for step in exchange.steps:
        for place, call in enumerate(step.calls):
            if call.id == call_id and not call.text:
                step.calls[place] = Called(call.name, call.arguments, call.id, text, read_answer(text))
