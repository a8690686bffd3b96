"""Notebooks of format 4.5 as plain JSON: cells, files, and what OpsAgent keeps in their metadata."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from opsagent_jupyter.errors import RunbookError, RunbookMalformed

Cell = dict[str, Any]
Notebook = dict[str, Any]
#: The key in metadata, of a notebook and of a cell.
OURS = "opsagent"


def markdown(id: str, text: str) -> Cell:
    """A cell of prose."""
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": text}


def code(id: str, text: str, *, tags: tuple[str, ...] = (), **ours: Any) -> Cell:
    """A cell of code that has not run."""
    metadata: dict[str, Any] = {"tags": list(tags)} if tags else {}
    if ours:
        metadata[OURS] = ours
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": id,
        "metadata": metadata,
        "outputs": [],
        "source": text,
    }


def notebook(cells: list[Cell], **ours: Any) -> Notebook:
    """A notebook for the Python kernel."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, OURS: ours}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def source(cell: Mapping[str, Any]) -> str:
    """The text of a cell, which a file may hold as lines."""
    text = cell.get("source", "")
    return "".join(text) if isinstance(text, list) else str(text)


def ours(thing: Mapping[str, Any]) -> dict[str, Any]:
    """What OpsAgent keeps in the metadata of a notebook or a cell; empty when nothing."""
    kept = thing.get("metadata", {}).get(OURS, {})
    return kept if isinstance(kept, dict) else {}


def steps(book: Notebook) -> Iterator[tuple[int, Cell]]:
    """The cells that call a tool, with their places."""
    for number, cell in enumerate(book["cells"]):
        if cell.get("cell_type") == "code" and ours(cell).get("step"):
            yield number, cell


def read(path: Path) -> Notebook:
    """Read a runbook; ``RunbookMalformed`` when the file is none."""
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        listed = all(isinstance(cell, dict) and isinstance(cell.get("metadata", {}), dict) for cell in book["cells"])
        known = isinstance(ours(book)["runbook"], str)
    except OSError as error:
        raise RunbookError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RunbookMalformed(f"{path} is no runbook.") from None
    if not (listed and known):
        raise RunbookMalformed(f"{path} is no runbook.")
    return book if isinstance(book, dict) else {}


def write(path: Path, book: Notebook) -> None:
    """Write a notebook whole or not at all, so that a process that is killed leaves no half of one."""
    text = json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            file.write(text)
        Path(file.name).chmod(0o666 & ~_umask())
        Path(file.name).replace(path)
    except OSError as error:
        raise RunbookError(f"{path} cannot be written: {error.strerror}.") from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
