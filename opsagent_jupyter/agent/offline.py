"""The model that is always there: deterministic, without a network, and honest about what it is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from opsagent_jupyter.agent.dialogue import Dialogue
from opsagent_jupyter.agent.exchange import exchanges
from opsagent_jupyter.agent.prompts import model_name
from opsagent_jupyter.agent.world import World
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import Catalog, Instance
from opsagent_jupyter.plugin import Tool

ReadCatalogs = Callable[[], Awaitable[Mapping[str, Catalog]]]
"""Returns the names that exist now, by name of the instance; one that does not answer is left out."""


class OfflineModel(BaseChatModel):
    """Turns a request into tool calls by declared phrases and live names, and tool results into plain words."""

    tools: tuple[Tool, ...] = ()
    instances: tuple[Instance, ...] = ()
    focus: str = ""
    catalog: Any = None

    def placed(self, tools: Sequence[Tool], instances: Sequence[Instance], focus: str) -> OfflineModel:
        """The same model, knowing where it is: which tools and databases there are, and which is in focus."""
        changes = {"tools": tuple(tools), "instances": tuple(instances), "focus": focus}
        return self.model_copy(update=changes)

    @property
    def _llm_type(self) -> str:
        return "opsagent-offline"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],  # noqa: ARG002  it has the tools themselves
        **kwargs: Any,  # noqa: ARG002
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Itself: it reads more of a tool than a declaration says."""
        return self

    async def _pieces(self, messages: Sequence[BaseMessage]) -> list[AIMessageChunk]:
        world = World(self.tools, self.instances, self.focus, await self._catalogs())
        reply = Dialogue(world).reply(exchanges(messages))
        calls = [
            tool_call_chunk(name=model_name(call.tool), args=json.dumps(world.arguments(call)), id=f"call_{n}", index=n)
            for n, call in enumerate(reply.calls)
        ]
        last = AIMessageChunk(content="", tool_call_chunks=calls, response_metadata={"finish_reason": "stop"})
        return [*(AIMessageChunk(content=word) for word in _words(reply.text)), last]

    async def _catalogs(self) -> Mapping[str, Catalog]:
        if self.catalog is None:
            return {}
        try:
            return await self.catalog()  # type: ignore[no-any-return]  # ReadCatalogs; pydantic cannot hold its type
        except OpsAgentError:
            return {}

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> AsyncIterator[ChatGenerationChunk]:
        for piece in await self._pieces(messages):
            chunk = ChatGenerationChunk(message=piece)
            if run_manager:
                await run_manager.on_llm_new_token(str(piece.text), chunk=chunk)
            yield chunk
            await asyncio.sleep(0)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        whole = add_ai_message_chunks(*asyncio.run(self._pieces(messages)))
        message = AIMessage(whole.content, tool_calls=whole.tool_calls, response_metadata=whole.response_metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])


def _words(text: str) -> Iterator[str]:
    return (found[0] for found in re.finditer(r"\s*\S+\s*?(?=\S|\s|$)", text)) if text.strip() else iter(())
