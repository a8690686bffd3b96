"""Twenty pages, two hundred cuts at random moments: in the end every page knows what the store knows, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from opsagent_jupyter import __version__
from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Approval
from tests.ledger_plugin import plugin
from tests.server.jupyter import Jupyter, jupyter

PAGES = 20
CUTS = 200
CHANGES = 80


class Screen:
    """A page as JupyterLab keeps it: what it was told, and the seq up to which it knows everything."""

    def __init__(self, server: Jupyter, dice: random.Random) -> None:
        self.server = server
        self.dice = dice
        self.seen = 0
        self.told: list[int] = []
        self.states: dict[str, tuple[int, str]] = {}
        self.cuts = 0
        self.begun = asyncio.Event()
        self.socket: WebSocketClientConnection | None = None

    async def live(self) -> None:
        """Connect, listen until the line breaks, and come back."""
        while True:
            address = self.server.url.replace("http", "ws", 1) + f"ws?token={self.server.token}"
            self.socket = await websocket_connect(HTTPRequest(address, request_timeout=60, connect_timeout=60))
            try:
                await self.listen(self.socket)
            finally:
                self.socket.close()

    async def listen(self, socket: WebSocketClientConnection) -> None:
        """Say from where to go on, and take what comes."""
        await self.say("hello", version=__version__, since=self.seen)
        if not self.seen:
            await self.say("approval:subscribe")
        while (text := await socket.read_message()) is not None:
            self.hear(json.loads(text)["event"])

    async def say(self, type: str, **fields: Any) -> None:
        """Send a command; a line that has just been cut takes none."""
        assert self.socket is not None
        if self.socket.protocol is not None:
            await self.socket.write_message(json.dumps({"v": 1, "command": {"type": type, **fields}}))

    def hear(self, event: dict[str, Any]) -> None:
        """Take an event, as the screens' reducer does."""
        if event["type"] == "hello":
            assert event["resumed"] is (self.seen > 0)
            self.begun.set()
        elif event["seq"]:
            self.told.append(event["seq"])
        self.seen = max(self.seen, event["seq"])
        found = event.get("approvals") or ([event["approval"]] if isinstance(event.get("approval"), dict) else [])
        for approval in found:
            known = self.states.get(approval["id"], (0, ""))
            self.states[approval["id"]] = max(known, (approval["version"], approval["state"]))

    def known(self) -> dict[str, str]:
        """How every request stands, as far as this page knows."""
        return {key: state for key, (_, state) in self.states.items()}

    def cut(self) -> None:
        """Break the line in the middle of whatever it carries, without a good-bye."""
        if self.socket is not None and self.socket.protocol is not None and self.socket.protocol.stream is not None:
            self.socket.protocol.stream.close()
            self.cuts += 1


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A server of its own, with a ledger."""
    with jupyter(tmp_path_factory.mktemp("cuts")) as running:
        running.attach()
        yield running


def change(server: Jupyter, dice: random.Random) -> dict[str, str]:
    """Another host asks for changes and decides some of them; returns how every request stands in the end."""
    with OpsAgent(server.store_url, executes=False) as ops:
        ops.runtime.plugins.add(plugin)
        asked: list[Approval] = []
        for number in range(CHANGES):
            call = ops.run("ledger.add_mark", on="books", text=f"mark{number}")
            assert call.approval is not None
            asked.append(call.approval)
            if dice.random() < 0.6:
                ops.reject(asked.pop(dice.randrange(len(asked))).id)
        found = ops.runtime.store.approvals(limit=1000)
        assert {approval.state for approval in found} == {ApprovalState.PENDING, ApprovalState.REJECTED}
        return {approval.id: str(approval.state) for approval in found}


async def cut_at_random(screens: list[Screen], dice: random.Random, done: asyncio.Task[Any]) -> None:
    """Cut one page after another while the store changes, and afterwards until there were enough cuts."""
    while sum(screen.cuts for screen in screens) < CUTS or not done.done():
        dice.choice(screens).cut()
        await asyncio.sleep(dice.random() * 0.15)


async def run(server: Jupyter, seed: int) -> tuple[list[Screen], dict[str, str], int]:
    """The pages after the last cut, when they have caught up; how the store stands; and its newest seq."""
    screens = [Screen(server, random.Random(seed + number)) for number in range(PAGES)]
    lives = [asyncio.create_task(screen.live()) for screen in screens]
    await asyncio.gather(*(screen.begun.wait() for screen in screens))
    changing = asyncio.create_task(asyncio.to_thread(change, server, random.Random(seed)))
    await cut_at_random(screens, random.Random(seed), changing)
    truth = await changing
    head = int(server.program().get("api/health").json()["feed"])
    async with asyncio.timeout(60):
        while any(current(screen, truth) for screen in screens):
            for life in lives:
                if life.done():
                    life.result()
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)  # what was sent twice would come now
    for life in lives:
        life.cancel()
    await asyncio.gather(*lives, return_exceptions=True)
    return screens, truth, head


def current(screen: Screen, truth: dict[str, str]) -> bool:
    """Whether a page still lacks something."""
    return screen.known() != truth


def test_after_two_hundred_cuts_every_page_knows_what_the_store_knows(server: Jupyter):
    """No change is missed, none is told twice on a line or across lines, and all come in the feed's order."""
    screens, truth, head = asyncio.run(run(server, seed=20261123))
    assert sum(screen.cuts for screen in screens) >= CUTS
    assert len(truth) == CHANGES
    for screen in screens:
        assert screen.told == sorted(set(screen.told))
        assert screen.known() == truth
        assert screen.seen <= head
