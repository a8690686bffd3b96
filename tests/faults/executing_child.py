"""A host that is killed in the middle of an approved call, at a point that the test names."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.stores.sqlite_library import sqlite3
from tests import ledger_plugin
from tests.ledger_plugin import Ledger, plugin

#: Where a host dies; ``timer`` dies after a random time instead.
POINTS = (
    "before claim", "after claim", "before note", "after note", "before statement", "before commit", "after commit",
    "before outcome", "after outcome", "timer",
)  # fmt: skip


def die() -> None:
    """What ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(function: Callable[..., Any]) -> Callable[..., Any]:
    """Die instead of calling."""
    return lambda *_, **__: die()


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call, then die before anybody hears of it."""

    def called(*arguments: Any, **named: Any) -> Any:
        function(*arguments, **named)
        die()

    return called


class Dying(sqlite3.Connection):
    """A connection that dies around its commit."""

    point = ""

    def execute(self, *arguments: Any) -> Any:
        """Die before the statement is sent, when that is the point."""
        if self.point == "before statement" and str(arguments[0]).startswith("INSERT INTO mark"):
            die()
        return super().execute(*arguments)

    def commit(self) -> None:
        """Die on either side of the commit, when that is the point."""
        if self.point == "before commit":
            die()
        super().commit()
        if self.point == "after commit":
            die()


def arm(ops: OpsAgent, point: str) -> None:
    """Make this process die at the point."""
    store = ops.runtime.store
    name, _, what = point.partition(" ")
    around = {"before": before, "after": after}.get(name)
    method = {"claim": "claim", "note": "note", "outcome": "move"}.get(what)
    if around and method:
        setattr(store, method, around(getattr(store, method)))
    elif point != "timer":
        Dying.point = point
        Ledger.open = lambda self: sqlite3.connect(self.path, timeout=30, factory=Dying)  # type: ignore[method-assign]


def execute(store_url: str, key: str, point: str, seconds: float) -> None:
    """Be a host that runs what is approved until it dies, or until ``seconds`` are over."""
    os.environ["PLUGIN_ENCRYPTION_KEY"] = key
    ops = OpsAgent(store_url, kind="worker", executes=False, lease_seconds=60)
    ops.runtime.plugins.add(plugin)
    arm(ops, point)
    if point == "timer":
        signal.signal(signal.SIGALRM, lambda *_: die())
        signal.setitimer(signal.ITIMER_REAL, seconds)
    for request in ops.approvals("approved")["id"]:
        ops.runtime.call(ops.runtime.executor.resume(request))
    time.sleep(0.05)
    die()


__all__ = ["POINTS", "execute", "ledger_plugin"]
