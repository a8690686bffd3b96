"""What the tests of both plugins stand on: one tool's whole life, asked as the gate asks it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from opsagent_jupyter.models import Effect, Json, Plan, Result
from opsagent_jupyter.plugin import Limits, Plugin, Toolbox


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@dataclass
class Run:
    """One approved plan on its way: the evidence that was noted, and its task. A plugin's tests name its tools."""

    toolbox: ClassVar[Toolbox]

    tool: str
    plan: Plan
    evidence: dict[str, Json] = field(default_factory=dict)
    secret: Callable[[], str] | None = field(default=None, repr=False)

    async def note(self, evidence: dict[str, Json], *, secret: Callable[[], str] | None = None) -> None:
        self.evidence.update(evidence)
        self.secret = secret

    async def perform(self, db: Any) -> Effect:
        return await self._end("perform", db, self.plan, self.note)

    def start(self, db: Any) -> asyncio.Task[Effect]:
        return asyncio.ensure_future(self.perform(db))

    async def probe(self, db: Any) -> Effect:
        return await self._end("probe", db, self.plan, self.evidence)

    async def _end(self, hook: str, *arguments: Any) -> Effect:
        effect = await self.toolbox.tools[self.tool].hooks[hook](*arguments)
        assert isinstance(effect, Effect)
        return effect


class Stage:
    """The tools of one plugin, on a database of the test."""

    def __init__(self, plugin: Plugin, run: type[Run]) -> None:
        self._plugin = plugin
        self._run = run

    @asynccontextmanager
    async def attached(self, secret: str, limits: Limits | None = None) -> AsyncIterator[Any]:
        """A connection of the plugin, closed afterwards."""
        db = await self._plugin.connect("stage", secret, limits or Limits())
        try:
            yield db
        finally:
            await db.close()

    async def call(self, db: Any, tool: str, /, **arguments: Any) -> Any:
        """A read tool's result or a changing tool's plan, its arguments validated as the gate does it."""
        spec = self._plugin.toolbox.tools[tool]
        parsed = spec.parse(arguments)
        return await spec.function(db, **{name: getattr(parsed, name) for name in type(parsed).model_fields})

    async def read(self, db: Any, tool: str, /, **arguments: Any) -> Result:
        found = await self.call(db, tool, **arguments)
        assert isinstance(found, Result)
        return found

    async def planned(self, db: Any, tool: str, /, **arguments: Any) -> Plan:
        found = await self.call(db, tool, **arguments)
        assert isinstance(found, Plan)
        return found

    async def performed(self, db: Any, tool: str, /, **arguments: Any) -> Effect:
        """Plan and run at once, as after an approval."""
        return await self._run(tool, await self.planned(db, tool, **arguments)).perform(db)
