"""The WebSocket ``<base_url>opsagent/ws``: the commands and events of ``protocol.py`` as JSON text, one socket per page.

A client that was cut off connects again and says ``hello`` with the last ``seq`` that it saw. A client that reads too
slowly is cut off with ``SLOW`` rather than left behind: what it missed is still in the store.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from opsagent_jupyter import protocol
from opsagent_jupyter.bridge import Bridge, Link
from opsagent_jupyter.errors import NotAuthorized, OpsAgentError, SessionRequired, TooManyRequests
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.server.admission import Admission
from opsagent_jupyter.server.identity import in_browser
from opsagent_jupyter.server.rights import Right, right_of

log = logging.getLogger("opsagent_jupyter")

#: Bytes of a command.
LARGEST_COMMAND = 512 * 1024
#: Characters of events that wait for a slow client.
BACKLOG = 16_000_000
#: Sockets that one person may have open.
SOCKETS = 64

#: Close codes: the client was too slow and should resume; OpsAgent cannot start, so try again later; the server stops.
SLOW = 4001
LATER = 1013
STOPPING = 1001


class Sockets:
    """The open sockets of a server, and how they are kept."""

    def __init__(self, heartbeat: float, backlog: int) -> None:
        self.heartbeat = heartbeat
        self.backlog = backlog
        self._open: dict[Socket, str] = {}

    def add(self, socket: Socket, actor: str) -> None:
        """Count a socket in; ``TooManyRequests`` when this person has enough."""
        if sum(owner == actor for owner in self._open.values()) >= SOCKETS:
            raise TooManyRequests(f"One person has at most {SOCKETS} connections.", seconds=10.0)
        self._open[socket] = actor

    def remove(self, socket: Socket) -> None:
        """Count a socket out."""
        self._open.pop(socket, None)

    def close(self) -> None:
        """Close them all: the server stops."""
        for socket in list(self._open):
            socket.close(STOPPING, "the server stops")


class Socket(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One page's socket. It lives on the server's loop; its link lives on the runtime's."""

    def initialize(self, admission: Admission, sockets: Sockets) -> None:
        self.admission = admission
        self._sockets = sockets
        self._link: Link | None = None
        self._sender: asyncio.Task[None] | None = None
        self._waiting: deque[str] = deque()
        self._size = 0
        self._filled = asyncio.Event()
        self._ended = False

    @property
    def ping_interval(self) -> float:  # seconds, as tornado takes it
        """Seconds between pings."""
        return self._sockets.heartbeat

    @property
    def ping_timeout(self) -> float:
        """Seconds in which a ping has to be answered."""
        return self._sockets.heartbeat

    @property
    def max_message_size(self) -> int:
        """Bytes of a message; a larger one closes the socket."""
        return LARGEST_COMMAND

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Open the socket for whoever may read."""
        if not await self.admission.may(self, Right.READ):
            raise HTTPError(403)
        try:
            self.actor = await self.admission.admit(self)
            self._sockets.add(self, self.actor.id)
        except TooManyRequests as error:
            self.set_header("Retry-After", str(int(error.seconds) + 1))
            raise HTTPError(429) from None
        await super().get(*args, **kwargs)

    async def open(self, *_: Any, **__: Any) -> None:
        """Connect the page with the runtime."""
        loop = asyncio.get_running_loop()
        self._sender = loop.create_task(self._send())
        self._in_browser = self.get_origin() is not None and await in_browser(self)
        operates = await self.admission.may(self, Right.OPERATE)
        try:
            self._runtime: Runtime = await self.admission.hosting.runtime()
        except OpsAgentError as error:
            await self.write_message(self._refusal(error, "hello", ""))
            self.close(LATER, error.code)
            return
        bridge = Bridge(self._runtime, self.actor, version("opsagent_jupyter"))

        def emit(event: protocol.Event) -> None:  # on the runtime's thread
            text = said(event)
            with suppress(RuntimeError):  # the server's loop has ended
                loop.call_soon_threadsafe(self._queue, text)

        self._link = bridge.connect(
            emit, operates=operates, crowded=lambda: len(self._waiting) > self._sockets.backlog // 2
        )

    async def on_message(self, message: str | bytes) -> None:
        """Take a command; they are taken one after another."""
        kind, about = "", ""
        try:
            self.admission.rates.take(self.actor.id)
            command = protocol.parse_command(message)
            kind, about = command.type, subject_of(command)
            await self._entitled(command, about)
        except OpsAgentError as error:
            self._queue(self._refusal(error, kind, about))
            return
        if self._link is not None:
            self._link.handle(command)

    async def _entitled(self, command: protocol.Command, about: str) -> None:
        right = right_of(command)
        if not await self.admission.may(self, right):
            raise NotAuthorized(f"You have no right to do that here: the resource is {right.resource}.")
        if right is Right.APPROVE and not self._in_browser:
            await self.admission.deny(self._runtime, self.actor, about, SessionRequired())

    def _refusal(self, error: OpsAgentError, command: str, about: str) -> str:
        text = self.admission.redact(error.message)
        return said(protocol.Failure(code=error.code, message=text, hint=error.hint, command=command, about=about))

    # -- sending --------------------------------------------------------------------------------------------------

    def _queue(self, text: str) -> None:
        if self._ended:
            return
        if len(self._waiting) >= self._sockets.backlog or self._size + len(text) > BACKLOG + LARGEST_COMMAND:
            self._cut()
            return
        self._waiting.append(text)
        self._size += len(text)
        self._filled.set()

    def _cut(self) -> None:
        """Let a client go that does not keep up; it resumes."""
        self._end()
        self.close(SLOW, "too slow: connect again and resume")

    async def _send(self) -> None:
        """Write what waits, one after another; the next is written when the last has left."""
        with suppress(WebSocketClosedError):
            while True:
                await self._filled.wait()
                while self._waiting:
                    text = self._waiting.popleft()
                    self._size -= len(text)
                    await self.write_message(text)
                self._filled.clear()

    def on_close(self) -> None:
        """Let go of the link."""
        self._end()
        self._sockets.remove(self)
        super().on_close()

    def _end(self) -> None:
        self._ended = True
        if self._link is not None:
            self._link.close()
        if self._sender is not None:
            self._sender.cancel()
        self._waiting.clear()
        self._size = 0


def said(event: protocol.Event) -> str:
    """An event as the text of a message."""
    return json.dumps(protocol.envelope(event), ensure_ascii=False)


def subject_of(command: protocol.Command) -> str:
    """The id that a command names."""
    return str(getattr(command, "id", "") or getattr(command, "session", "") or getattr(command, "call", ""))
