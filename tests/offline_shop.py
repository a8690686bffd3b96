"""The offline model in front of the PostgreSQL plugin's real tools and a shop's names, without a database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opsagent_jupyter.agent import loop
from opsagent_jupyter.agent.dialogue import Dialogue
from opsagent_jupyter.agent.exchange import Exchange, Step
from opsagent_jupyter.agent.providers import open_model
from opsagent_jupyter.agent.world import Reply, World
from opsagent_jupyter.models import CallRecord, CallStatus, Catalog, Effect, Instance, Message, Result, Risk
from opsagent_jupyter.plugins.postgresql import plugin

CASES = Path(__file__).parent / "cases"
TOOLS = tuple(plugin.toolbox.tools.values())
SHOP = Instance(name="shop", server="demo", plugin="postgresql")


def cases(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text())
    return found


def shop_catalog() -> Catalog:
    held = cases("phrasings")["catalog"]
    columns = {table: tuple(names) for table, names in held["columns"].items()}
    return Catalog(names={"table": tuple(columns), "index": tuple(held["indexes"])}, columns=columns)


def shop_world(*others: Instance, focus: str = "shop", catalogs: dict[str, Catalog] | None = None) -> World:
    return World(TOOLS, (SHOP, *others), focus, catalogs or {"shop": shop_catalog()})


def asked(*texts: str, world: World | None = None) -> Reply:
    """What is replied to the last text, when each earlier one was answered by what the model said to it."""
    dialogue = Dialogue(world or shop_world())
    said: list[Exchange] = []
    reply = Reply()
    for text in texts:
        said.append(Exchange(text))
        reply = dialogue.reply(said)
        said[-1].steps.append(Step(reply.text))
    return reply


def calls(reply: Reply) -> Sequence[tuple[str, dict[str, Any]]]:
    return [(call.tool.name, dict(call.arguments)) for call in reply.calls]


class Talk:
    """A conversation with the offline model through the real loop; results of tools are given, changes wait."""

    def __init__(self, *, instances: Sequence[Instance] = (SHOP,), focus: str = "shop", **found: Result) -> None:
        self.instances = instances
        self.focus = focus
        self.found = found
        self.tools = TOOLS
        self.catalogs = {instance.name: shop_catalog() for instance in instances}
        self.transcript: list[Message] = []
        self.requests: list[loop.ToolRequest] = []
        self.waiting: dict[str, loop.ToolRequest] = {}
        self.events: list[loop.AgentEvent] = []
        self.unreadable: Exception | None = None

    def say(self, text: str) -> str:
        """A person writes; what the model says to it, up to the end of the turn."""
        self._keep(role="user", text=text)
        return self.go_on()

    def decide(self, status: CallStatus, summary: str, effect: Effect | None = None) -> str:
        """The oldest request that waits ends like this; what the model says then."""
        call_id, request = next(iter(self.waiting.items()))
        del self.waiting[call_id]
        record = self._record(request, status=status, summary=summary, effect=effect, approval="ab12" * 8)
        self._keep(role="tool", call=call_id, text=loop.tool_text(record))
        return self.go_on()

    def go_on(self) -> str:
        return asyncio.run(self._turn())

    async def _catalogs(self) -> dict[str, Catalog]:
        if self.unreadable:
            raise self.unreadable
        return self.catalogs

    async def _turn(self) -> str:
        model = open_model("offline", catalog=self._catalogs)
        self.events = []
        async for event in loop.run(
            model=model, tools=self.tools, instances=self.instances, focus=self.focus,
            transcript=tuple(self.transcript), dispatch=self._dispatch,
        ):  # fmt: skip
            self.events.append(event)
            if isinstance(event, loop.Said):
                asked = tuple(self._record(request, status="running") for request in event.calls)
                self._keep(role="assistant", text=event.text, calls=asked)
            elif isinstance(event, loop.ToolSaid):
                self._keep(role="tool", call=event.call_id, text=event.text)
        return "".join(event.text for event in self.events if isinstance(event, loop.TextDelta))

    async def _dispatch(self, request: loop.ToolRequest) -> CallRecord:
        self.requests.append(request)
        tool = plugin.toolbox.tools[request.tool.rpartition(".")[2]]
        tool.parse(request.arguments)
        if tool.changes:
            self.waiting[request.id] = request
            return self._record(request, status="waiting", approval="ab12" * 8)
        found = self.found.get(tool.name, Result(summary=f"{tool.name} found nothing special"))
        return self._record(request, status="succeeded", result=found, summary=found.summary)

    def _record(self, request: loop.ToolRequest, **values: Any) -> CallRecord:
        known = {"risk": Risk.LOW, **values}
        return CallRecord(id=request.id, tool=request.tool, arguments=request.arguments, instance=request.on, **known)

    def _keep(self, **values: Any) -> None:
        self.transcript.append(Message(session="s", seq=len(self.transcript) + 1, **values))

    @property
    def called(self) -> list[tuple[str, dict[str, Any]]]:
        """Every call so far, by short name."""
        return [(request.tool.rpartition(".")[2], dict(request.arguments)) for request in self.requests]
