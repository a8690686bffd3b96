"""A process that runs one approved plan of the PostgreSQL plugin, for a test that kills it in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from multiprocessing.connection import Connection

from opsagent_jupyter.models import Json, Plan
from tests.integration.postgresql_stage import Run, attached


def perform(dsn: str, tool: str, plan: str, pipe: Connection) -> None:
    """Run the plan; the evidence goes through the pipe before the first statement is sent."""
    asyncio.run(_perform(dsn, Telling(tool, Plan.model_validate_json(plan)), pipe))


class Telling(Run):
    """A run that tells another process what it notes."""

    pipe: Connection

    async def note(self, evidence: dict[str, Json], *, secret: Callable[[], str] | None = None) -> None:
        await super().note(evidence, secret=secret)
        self.pipe.send(evidence)


async def _perform(dsn: str, run: Telling, pipe: Connection) -> None:
    run.pipe = pipe
    async with attached(dsn) as db:
        await run.perform(db)
