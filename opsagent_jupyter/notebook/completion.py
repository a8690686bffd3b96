"""Completion of ``%opsagent`` lines: words, options, databases, tools, arguments, requests and sessions."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from opsagent_jupyter.commands import words
from opsagent_jupyter.errors import OpsAgentError

if TYPE_CHECKING:
    from opsagent_jupyter.api import OpsAgent

#: Commands whose first word is the id of a request.
ON_REQUESTS = ("approve", "reject", "withdraw", "revoke", "resolve", "show", "reveal")


def completions(ops: OpsAgent | None, line: str) -> list[str]:
    """What may stand where the cursor is; never slow, never an error."""
    parts = line.split(" ")[1:]
    if len(parts) <= 1:
        return sorted(words.commands)
    with suppress(OpsAgentError):
        return _after(ops, parts[0], parts[1:])
    return []


def _after(ops: OpsAgent | None, command: str, parts: list[str]) -> list[str]:
    previous = parts[-2] if len(parts) > 1 else ""
    if previous in ("--on", "-o", "--instance") or (command in ("detach", "health") and len(parts) == 1):
        return [instance.name for instance in ops.instances()] if ops else []
    if previous in ("--server", "-s") and command != "run":
        return sorted({instance.server for instance in ops.instances()}) if ops else []
    if len(parts) == 1:
        names = _first(ops, command)
        if names:
            return names
    return [*_options(command), *_tool_options(ops, command, parts)]


def _first(ops: OpsAgent | None, command: str) -> list[str]:
    if ops is None:
        return []
    if command == "run":
        return [tool.name for tool in ops.tools()]
    if command in ON_REQUESTS:
        return [str(found)[:8] for found in ops.approvals()["id"]]
    if command in ("open", "close"):
        return [str(found)[:8] for found in ops.sessions()["id"]]
    if command in ("attach", "tools"):
        return list(ops.runtime.plugins.names())
    return []


def _options(command: str) -> list[str]:
    if command not in words.commands:
        return []
    return [
        option for parameter in words.commands[command].params for option in parameter.opts if option.startswith("--")
    ]


def _tool_options(ops: OpsAgent | None, command: str, parts: list[str]) -> list[str]:
    if command != "run" or ops is None:
        return []
    matches = [tool for tool in ops.tools() if parts[0] in (tool.name, tool.full_name)]
    return [f"--{name}" for tool in matches for name in tool.arguments.model_fields]
