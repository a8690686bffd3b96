"""The server extension: everything below ``<base_url>opsagent/`` of a Jupyter server, with one runtime behind it."""

from __future__ import annotations

from typing import Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, Float, Integer, Unicode

from opsagent_jupyter.api import local_actor
from opsagent_jupyter.config import load_settings
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.server.admission import Admission
from opsagent_jupyter.server.hosting import Hosting
from opsagent_jupyter.server.interface import by_path
from opsagent_jupyter.server.rates import Rates
from opsagent_jupyter.server.rest import Unknown, endpoint
from opsagent_jupyter.server.websocket import Socket, Sockets


class OpsAgentServer(ExtensionApp):
    """OpsAgent in a Jupyter server. Its settings are those of a kernel, for the runtime of this server."""

    name = "opsagent_jupyter"
    extension_url = "/lab"
    load_other_extensions = True

    store_url = Unicode(
        "", help="SQLAlchemy URL of the shared store; empty: a file in the Jupyter data directory."
    ).tag(config=True)
    model = Unicode("", help="offline, or provider:name.").tag(config=True)
    model_base_url = Unicode("", help="Base URL of an OpenAI-compatible or Ollama server.").tag(config=True)
    setup = Unicode("", help="personal, separated or team.").tag(config=True)
    policy_file = Unicode("", help="A JSON file of policy rules; they can only tighten.").tag(config=True)
    executes = Bool(default_value=True, help="Whether this server runs what was approved.").tag(config=True)
    requests_per_minute = Float(600, min=1, help="Requests and commands of one person in a minute.").tag(config=True)
    burst = Integer(120, min=1, help="Of these, how many at once.").tag(config=True)
    heartbeat = Float(25, min=0.1, help="Seconds between pings on a socket; proxies close what is silent.").tag(
        config=True
    )
    backlog = Integer(1000, min=1, help="Events that wait for a page that reads slowly, before it is cut off.").tag(
        config=True
    )
    stable_identities = Bool(
        default_value=None,
        allow_none=True,
        help="Whether two browsers of one person are one user. Not set: Jupyter's own identity providers name each"
        " browser anew, others (JupyterHub, OIDC) know their users.",
    ).tag(config=True)

    def initialize_handlers(self) -> None:
        """Put every route, the document, the socket and the refusal of the rest below ``opsagent/``."""
        self.hosting = Hosting(self.open_runtime)
        self.sockets = Sockets(self.heartbeat, self.backlog)
        rates = Rates(self.requests_per_minute, self.burst)
        admission = Admission(self.hosting, rates, stable=self.stable_identities)
        given = {"admission": admission}
        self.handlers.extend(
            [
                *((rf"/opsagent/api/{group[0].pattern}", endpoint(group), given) for group in by_path().values()),
                (r"/opsagent/ws", Socket, {**given, "sockets": self.sockets}),
                (r"/opsagent(?:/.*)?", Unknown, given),
            ]
        )

    def open_runtime(self) -> Runtime:
        """Make the runtime of this server; called on a thread of its own."""
        names = ("store_url", "model", "model_base_url", "setup", "policy_file")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return Runtime(load_settings(given), "server", local_actor("server"), executes=self.executes)

    async def stop_extension(self) -> None:
        """End in order when the server stops."""
        self.sockets.close()
        await self.hosting.close()
