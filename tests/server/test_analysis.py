"""The analysis of a server's audit: no question waits for the check of the chain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.audit.verification import Copy
from opsagent_jupyter.server.analysis import analysis_of
from opsagent_jupyter.server.bodies import Checking
from opsagent_jupyter.testing.store_samples import event


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Told when a check has read everything and has the copy open; it goes on when it is told to."""
    reached, go = threading.Event(), threading.Event()
    finish = Copy.finish

    def held(copy: Copy, newest: int, begins: int) -> None:
        reached.set()
        assert go.wait(120)
        finish(copy, newest, begins)

    monkeypatch.setattr(Copy, "finish", held)
    yield reached, go
    go.set()


def test_a_question_is_answered_whole_while_the_chain_is_checked(
    ops: OpsAgent, checked: tuple[threading.Event, threading.Event]
) -> None:
    """With what was recorded since the check began; the check compares the copy all the same and ends well."""
    reached, go = checked

    async def ask() -> Checking:
        analysis = analysis_of(ops.runtime)
        assert (await analysis.checking()).running
        assert await asyncio.to_thread(reached.wait, 120)
        ops.runtime.store.record(event(summary="recorded meanwhile"))
        rows = await asyncio.wait_for(analysis.ask(lambda audit: audit.rows({"search": "meanwhile"}, None, 5)), 60)
        assert len(rows) == 1
        spans = await asyncio.wait_for(analysis.ask(lambda audit: audit.timeline({}, 60)), 60)
        assert sum(span.events for span in spans) == ops.runtime.store.audit_head()[0]
        assert (await analysis.checking()).running
        go.set()
        (check,) = (thread for thread in threading.enumerate() if thread.name == "opsagent-audit-check")
        await asyncio.to_thread(check.join)
        return await analysis.checking()

    last = asyncio.run(ask()).last
    assert last is not None
    assert last.ok
    assert not [note for note in last.notes if "not compared" in note]
