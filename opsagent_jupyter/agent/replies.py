"""What a model's message really asks for: its calls, taken strictly, or the reason why one is not taken.

A streamed call arrives in pieces, and the client library completes JSON that was cut off. A cut-off argument would be
another argument than the model meant, so the raw pieces are kept here and read again, strictly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk

from opsagent_jupyter.agent.prompts import model_name
from opsagent_jupyter.errors import ModelNonsense

REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "finishReason")
#: More calls, or more characters, than any sensible message has.
MOST_CALLS = 100
MOST_CHARACTERS = 200_000
CUT_OFF = frozenset({"length", "max_tokens", "content_filter", "safety", "incomplete", "model_context_window_exceeded"})


@dataclass(frozen=True)
class Wish:
    """One call in a model's message. ``defect`` says why it cannot be taken as a call."""

    id: str
    name: str
    arguments: dict[str, Any]
    defect: str = ""


class Listener(BaseCallbackHandler):
    """Hears a model's pieces as they come: hands on the text, and keeps the rest as it was sent."""

    run_inline = True
    raise_error = True

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear = hear
        self.pieces: list[AIMessageChunk] = []
        self._calls = self._size = 0

    def forget(self) -> None:
        """Start a new message."""
        self.pieces.clear()
        self._calls = self._size = 0

    @property
    def heard(self) -> AIMessageChunk | None:
        """The message in one piece, its calls as they were sent; None when nothing was streamed."""
        return add_ai_message_chunks(*self.pieces) if self.pieces else None

    def _measure(self, message: AIMessageChunk, text: str) -> None:
        """Break off a message without end while it is being sent: its client would choke on it."""
        self._size += len(text) + sum(len(piece["args"] or "") for piece in message.tool_call_chunks)
        self._calls += sum(bool(piece["name"]) for piece in message.tool_call_chunks)
        if self._calls > MOST_CALLS or self._size > MOST_CHARACTERS:
            raise ModelNonsense("The model did not come to an end; nothing was run from its message.")

    def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],  # noqa: ARG002  langchain's hook: the chunk says more
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,  # noqa: ARG002
        parent_run_id: UUID | None = None,  # noqa: ARG002
        tags: list[str] | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Take one piece."""
        message = chunk.message if isinstance(chunk, ChatGenerationChunk) else None
        if not isinstance(message, AIMessageChunk):
            return
        text = str(message.text)
        self._measure(message, text)
        self.pieces.append(message)
        if text:
            self._hear(text)


def end_reason(message: AIMessage) -> str:
    """Why the model stopped, in lower case; empty when its provider did not say."""
    said = message.response_metadata
    return next((str(said[key]).lower() for key in REASONS if said.get(key)), "")


def wishes(message: AIMessage, heard: AIMessageChunk | None, prefix: str) -> list[Wish]:
    """The calls of a finished message, under ids of ours: repeating an id, or picking one, gets a model nowhere."""
    cut = _cut_off(message, streamed=heard is not None)
    asked = list(_streamed(heard) if heard is not None and heard.tool_call_chunks else _whole(message))
    return [
        Wish(f"{prefix}_{number}", name, arguments, cut or defect)
        for number, (name, arguments, defect) in enumerate(asked)
    ]


def _cut_off(message: AIMessage, *, streamed: bool) -> str:
    reason = end_reason(message)
    if reason in CUT_OFF:
        return f"the message was cut off ({reason})"
    return "the stream ended before the message was complete" if streamed and not reason else ""


def _streamed(heard: AIMessageChunk) -> Iterator[tuple[str, dict[str, Any], str]]:
    for piece in heard.tool_call_chunks:
        yield (piece["name"] or "", *_strict(piece["args"]))


def _whole(message: AIMessage) -> Iterator[tuple[str, dict[str, Any], str]]:
    for call in message.tool_calls:
        yield (call["name"], *_strict(json.dumps(call["args"])))
    for broken in message.invalid_tool_calls:
        yield broken["name"] or "", {}, "its arguments are no JSON object"


def _strict(text: str | None) -> tuple[dict[str, Any], str]:
    try:
        arguments = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return {}, "its arguments are no valid JSON"
    return (arguments, "") if isinstance(arguments, dict) else ({}, "its arguments are no JSON object")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def settled(message: AIMessage, taken: list[Wish]) -> AIMessage:
    """The message with exactly the calls that were taken, as it stays in the history of this turn."""
    calls = [
        {"id": wish.id, "name": model_name(wish.name), "args": wish.arguments, "type": "tool_call"} for wish in taken
    ]
    theirs = {"tool_calls", "function_call"}
    kept = {key: value for key, value in message.additional_kwargs.items() if key not in theirs}
    changes: Mapping[str, Any] = {
        "tool_calls": calls,
        "invalid_tool_calls": [],
        "additional_kwargs": kept,
        "content": _without_calls(message.content),
    }
    return message.model_copy(update=changes)


def _without_calls(content: str | list[str | dict[str, Any]]) -> str | list[str | dict[str, Any]]:
    """Content blocks of calls repeat the model's own ids; clients write them again from ``tool_calls``."""
    if isinstance(content, str):
        return content
    kinds = {"tool_use", "tool_call", "function_call", "invalid_tool_call", "input_json_delta", "tool_call_chunk"}
    return [block for block in content if isinstance(block, str) or block.get("type") not in kinds] or ""
