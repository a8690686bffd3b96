"""Replies that the tests' own mongod cannot give, over the wire: each file says from where they are and of which server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bson import json_util
from mockupdb import MockupDB

CASES = Path(__file__).parents[1] / "cases"
HELLO = {"isWritablePrimary": True, "ismaster": True, "helloOk": True, "minWireVersion": 0, "maxWireVersion": 21}


class Replay:
    """A server that answers from a file, and keeps what it was asked."""

    def __init__(self, name: str) -> None:
        held = json.loads((CASES / f"{name}.json").read_text())
        assert held["source"]
        assert held["server"]
        self.replies = json_util.loads(json.dumps(held["replies"]))
        self.asked: list[dict[str, Any]] = []
        self.server = MockupDB()

    @property
    def uri(self) -> str:
        return f"mongodb://{self.server.host}:{self.server.port}/shop?directConnection=true&serverMonitoringMode=poll"

    def answer(self, request: Any) -> bool:
        command = dict(request.doc)
        name = next(iter(command))
        if name in ("ismaster", "isMaster", "hello"):
            request.replies({"ok": 1, **HELLO, **self.replies.get("hello", {})})
            return True
        self.asked.append(command)
        if name in self.replies:
            request.replies({"ok": 1, **self.replies[name]})
        else:
            request.replies({"ok": 0, "code": 59, "errmsg": f"no such command: '{name}'"})
        return True

    def sent(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.asked if next(iter(each)) == name]


@contextmanager
def replayed(name: str) -> Iterator[Replay]:
    """A replay that runs for a while."""
    replay = Replay(name)
    replay.server.autoresponds(replay.answer)
    replay.server.run()
    try:
        yield replay
    finally:
        replay.server.stop()
