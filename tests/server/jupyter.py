"""A real Jupyter server below a base URL, in a process of its own, and those who talk to it: a browser, a program, a page."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.cookiejar import Cookie, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Self
from urllib.request import Request

import httpx
import websocket

from opsagent_jupyter import __version__
from opsagent_jupyter.demo.postgres import free_port
from tests.kernels import ROOT

BASE = "/user/someone/"
#: Extensions that tests have installed and this server does not need.
OTHERS = tuple(
    f"--ServerApp.jpserver_extensions={name}=False"
    for name in ("jupyterlab", "jupyter_lsp", "jupyter_server_terminals", "notebook_shim", "opsagent_jupyter")
)
RATES = ("--LedgerServer.requests_per_minute=6000000", "--LedgerServer.burst=1000000")


class Jupyter:
    """One Jupyter server with the ledger plugin, and settings, data and runtime folders of its own."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.origin}{BASE}opsagent/"
        self.store_url = environment.get("OPSAGENT_STORE_URL", f"sqlite:///{folder / 'store' / 'opsagent.db'}")
        self._talking = ExitStack()
        self._log = (folder / "jupyter.log").open("wb")
        self._process = subprocess.Popen(
            self._command(options), env=self._environment(environment), stdout=self._log, stderr=self._log, cwd=folder
        )
        self._await()

    def _command(self, options: tuple[str, ...]) -> list[str]:
        return [
            sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={BASE}",
            f"--ServerApp.root_dir={self.folder}", "--ServerApp.allow_unauthenticated_access=False",
            "--ServerApp.jpserver_extensions=tests.server.ledger_server=True", *OTHERS, *(options or RATES),
        ]  # fmt: skip

    def _environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        places = {
            "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
        }  # fmt: skip
        own = {name: str(self.folder / place) for name, place in places.items()}
        own |= {"JUPYTER_TOKEN": self.token, "OPSAGENT_STORE_URL": self.store_url, "OPSAGENT_LEASE_SECONDS": "3"}
        return {**os.environ, "PYTHONPATH": str(ROOT), **own, **environment}

    def _await(self) -> None:
        for _ in range(600):
            try:
                httpx.get(f"{self.origin}{BASE}api", timeout=2)
            except httpx.TransportError:
                assert self._process.poll() is None, self.log()
                time.sleep(0.1)
            else:
                return
        raise AssertionError(self.log())

    def log(self) -> str:
        """What the server wrote."""
        return (self.folder / "jupyter.log").read_text(errors="replace")

    @property
    def process(self) -> int:
        """The number of its process."""
        return self._process.pid

    # -- who talks to it ------------------------------------------------------------------------------------------

    def stranger(self) -> httpx.Client:
        """Somebody whom the server does not know."""
        return self._talking.enter_context(httpx.Client(base_url=self.url, timeout=30, verify=False))

    def program(self) -> httpx.Client:
        """Somebody who holds the token and nothing else: each request comes alone, without cookies."""
        client = self.stranger()
        client.headers["Authorization"] = f"token {self.token}"
        client.cookies.jar.set_policy(Forgetful())
        return client

    def browser(self, *, token: bool = False) -> httpx.Client:
        """A person who has logged in: cookies, the XSRF header and an origin; with ``token`` as JupyterLab sends it too."""
        client = self.stranger()
        client.get(f"{self.origin}{BASE}login").raise_for_status()
        client.get(f"{self.origin}{BASE}api/me?token={self.token}").raise_for_status()
        client.headers.update({"X-XSRFToken": client.cookies["_xsrf"], "Origin": self.origin})
        if token:
            client.headers["Authorization"] = f"token {self.token}"
        return client

    def page(self, person: httpx.Client | None = None, *, origin: str = "", token: bool = False, **more: Any) -> Page:
        """A page with an open socket: a logged-in person's, or a program's that only has the token."""
        query = f"?token={self.token}" if token or person is None else ""
        address = self.url.replace("http", "ws", 1) + f"ws{query}"
        cookies = cookies_of(person) if person else None
        socket = websocket.create_connection(address, origin=origin or self.origin, cookie=cookies, timeout=30, **more)
        return self._talking.enter_context(Page(socket))

    # -- what is there --------------------------------------------------------------------------------------------

    def attach(self, name: str = "books", server: str = "desk") -> dict[str, Any]:
        """Attach a ledger."""
        body = {"plugin": "ledger", "name": name, "environment": "development", "dsn": str(self.folder / f"{name}.db")}
        return done(self.program().post(f"api/servers/{server}/plugins", json=body))["instance"]

    def ask(self, text: str = "hello", name: str = "books", who: httpx.Client | None = None) -> dict[str, Any]:
        """Ask for a change that needs a person, and return the request."""
        body = {"tool": "add_mark", "arguments": {"text": text}}
        call = done((who or self.program()).post(f"api/servers/desk/plugins/{name}/execute", json=body))
        return done(self.program().get(f"api/approvals/{call['approval']}"))

    def stop(self) -> int:
        """End the server as an operator does, and return its exit code."""
        self._talking.close()
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(self.log()) from None
        finally:
            self._log.close()


