"""The .sql files of the audit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path


@cache
def sql(name: str) -> str:
    """The text of a .sql file beside this module."""
    return (Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8")


def derive(more: str = "", source: str = "links") -> str:
    """The query that takes the typed columns out of the bodies of the chain's rows, and more expressions after them."""
    return sql("derive").replace("{more}", more).replace("{source}", source)


def quoted(path: Path) -> str:
    """A path as a text of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def parquet(paths: Sequence[Path]) -> str:
    """The rows of some files."""
    return f"read_parquet([{', '.join(map(quoted, paths))}])"
