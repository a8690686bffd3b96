"""The parameters of a runbook: plain values in one tagged cell, given anew by a cell below it, as papermill does.

A parameter whose name begins with ``secret_`` is secret: its value is read from an environment variable by the kernel, is
struck out of everything that is shown or kept, and is written nowhere.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from opsagent_jupyter.errors import ConfigError, RunbookMalformed, SecretInClear
from opsagent_jupyter.runbooks.cells import Cell, Notebook, code, source
from opsagent_jupyter.runbooks.steps import run_name

SECRET = "secret_"  # noqa: S105  # how names begin
#: What papermill tags the cell with that it puts below the parameters.
INJECTED = "injected-parameters"


def tagged(book: Notebook, tag: str) -> int | None:
    """The place of the first cell with a tag."""
    for number, cell in enumerate(book["cells"]):
        if tag in cell.get("metadata", {}).get("tags", []):
            return number
    return None


def declared(book: Notebook) -> dict[str, Any]:
    """The parameters with their values, those that were given among them; ``RunbookMalformed`` for what is no plain value."""
    values: dict[str, Any] = {}
    for tag in ("parameters", INJECTED):
        place = tagged(book, tag)
        if place is not None:
            values |= assigned(source(book["cells"][place]))
    return values


def assigned(text: str) -> dict[str, Any]:
    """The names with the plain values that a cell gives them; a secret one is empty."""
    values = {}
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
                values[name] = "" if name.startswith(SECRET) else ast.literal_eval(statement.value)
    except (SyntaxError, ValueError):
        raise RunbookMalformed(
            "The parameters cell holds more than plain values.", hint="Write name = value, one a line."
        ) from None
    return values


def parse(words: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """``name=value`` words as parameters of the kinds that the runbook declares; ``ConfigError`` names those it has."""
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            raise ConfigError(
                f"The runbook has no parameter {name!r}." if equals else f"{word!r} gives no value.",
                hint=f"Give name=value; it takes: {', '.join(sorted(known))}.",
            )
        given[name] = _variable(name, text) if name.startswith(SECRET) else _kind(name, text, known[name])
    return given


def _variable(name: str, text: str) -> str:
    found = re.fullmatch(r"env:([A-Za-z_]\w*)", text)
    if found is None:  # perhaps the secret itself: it is not repeated
        raise SecretInClear(
            f"{name} is a secret, and a command line is seen by others.",
            hint=f"Put it into an environment variable and give its name: -p {name}=env:VARIABLE.",
        )
    if not os.environ.get(found[1]):
        raise ConfigError(f"The variable {found[1]} is not set.", hint=f"Set {found[1]} before running the runbook.")
    return text


def _kind(name: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (SyntaxError, ValueError):
        value = None
    numbers = (int, float)
    fits = type(value) is type(default) or (type(value) in numbers and type(default) in numbers)
    if not fits:
        raise ConfigError(f"The parameter {name} takes a {type(default).__name__}, for example {default!r}.")
    return value


def inject(book: Notebook, given: Mapping[str, Any]) -> None:
    """Put the given values into a cell below the parameters, in the place of one that is there."""
    lines = ["# Parameters", *(f"{name} = {_written(name, value)}" for name, value in given.items())]
    cell = code(INJECTED, "\n".join(lines), tags=(INJECTED,))
    place, old = tagged(book, "parameters"), tagged(book, INJECTED)
    if place is None:
        raise RunbookMalformed("The runbook has no cell that is tagged parameters.")
    cells: list[Cell] = book["cells"]
    if old is not None:
        cells[old] = cell
    else:
        cells.insert(place + 1, cell)


def given_before(book: Notebook) -> dict[str, Any]:
    """What an earlier pass of this run was given."""
    place = tagged(book, INJECTED)
    text = source(book["cells"][place]) if place is not None else ""
    secret = re.findall(rf"^({SECRET}\w*) = __import__\(\"os\"\)\.environ\['(\w+)'\]$", text, re.MULTILINE)
    return assigned(text) | {name: f"env:{variable}" for name, variable in secret}


def _written(name: str, value: Any) -> str:
    if name.startswith(SECRET) and value:
        return f'__import__("os").environ[{str(value).removeprefix("env:")!r}]'
    return repr(value)


def secrets(book: Notebook) -> list[str]:
    """The values of the secret parameters as this process has them, to be struck out of what is written."""
    place = tagged(book, INJECTED)
    text = source(book["cells"][place]) if place is not None else ""
    names = re.findall(rf"^{SECRET}\w* = __import__\(\"os\"\)\.environ\['(\w+)'\]$", text, re.MULTILINE)
    return [value for value in map(os.environ.get, names) if value]


def named_run(values: Mapping[str, Any]) -> str:
    """The name of the run that these parameters make, unless they name one themselves."""
    plain = {
        name: str(value)
        for name, value in values.items()
        if not name.startswith((SECRET, "runbook_")) and value is not None
    }
    return str(values.get("runbook_run") or "") or run_name(plain)
