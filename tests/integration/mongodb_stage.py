"""What the tests of the MongoDB plugin stand on: stage.py, and a look into results and running operations."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from opsagent_jupyter.models import Json, Result
from opsagent_jupyter.plugins.mongodb import plugin
from opsagent_jupyter.plugins.mongodb.connection import Database
from tests.integration import stage

on_loop = stage.on_loop


def on_loop_losing_sockets(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The same where connecting is given up half way: the driver leaves that socket to the garbage collector."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        try:
            on_loop(test)(*arguments, **named)
        finally:
            gc.collect()

    return pytest.mark.filterwarnings("ignore:unclosed", "ignore:Exception ignored")(run)


class Run(stage.Run):
    """One approved plan of this plugin."""

    toolbox = plugin.toolbox


_stage = stage.Stage(plugin, Run)
attached, call, read = _stage.attached, _stage.call, _stage.read
planned, performed = _stage.planned, _stage.performed


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
