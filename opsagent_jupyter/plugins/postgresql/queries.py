"""The SQL of this plugin: one statement a file in ``sql/``, each tagged so that we find our own traces again."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg.sql import Composed

#: Stands inside every statement of ours; statistics of statements leave out what carries it.
TAG = "/* opsagent */"


@cache
def query(name: str) -> str:
    """Return the statement of ``sql/<name>.sql`` with the tag after its first word."""
    text = files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return tagged(re.sub(r"^(--[^\n]*\n)+", "", text).strip())


def tagged(statement: str) -> str:
    """Put the tag behind the first word, where no server strips it."""
    first, rest = statement.split(maxsplit=1)
    return f"{first} {TAG} {rest}"


def query_in(name: str, **identifiers: str) -> Composed:
    """Return a statement with names put in for its ``{placeholders}``, quoted as identifiers."""
    from psycopg.sql import SQL, Identifier

    return SQL(query(name)).format(**{key: Identifier(value) for key, value in identifiers.items()})
