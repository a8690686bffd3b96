"""Completion of ``%opsagent`` lines: words, options, databases, tools, arguments, requests, sessions and runbooks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsagent_jupyter.commands import words
from opsagent_jupyter.errors import OpsAgentError

if TYPE_CHECKING:
    from opsagent_jupyter.api import OpsAgent

#: Commands whose first word is the id of a request.
ON_REQUESTS = ("approve", "reject", "withdraw", "revoke", "resolve", "show", "reveal")


#: Words below ``runbook`` that take a file first, and how many files are offered.
ON_FILES = ("export", "run", "status", "watch", "verify", "seal", "sign", "signatures")
MOST_FILES = 200


def completions(ops: OpsAgent | None, line: str) -> list[str]:
    """What may stand where the cursor is; never slow, never an error."""
    parts = line.split(" ")[1:]
    if len(parts) <= 1:
        return sorted(words.commands)
    with suppress(OpsAgentError):
        return _after(ops, parts[0], parts[1:])
    return []


def _after(ops: OpsAgent | None, command: str, parts: list[str]) -> list[str]:
    group: Any = words.commands.get(command)
    if hasattr(group, "commands"):
        return _below(ops, group, parts)
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


def _below(ops: OpsAgent | None, group: Any, parts: list[str]) -> list[str]:
    """What may stand after ``runbook``, ``model`` or ``audit``: their words, then what each takes, or options."""
    if parts[0].startswith("-"):
        return _options_of(group)
    if len(parts) == 1:
        return sorted(group.commands)
    found = _of_runbook(ops, parts[0], parts[1:]) if group.name == "runbook" else None
    return _options_of(group.commands.get(parts[0])) if found is None else found


def _of_runbook(ops: OpsAgent | None, word: str, rest: list[str]) -> list[str] | None:
    """Files, signatures, parameters and names after a word below ``runbook``; None where options are wanted."""
    previous = rest[-2] if len(rest) > 1 else ""
    if previous in ("-p", "--parameter", "--bound"):
        return _parameters(rest[0])
    if previous in ("--on", "-o") and word in ("sign", "begin"):
        return [instance.name for instance in ops.instances()] if ops else []
    if previous in ("--server", "-s") and word in ("run", "begin"):
        return sorted({instance.server for instance in ops.instances()}) if ops else []
    if previous in ("--session", "-s") and word == "export":
        return _first(ops, "open")
    if len(rest) == 1 and word in ON_FILES and not rest[0].startswith("-"):
        return _notebooks(rest[0])
    return _signatures(ops) if len(rest) == 1 and word == "revoke" else None


def _signatures(ops: OpsAgent | None) -> list[str]:
    """Signatures that can still be taken back."""
    kept = ops.runtime.store.vettings() if ops else []
    return [vetting.id[:8] for vetting in kept if vetting.revoked_at is None]


def _notebooks(text: str) -> list[str]:
    """Notebooks and folders whose names begin so."""
    folder, found = Path(text).expanduser() if text.endswith("/") else Path(text).expanduser().parent, []
    with suppress(OSError):
        for number, path in enumerate(sorted(folder.iterdir())):
            if number >= MOST_FILES:
                break
            if not path.name.startswith(".") and (path.suffix == ".ipynb" or path.is_dir()):
                found.append(f"{text.rpartition('/')[0]}/{path.name}" if "/" in text else path.name)
    return found


def _parameters(file: str) -> list[str]:
    """The parameters of a runbook, ready for their values."""
    from opsagent_jupyter.runbooks import cells, parameters

    return [f"{name}=" for name in parameters.declared(cells.read(Path(file).expanduser()))]


def _options(command: str) -> list[str]:
    return _options_of(words.commands.get(command))


def _options_of(command: Any) -> list[str]:
    parameters = command.params if command else []
    return [option for parameter in parameters for option in parameter.opts if option.startswith("--")]


def _tool_options(ops: OpsAgent | None, command: str, parts: list[str]) -> list[str]:
    if command != "run" or ops is None:
        return []
    matches = [tool for tool in ops.tools() if parts[0] in (tool.name, tool.full_name)]
    return [f"--{name}" for tool in matches for name in tool.arguments.model_fields]
