"""A host that is killed while it creates a role, at a point that the test names."""

from __future__ import annotations

import os
import time
from typing import Any

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.plugins.postgresql.connection import Change
from tests.faults.executing_child import after, before, die

#: Where the host dies: around the note that keeps the password, around the statement, and around the commit.
POINTS = ("before note", "after note", "after statement", "before commit", "after commit", "before outcome")


def arm(ops: OpsAgent, point: str) -> None:
    """Make this process die at the point."""
    store = ops.runtime.store
    around = {"before": before, "after": after}[point.split(maxsplit=1)[0]]
    method = {"note": "note", "outcome": "move"}.get(point.split()[1])
    if method:
        setattr(store, method, around(getattr(store, method)))
    else:
        Change.run = dying(Change.run, point)  # type: ignore[method-assign]


def dying(run: Any, point: str) -> Any:
    """The sending of a statement, that does not survive the one that is meant."""
    moment, what = point.split()
    begins = {"statement": "CREATE ROLE", "commit": "COMMIT"}[what]

    async def sent(change: Change, statement: str) -> Any:
        if moment == "before" and statement.startswith(begins):
            die()
        ending = await run(change, statement)
        if moment == "after" and statement.startswith(begins):
            die()
        return ending

    return sent


def create(store_url: str, key: str, point: str) -> None:
    """Be a host that runs what is approved until it dies."""
    os.environ["PLUGIN_ENCRYPTION_KEY"] = key
    ops = OpsAgent(store_url, kind="worker", executes=False, lease_seconds=60)
    arm(ops, point)
    for request in ops.approvals("approved")["id"]:
        ops.runtime.call(ops.runtime.executor.resume(request))
    time.sleep(0.05)
    os._exit(7)  # it should have died: the test sees this code
