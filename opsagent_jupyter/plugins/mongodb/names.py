"""Names as a person or a model writes them, resolved to the one object they mean; what is not found is refused.

A command on a collection that does not exist is often no error, and some make it: so every tool resolves first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from opsagent_jupyter.errors import DatabaseError, InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.names import near
from opsagent_jupyter.plugins.mongodb import failures
from opsagent_jupyter.plugins.mongodb.connection import Database, Document

#: Databases of the server itself: read tools may look, changing tools may not.
OWN = ("admin", "local", "config")
VIEW, TIME_SERIES = "view", "timeseries"
#: Bytes of a namespace (database.collection) and of a database's name.
LONGEST, LONGEST_DATABASE = 255, 63


@dataclass(frozen=True)
class Collection:
    """A collection, view or time series that exists."""

    database: str
    name: str
    kind: str
    """collection, view or timeseries."""
    uuid: str
    """Its identity: another collection of the same name has another. Empty for a view, or without the right to see it."""
    options: Mapping[str, Any]
    at_home: bool = False
    """Whether it is in the database that names without one mean."""

    @property
    def full(self) -> str:
        """``database.collection``."""
        return f"{self.database}.{self.name}"

    @property
    def shown(self) -> str:
        """As a person writes it on this connection."""
        return self.name if self.at_home else self.full

    @property
    def is_view(self) -> bool:
        return self.kind == VIEW

    @property
    def is_system(self) -> bool:
        return self.name.startswith("system.") or self.database in OWN


@dataclass(frozen=True)
class Index:
    """An index as ``listIndexes`` has it; one that is still being built is listed too."""

    name: str
    key: tuple[tuple[str, Any], ...]
    """Fields with their direction or kind, in order."""
    spec: Mapping[str, Any]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(field for field, _ in self.key)

    @property
    def written(self) -> str:
        """The key as a person writes it: ``{cust: 1, ts: -1}``."""
        return written_key(self.key)

    def option(self, name: str) -> Any:
        return self.spec.get(name)


def written_key(key: Iterable[tuple[str, Any]]) -> str:
    """An index key as a person writes it: ``{cust: 1, ts: -1}``."""
    parts = [f"{field}: {int(kind) if isinstance(kind, int | float) else kind}" for field, kind in key]
    return "{" + ", ".join(parts) + "}"


# -- databases


async def databases(db: Database) -> list[str]:
    """The databases that this user may see, those of the server itself left out."""
    found = await db.command("admin", {"listDatabases": 1, "nameOnly": True})
    return sorted(each["name"] for each in found["databases"] if each["name"] not in OWN)


async def database(db: Database, text: str = "", argument: str = "database") -> str:
    """Resolve the name of a database; without a name the one of the connection string, or the only one there is."""
    found = await db.command("admin", {"listDatabases": 1, "nameOnly": True})
    known: list[str] = sorted(each["name"] for each in found["databases"])
    name = text or db.server.database
    if name:
        if name in known:
            return name
        raise InvalidArguments(
            f"There is no database {name!r}{near(name, known)}.",
            hint="Names are case-sensitive. list_collections shows what is there.",
            path=argument,
        )
    own = [each for each in known if each not in OWN]
    if len(own) == 1:
        return own[0]
    raise InvalidArguments(
        f"Which database? {'There is ' + ', '.join(own) if own else 'There is none yet'}.",
        hint="Give database=NAME, or attach with mongodb://host/NAME.",
        path=argument,
    )


async def home(db: Database) -> str:
    """The database that names without one mean; empty when there is none."""
    if db.server.database:
        return db.server.database
    own = await databases(db)
    return own[0] if len(own) == 1 else ""


# -- collections


async def collections(db: Database, database: str, name: str = "") -> list[Collection]:
    """The collections of a database by name, or the one of that name; without the right to all, those that may be read."""
    only: Document = {"filter": {"name": name}} if name else {}
    try:
        found = await db.documents(database, {"listCollections": 1, **only})
    except MissingRight:
        allowed = {"nameOnly": True, "authorizedCollections": True}
        found = await db.documents(database, {"listCollections": 1, **only, **allowed})
    at_home = database == await home(db)
    return sorted((_collection(database, each, at_home=at_home) for each in found), key=lambda each: each.name)


def _collection(database: str, row: Document, *, at_home: bool) -> Collection:
    return Collection(
        database, row["name"], row.get("type", "collection"), uuid_of(row), row.get("options", {}), at_home
    )


def uuid_of(row: Document) -> str:
    """The UUID of a row of ``listCollections`` as text; the driver gives it as binary data."""
    found = row.get("info", {}).get("uuid")
    if found is None:
        return ""
    return str(UUID(bytes=bytes(found)) if isinstance(found, bytes) else found)


async def collection(
    db: Database, text: str, database_name: str = "", *, views: bool = True, argument: str = "collection"
) -> Collection:
    """Resolve the name of a collection: ``orders`` or ``shop.orders``; ``InvalidArguments`` with near matches.

    ``views=False`` refuses views too, for tools that need stored documents. A name with dots is tried as a whole first.
    """
    if not text or "\0" in text:
        raise InvalidArguments("A collection needs a name without NUL.", path=argument)
    found = await _found(db, text, database_name, argument)
    if found.is_view and not views:
        on = found.options.get("viewOn", "")
        raise InvalidArguments(
            f"{found.shown} is a view{f' of {on}' if on else ''} and has no documents or indexes of its own.",
            hint=f"Name the collection {on}." if on else None,
            path=argument,
        )
    return found


async def _found(db: Database, text: str, database_name: str, argument: str) -> Collection:
    head, _, rest = text.partition(".")
    own = [each["name"] for each in (await db.command("admin", {"listDatabases": 1, "nameOnly": True}))["databases"]]
    qualified = not database_name and bool(rest) and head in own
    if qualified and (not await home(db) or not await _named(db, await home(db), text)):
        place, name = head, rest
    else:
        place, name = await database(db, database_name), text
    for each in await _named(db, place, name):
        return each
    known = [each.name for each in await collections(db, place) if not each.is_system]
    raise InvalidArguments(
        f"There is no collection {name!r} in database {place}{near(name, known)}.",
        hint="Names are case-sensitive; write database.collection for another database.",
        path=argument,
    )


async def _named(db: Database, database: str, name: str) -> Sequence[Collection]:
    return [each for each in await collections(db, database, name) if each.name == name]


def check_changeable(collection: Collection) -> None:
    """Refuse to change what belongs to the server itself, and names that no command can be aimed at safely."""
    if collection.database in OWN:
        raise PreconditionFailed(
            f"{collection.full} belongs to the server: {collection.database} is not changed from here.",
            hint="Use mongosh for maintenance of admin, local and config.",
        )
    if collection.name.startswith("system.") or "$" in collection.name:
        raise PreconditionFailed(
            f"{collection.full} is a collection of the server itself and is not changed from here.",
            hint="Change the collection that it belongs to.",
        )


# -- indexes


async def indexes(db: Database, collection: Collection) -> list[Index]:
    """The indexes of a collection as its primary has them, ``_id_`` first, those being built included."""
    try:
        found = await db.documents(collection.database, {"listIndexes": collection.name})
    except DatabaseError as error:
        if failures.code_in(error) == failures.NAMESPACE_NOT_FOUND:
            raise InvalidArguments(f"There is no collection {collection.full} any more.", path="collection") from error
        raise
    return [Index(each["name"], tuple(each["key"].items()), each) for each in found]


async def index(db: Database, collection: Collection, text: str, argument: str = "index") -> Index:
    """Resolve an index of a collection by its name; ``InvalidArguments`` with near matches when there is none."""
    known = {each.name: each for each in await indexes(db, collection)}
    if text not in known:
        raise InvalidArguments(
            f"{collection.shown} has no index {text!r}{near(text, known)}.",
            hint="Names are case-sensitive; list_indexes shows them.",
            path=argument,
        )
    return known[text]
