"""A host in the middle of a conversation that is killed, at a point that the test names."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any

import langchain.agents
import langchain_openai

from opsagent_jupyter.agent import loop
from opsagent_jupyter.agent.replies import Listener
from opsagent_jupyter.api import OpsAgent
from tests.faults.executing_child import die
from tests.ledger_plugin import plugin

#: What a store does around which a host dies, by the name of the method.
STORE = {
    "message": "append", "record": "record", "request": "add_approval", "claim": "claim", "note": "note", "end": "move",
    "lease": "lease_session", "release": "release_session",
}  # fmt: skip
#: Where a host dies by itself, and where it is killed from outside: at any time, or while a request waits for a person.
INSIDE = ("streaming", *(f"{side} {what}" for what in STORE for side in ("before", "after")))
OUTSIDE = ("any time", "waiting")
#: Seconds that a host may be silent before another one takes its work over.
LEASE = 0.8


def dying(function: Callable[..., Any], times: int, *, first: bool) -> Callable[..., Any]:
    """The function, that is not survived when it is called for the so-manieth time: it is, or is not, carried out first."""
    calls = count(1)

    def called(*arguments: Any, **named: Any) -> Any:
        last = next(calls) == times
        if last and not first:
            die()
        told = function(*arguments, **named)
        if last:
            die()
        return told

    return called


def arm(ops: OpsAgent, point: str, times: int) -> None:
    """Make this process die when it comes to the point for the so-manieth time."""
    side, _, what = point.partition(" ")
    if point == "streaming":
        Listener.on_llm_new_token = dying(Listener.on_llm_new_token, 4 * times, first=True)  # type: ignore[method-assign]
    elif what in STORE:
        store, name = ops.runtime.store, STORE[what]
        setattr(store, name, dying(getattr(store, name), times, first=side == "after"))


def converse(store_url: str, key: str, model_url: str, session: str, question: str, point: str, times: int) -> None:
    """Be a host that asks the question, or that goes on with what another one left, until it dies."""
    os.environ["PLUGIN_ENCRYPTION_KEY"] = key
    ops = OpsAgent(store_url, "openai:gpt-test", kind="worker", model_base_url=f"{model_url}/v1", lease_seconds=LEASE)
    ops.runtime.plugins.add(plugin)
    arm(ops, point, times)
    if question:
        ops.ask(question, session=session)
    else:
        ops.open(session)
    while True:
        signal.pause()


__all__ = ["INSIDE", "LEASE", "OUTSIDE", "converse", "langchain", "langchain_openai", "loop"]
