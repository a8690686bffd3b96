"""What the tests of the MongoDB plugin stand on: a connection, one tool's whole life, and a look into its results."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from opsagent_jupyter.models import Effect, Json, Plan, Result
from opsagent_jupyter.plugin import Limits
from opsagent_jupyter.plugins.mongodb import plugin
from opsagent_jupyter.plugins.mongodb.connection import Database


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def on_loop_losing_sockets(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The same where connecting is given up half way: the driver leaves that socket to the garbage collector."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        try:
            asyncio.run(test(*arguments, **named))
        finally:
            gc.collect()

    return pytest.mark.filterwarnings("ignore:unclosed", "ignore:Exception ignored")(run)


@asynccontextmanager
async def attached(uri: str, limits: Limits | None = None) -> AsyncIterator[Database]:
    """A connection of the plugin, closed afterwards."""
    db = await plugin.connect("stage", uri, limits or Limits())
    try:
        yield db
    finally:
        await db.close()


async def call(db: Database, tool: str, /, **arguments: Any) -> Any:
    """A read tool's result or a changing tool's plan, its arguments validated as the gate does it."""
    spec = plugin.toolbox.tools[tool]
    parsed = spec.parse(arguments)
    return await spec.function(db, **{name: getattr(parsed, name) for name in type(parsed).model_fields})


async def read(db: Database, tool: str, /, **arguments: Any) -> Result:
    found = await call(db, tool, **arguments)
    assert isinstance(found, Result)
    return found


async def planned(db: Database, tool: str, /, **arguments: Any) -> Plan:
    found = await call(db, tool, **arguments)
    assert isinstance(found, Plan)
    return found


@dataclass
class Run:
    """One approved plan on its way: the evidence that was noted, and its task."""

    tool: str
    plan: Plan
    evidence: dict[str, Json] = field(default_factory=dict)

    async def note(self, evidence: dict[str, Json]) -> None:
        self.evidence.update(evidence)

    async def perform(self, db: Database) -> Effect:
        effect = await plugin.toolbox.tools[self.tool].hooks["perform"](db, self.plan, self.note)
        assert isinstance(effect, Effect)
        return effect

    def start(self, db: Database) -> asyncio.Task[Effect]:
        return asyncio.ensure_future(self.perform(db))

    async def probe(self, db: Database) -> Effect:
        effect = await plugin.toolbox.tools[self.tool].hooks["probe"](db, self.plan, self.evidence)
        assert isinstance(effect, Effect)
        return effect


async def performed(db: Database, tool: str, /, **arguments: Any) -> Effect:
    """Plan and run at once, as after an approval."""
    return await Run(tool, await planned(db, tool, **arguments)).perform(db)


def rows(result: Result, table: str) -> list[dict[str, Any]]:
    """The rows of one of a result's tables, by column."""
    found = next(each for each in result.tables if each.name == table)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def line(result: Result, table: str, key: str, wanted: Any) -> dict[str, Any]:
    """The row of a table where a column has a value."""
    return next(row for row in rows(result, table) if row[key] == wanted)


def offered(result: Result, tool: str) -> list[dict[str, Json]]:
    """The arguments of the calls of one tool that a result suggests."""
    return [each.arguments for each in result.suggestions if each.tool == f"mongodb.{tool}"]


async def until_running(db: Database, comment_part: str) -> dict[str, Any]:
    """Our own operation that runs now and whose command has that word."""
    look = {"aggregate": 1, "pipeline": [{"$currentOp": {"allUsers": True}}], "cursor": {}}
    for _ in range(500):
        for each in await db.documents("admin", look):
            if comment_part in str(each.get("command", {})) and "$currentOp" not in str(each["command"]):
                return each
        await asyncio.sleep(0.02)
    raise AssertionError("it did not run")
