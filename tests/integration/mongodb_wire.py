"""What travels between the plugin and a server: a relay that keeps every command, cuts, and restarts after a SIGKILL."""

from __future__ import annotations

import re
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import bson

from opsagent_jupyter.demo.mongod import EmbeddedMongod
from opsagent_jupyter.models import Plan
from opsagent_jupyter.plugins.mongodb import statements
from tests.mongo import eventually

OP_MSG = 2013
#: What the driver adds to a command, and the comment by which an operation of ours is found again.
ADDED = ("$db", "lsid", "$clusterTime", "$readPreference", "comment")


@dataclass
class Wire:
    """A relay in front of one server: keeps the commands that pass, and may cut instead of passing a reply on."""

    port: int
    commands: list[dict[str, Any]] = field(default_factory=list)
    cut: str = ""
    """The name of a command whose reply is kept back: the connection breaks after the server has run it."""
    _awaited: dict[int, str] = field(default_factory=dict)
    _sockets: list[socket.socket] = field(default_factory=list)

    def sent(self, name: str) -> list[dict[str, Any]]:
        """The commands of that name, whole."""
        return [each for each in self.commands if next(iter(each)) == name]

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                self._sockets += [client, server]
                for source, target, look in ((client, server, self._asked), (server, client, self._answered)):
                    threading.Thread(target=self._relay, args=(source, target, look), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, look: Any) -> None:
        with suppress(OSError):
            while message := _message(source):
                if not look(message):
                    break
                target.sendall(message)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _asked(self, message: bytes) -> bool:
        _, number, _, code = struct.unpack("<iiii", message[:16])
        if code == OP_MSG and message[20] == 0:
            command = bson.decode(message[21 : 21 + struct.unpack("<i", message[21:25])[0]])
            self.commands.append(command)
            self._awaited[number] = next(iter(command))
        return True

    def _answered(self, message: bytes) -> bool:
        _, _, answers, _ = struct.unpack("<iiii", message[:16])
        return not self.cut or self._awaited.get(answers) != self.cut

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 4)
    return head + _exactly(source, struct.unpack("<i", head)[0] - 4) if head else b""


def _exactly(source: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length:
        if not (part := source.recv(length - len(found))):
            return b""
        found += part
    return found


@contextmanager
def relayed(uri: str) -> Iterator[tuple[str, Wire]]:
    """The same deployment (one server) by way of a relay: its URI, and what passes."""
    place = re.search(r"127\.0\.0\.1:(\d+)", uri)
    assert place is not None
    wire = Wire(int(place[1]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=wire.serve, args=(listener,), daemon=True).start()
        try:
            yield uri.replace(place[0], f"127.0.0.1:{listener.getsockname()[1]}"), wire
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            wire.close()


def bare(command: dict[str, Any]) -> dict[str, Any]:
    """A command that was sent, without what the driver adds to every one."""
    return {name: value for name, value in command.items() if name not in ADDED}


def assert_sent_as_shown(wire: Wire, plan: Plan, **filled: Any) -> None:
    """What went over the wire is the approved text, field by field and in order, but for what is ``filled`` in."""
    (text,) = plan.statements
    database, shown = statements.read(text)
    (sent,) = wire.sent(next(iter(shown)))
    assert sent["$db"] == database
    assert str(sent["comment"]).startswith("opsagent ")
    expected = {**shown, **filled}
    assert bare(sent) == expected
    assert list(bare(sent)) == list(shown)


def kill_and_restart(server: EmbeddedMongod) -> None:
    """End the only member by SIGKILL, and start it again on the same data and port."""
    (member,) = server.members
    arguments = [str(each) for each in member.process.args]
    member.process.send_signal(signal.SIGKILL)
    member.process.wait(20)
    folder = server._living.path / member.name
    (folder / "mongod.lock").unlink(missing_ok=True)
    arguments[arguments.index("--port") + 1] = str(member.port)
    member.process = server._living.spawn(arguments, server._living.path / "again.log")
    eventually(lambda: _answers(member.port))


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def ended(process: subprocess.Popen[Any]) -> None:
    """SIGKILL, and wait until it is gone."""
    process.send_signal(signal.SIGKILL)
    process.wait(20)
