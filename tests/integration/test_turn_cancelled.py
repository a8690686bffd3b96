"""A turn that is stopped, by a person or by its limit: the model, the tool and the statement in the database stop with it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from opsagent_jupyter.api import OpsAgent, Turn
from opsagent_jupyter.errors import TurnLimit
from opsagent_jupyter.models import Result
from opsagent_jupyter.plugin import Toolbox
from opsagent_jupyter.plugins.postgresql import plugin as postgresql
from opsagent_jupyter.plugins.postgresql.connection import Database
from tests.integration.postgresql_stage import eventually, value
from tests.model_server import Server, serving
from tests.model_server import Turn as Said

tools = Toolbox("sleeper", version="1")
SLEEP = ("sleeper_sleep", "{}")
#: Of this very sleeper, not of the question itself.
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%%of a sleeper%%'"


@tools.read(phrases=("sleep for a minute",))
async def sleep(db: Database) -> Result:
    """Sleep for a minute, in the database."""
    await db.rows("SELECT pg_sleep(60), 'of a sleeper'", statement_ms=60_000)
    return Result(summary="It slept.")


@tools.read(phrases=("say who is there",))
async def look(db: Database) -> Result:
    """Say which session of the server answers."""
    found = await db.one("SELECT pg_backend_pid() AS pid")
    return Result(summary=f"session {found['pid']} answers")


class Sleeper:
    """PostgreSQL's own connections, with two tools of a test."""

    name = "sleeper"
    version = "1"
    extra = ""
    toolbox = tools
    describe = staticmethod(postgresql.describe)
    redactions = staticmethod(postgresql.redactions)
    connect = staticmethod(postgresql.connect)


@contextmanager
def host(store_url: str, dsn: str, server: Server, **settings: Any) -> Iterator[OpsAgent]:
    with OpsAgent(store_url, "openai:gpt-test", model_base_url=f"{server.url}/v1", **settings) as ops:
        ops.runtime.plugins.add(Sleeper())
        ops.attach("sleeper", "shop", environment="development", dsn=dsn)
        yield ops


@pytest.fixture
def dsn(database18: str) -> str:
    return database18


def asleep(dsn: str) -> int:
    """How many statements of the tool run in the server."""
    return int(value(dsn, ACTIVE))


@contextmanager
def interruptible() -> Iterator[None]:
    """A shell that starts something in the background lets it ignore Ctrl-C; a notebook's kernel does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def told(ops: OpsAgent, turn: Turn) -> list[tuple[str, str]]:
    return [(message.role, message.text.partition("\n")[0].strip()) for message in ops.messages(turn.session_id)]


def test_cancelling_a_turn_ends_its_statements_in_the_server_and_keeps_what_was_said(store_url: str, dsn: str) -> None:
    """Two calls at once: both are gone from pg_stat_activity, recorded as cancelled, and the next turn works."""
    script = (Said("Looking at it.", calls=(SLEEP, SLEEP)), Said(calls=(("sleeper_look", "{}"),)), Said("All is well."))
    with serving(*script) as server, host(store_url, dsn, server) as ops:
        turn = ops.ask("sleep")
        eventually(lambda: asleep(dsn) == 2)
        started = time.monotonic()
        assert turn.cancel()
        eventually(lambda: asleep(dsn) == 0)
        assert time.monotonic() - started < 20  # not the minute that they would have taken
        eventually(lambda: turn.state == "cancelled")
        assert told(ops, turn) == [
            ("user", "sleep"), ("assistant", "Looking at it."),
            ("tool", "sleeper.sleep on shop: cancelled"), ("tool", "sleeper.sleep on shop: cancelled"),
        ]  # fmt: skip
        outcomes = ops.audit(session=turn.session_id, status="cancelled")
        assert list(outcomes["type"]).count("call.outcome") == 2
        assert len(server.requests) == 1
        assert ops.ask("and now?").text == "All is well."
        assert server.faults == []


def test_cancelling_in_mid_answer_hangs_up_on_the_model(store_url: str, dsn: str) -> None:
    """The provider notices that nobody listens any more; the part that was heard is in the transcript, once."""
    endless = Said(" ".join(f"word{number}" for number in range(100_000)), pause=0.01)
    with serving(endless, Said("Here.")) as server, host(store_url, dsn, server) as ops:
        turn = ops.ask("speak")
        eventually(lambda: "word5 " in turn._turn.text)
        assert turn.cancel()
        eventually(lambda: turn.state == "cancelled")
        eventually(lambda: server.hung_up == 1)
        kept = ops.messages(turn.session_id)[-1]
        assert (kept.role, kept.partial) == ("assistant", True)
        assert kept.text.startswith("word0 word1 word2")
        assert kept.text == turn.said.strip()
        assert ops.ask("are you there?").text == "Here."
        assert server.requests[-1]["messages"][-2]["content"].startswith("word0 word1")


def test_a_turn_at_its_limit_of_time_ends_its_statement_too(store_url: str, dsn: str) -> None:
    """The person is told which limit it was, and how to go on; the call has its end in transcript and audit."""
    script = (Said("Here."), Said("Looking.", calls=(SLEEP,)), Said("Here."))
    with serving(*script) as server, host(store_url, dsn, server, turn_seconds=6) as ops:
        assert ops.ask("are you there?").text == "Here."  # from here on the model is known to be quick
        turn = ops.ask("sleep")
        eventually(lambda: asleep(dsn) == 1)
        eventually(lambda: turn.state == "failed")
        assert asleep(dsn) == 0
        assert isinstance(turn.error, TurnLimit)
        assert "6 seconds" in str(turn.error)
        assert "go on" in turn.error.hint
        [answer] = [message for message in ops.messages(turn.session_id) if message.role == "tool"]
        assert answer.calls[0].status == "cancelled"
        assert "cancelled" in list(ops.audit(session=turn.session_id)["status"])
        assert ops.ask("go on").text == "Here."


def test_an_interrupt_in_the_waiting_cell_cancels_the_turn(store_url: str, dsn: str) -> None:
    """The stop button of a notebook, or Ctrl-C in a terminal, while the answer is waited for."""
    with serving(Said("Looking.", calls=(SLEEP,))) as server, host(store_url, dsn, server) as ops:
        turn = ops.ask("sleep")
        eventually(lambda: asleep(dsn) == 1)
        stop = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        stop.start()
        with interruptible(), pytest.raises(KeyboardInterrupt):
            turn.text  # noqa: B018  reading it waits
        eventually(lambda: asleep(dsn) == 0)
        eventually(lambda: turn._turn.state == "cancelled")
