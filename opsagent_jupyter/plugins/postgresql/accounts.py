"""The SQL that makes the two roles OpsAgent is best attached with: an observer and an operator. It is printed, never run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from opsagent_jupyter.errors import InvalidArguments
from opsagent_jupyter.plugins.postgresql.names import check_length
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.wording import listing, plural

if TYPE_CHECKING:
    from opsagent_jupyter.plugins.postgresql.connection import Database

#: Words with an underscore are no keywords, but for current_user and its like.
_BARE = re.compile(r"(?!current_|session_|system_)[a-z][a-z0-9]*(_[a-z0-9]+)+")

OBSERVER, OPERATOR = "opsagent_observer", "opsagent_operator"


@dataclass(frozen=True)
class Owner:
    """A role that owns tables in the database."""

    name: str
    tables: int
    superuser: bool


@dataclass(frozen=True)
class Ground:
    """What the roles depend on: the server's release, the database, its schemas, and who owns its tables."""

    version: str
    major: int
    database: str
    schemas: tuple[str, ...] = ()
    owners: tuple[Owner, ...] = ()


async def ground(db: Database) -> Ground:
    """Read it from the server."""
    row = await db.one(query("account_ground"))
    owners = tuple(Owner(each["name"], each["tables"], each["superuser"]) for each in row["owners"])
    return Ground(db.server.version, db.server.major, db.server.database, tuple(row["schemas"]), owners)


def account_sql(ground: Ground, observer: str = OBSERVER, operator: str = OPERATOR) -> str:
    r"""Return commands for psql that make both roles, each explained; their passwords are left to ``\password``."""
    if observer == operator:
        raise InvalidArguments("Observer and operator are two roles: give them two names.", path="operator")
    for name, argument in ((observer, "observer"), (operator, "operator"), (ground.database, "database")):
        _check(name, argument)
    template = files(__package__).joinpath("accounts.sql").read_text(encoding="utf-8")
    names = {"observer": _quoted(observer), "operator": _quoted(operator), "database": _quoted(ground.database)}
    return template.format(
        version=ground.version,
        reading="\n".join(_reading(ground, names["observer"])),
        working="\n".join(_working(ground, names["operator"])),
        owning="\n".join(_owning(ground, names["operator"])),
        making="\n".join(_making(ground, names["operator"])),
        **names,
    )


def _check(name: str, argument: str) -> None:
    """A line break would end the comment in which a name stands."""
    if not name or any(ord(letter) < 32 for letter in name) or (argument != "database" and name.startswith("pg_")):
        raise InvalidArguments(f"{name!r} cannot be the name of a role here.", path=argument)
    check_length(name, argument)


def _quoted(name: str) -> str:
    """A name as SQL reads it; bare only where no release has a keyword of that kind."""
    doubled = name.replace('"', '""')
    return name if _BARE.fullmatch(name) else f'"{doubled}"'


def _reading(ground: Ground, observer: str) -> Iterator[str]:
    if ground.major >= 14:
        yield "-- EXPLAIN needs SELECT on the tables of a statement."
        yield f"GRANT pg_read_all_data TO {observer};"
    else:
        yield "-- EXPLAIN needs SELECT on the tables of a statement; pg_read_all_data came with release 14."
        for schema in map(_quoted, ground.schemas):
            yield f"GRANT USAGE ON SCHEMA {schema} TO {observer};"
            yield f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {observer};"
            yield from _coming(ground, schema, observer)
    if ground.major < 15:
        yield "-- Up to release 14 everybody may make objects in schema public. To end that, for all roles:"
        yield "-- REVOKE CREATE ON SCHEMA public FROM PUBLIC;"


def _coming(ground: Ground, schema: str, observer: str) -> Iterator[str]:
    """Tables that are made later."""
    for owner in ground.owners:
        yield f"ALTER DEFAULT PRIVILEGES FOR ROLE {_quoted(owner.name)} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {observer};"


def _working(ground: Ground, operator: str) -> Iterator[str]:
    if ground.major >= 18:
        yield f"GRANT pg_signal_autovacuum_worker TO {operator};"
    if ground.major >= 17:
        yield "-- VACUUM, ANALYZE and REINDEX of every table, whoever owns it."
        yield f"GRANT pg_maintain TO {operator};"
    else:
        yield "-- VACUUM, ANALYZE and REINDEX need the owner's rights, too (pg_maintain came with release 17)."


def _owning(ground: Ground, operator: str) -> Iterator[str]:
    for owner in ground.owners:
        if not owner.superuser:
            yield f"GRANT {_quoted(owner.name)} TO {operator};  -- owns {plural(owner.tables, 'table')}"
    if above := [owner for owner in ground.owners if owner.superuser]:
        counts = listing([f"{owner.name} ({plural(owner.tables, 'table')})" for owner in above], 5)
        yield f"-- Not granted, for a member would be a superuser: {_one_line(counts)}."
        yield "-- Give those tables to an ordinary role first: ALTER TABLE … OWNER TO …;"
    if not ground.owners:
        yield f"-- There are no tables yet. Later: GRANT owner TO {operator};"


def _one_line(text: str) -> str:
    return "".join(letter if ord(letter) >= 32 else "?" for letter in text)


def _making(ground: Ground, operator: str) -> Iterator[str]:
    if ground.major >= 16:
        yield "-- It then has ADMIN OPTION on the roles that it makes. For a role that exists already:"
        yield f"-- GRANT some_role TO {operator} WITH ADMIN OPTION;"
    else:
        yield "-- Up to release 15 that is near to a superuser: it may change and drop every role that is not one."
