"""The server extension with the ledger plugin, which has no entry point; it notes which routes the application has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tornado.routing import PathMatches

from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.server.extension import OpsAgentServer
from tests.ledger_plugin import plugin


class LedgerServer(OpsAgentServer):
    """OpsAgent in a Jupyter server, with one plugin more."""

    name = "ledger_server"

    def initialize(self) -> None:
        super().initialize()
        assert self.serverapp is not None
        found = sorted(patterns(self.serverapp.web_app.default_router))
        Path("routes.json").write_text(json.dumps([pattern for pattern in found if "opsagent" in pattern]))

    def open_runtime(self) -> Runtime:
        runtime = super().open_runtime()
        runtime.plugins.add(plugin)
        return runtime


def patterns(router: Any) -> Iterator[str]:
    """The path patterns of an application, wherever they are nested."""
    for rule in router.rules:
        if hasattr(rule.target, "rules"):
            yield from patterns(rule.target)
        elif isinstance(rule.matcher, PathMatches):
            yield rule.matcher.regex.pattern


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "tests.server.ledger_server", "app": LedgerServer}]