class Page:
    """The near end of a socket."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self.socket = socket
        self.seen = 0

    def send(self, type: str, **fields: Any) -> None:
        """Send a command."""
        self.socket.send(json.dumps({"v": 1, "command": {"type": type, **fields}}))

    def hello(self, since: int = 0) -> dict[str, Any]:
        """Introduce the page, and return the answer."""
        self.send("hello", version=__version__, since=since)
        return self.until("hello")

    def next(self, timeout: float = 10) -> dict[str, Any]:
        """The next event."""
        self.socket.settimeout(timeout)
        kind, content = self.socket.recv_data()
        if kind == websocket.ABNF.OPCODE_CLOSE:
            raise Closed(int.from_bytes(content[:2], "big"), content[2:].decode())
        event: dict[str, Any] = json.loads(content)["event"]
        self.seen = max(self.seen, event["seq"])
        return event

    def until(self, type: str, timeout: float = 10, **fields: Any) -> dict[str, Any]:
        """The next event of a kind, with these values at its top."""
        limit = time.monotonic() + timeout
        while (left := limit - time.monotonic()) > 0:
            event = self.next(left)
            if event["type"] == type and all(event[name] == value for name, value in fields.items()):
                return event
        raise AssertionError(f"no {type}")

    def respond(self, request: Mapping[str, Any], decision: str = "approve", reason: str = "", **more: Any) -> None:
        """Decide a request as it was shown."""
        seen = {name: request[name] for name in ("id", "version", "digest")}
        self.send("approval:respond", decision=decision, reason=reason, **{**seen, **more})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Break the line without a good-bye."""
        self.socket.shutdown()


class Closed(Exception):
    """The server closed a socket, with this code and for this reason."""


class Forgetful(DefaultCookiePolicy):
    """Keeps no cookie."""

    def set_ok(self, cookie: Cookie, request: Request) -> bool:  # noqa: ARG002  # the library's
        return False


def cookies_of(client: httpx.Client) -> str:
    """A browser's cookies as the header that a WebSocket's handshake carries."""
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


def done(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer that is no refusal."""
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, str]:
    """The body of a refusal, which says what to do."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert set(answer.json()) == {"code", "message", "hint"}
    found: dict[str, str] = answer.json()
    return found


@contextmanager
def jupyter(folder: Path, *options: str, **environment: str) -> Iterator[Jupyter]:
    """A server for a while."""
    running = Jupyter(folder, *options, **environment)
    try:
        yield running
    finally:
        running.stop()


def soon(look: Callable[[], Any], seconds: float = 15) -> Any:
    """What a look finds, as soon as it finds something."""
    limit = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.05)
    return found
