"""Everything that hangs on a role, in every database of the server: what it owns, what it was granted, what would be lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from opsagent_jupyter.errors import ExecutionError, OpsAgentError, PreconditionFailed
from opsagent_jupyter.models import canonical, sha256
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.literals import who
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.wording import duration, listing, plural

#: Where the server keeps what belongs to no database: databases, tablespaces, subscriptions, memberships.
SHARED = ""
#: As pg_shdepend.deptype.
_OWNED, _POLICY, _INITIAL = "o", "r", "i"
#: Owned things that REASSIGN OWNED leaves, so that DROP OWNED takes them.
_LEFT = {"pg_default_acl": "default privileges", "pg_user_mapping": "user mapping"}
_NOUNS = {
    "pg_class": "table, view, index or sequence", "pg_proc": "function", "pg_namespace": "schema", "pg_type": "type",
    "pg_database": "database", "pg_tablespace": "tablespace", "pg_subscription": "subscription",
    "pg_default_acl": "default privilege", "pg_policy": "policy", "pg_foreign_server": "foreign server",
    "pg_user_mapping": "user mapping", "pg_largeobject_metadata": "large object", "pg_extension": "extension",
    "pg_foreign_data_wrapper": "foreign data wrapper", "pg_language": "language", "pg_auth_members": "membership granted",
    "pg_publication": "publication", "pg_event_trigger": "event trigger", "pg_statistic_ext": "statistics object",
}  # fmt: skip
_MANY = {
    "table, view, index or sequence": "tables, views, indexes or sequences",
    "policy": "policies",
    "membership granted": "memberships granted",
}


@dataclass(frozen=True)
class Dependency:
    """One object that a role owns, or on which it has rights."""

    class_: int
    object: int
    sub: int
    type: str
    catalog: str
    described: str = ""

    @property
    def moves(self) -> bool:
        """Whether REASSIGN OWNED gives it to another role."""
        return self.type == _OWNED and self.catalog not in _LEFT

    @property
    def noun(self) -> str:
        """What kind of object it is."""
        return _NOUNS.get(self.catalog, self.catalog)

    @property
    def loss(self) -> str:
        """What DROP OWNED takes away here."""
        if self.type == _POLICY:
            return f"its part in {self.described} (the policy goes when it is for nobody else)"
        if self.type == _OWNED:
            return f"{_LEFT.get(self.catalog, self.noun)}: {self.described}"
        if self.type == _INITIAL:
            return f"initial rights on {self.described}"
        return f"{'made by it: ' if self.catalog == 'pg_auth_members' else 'rights on '}{self.described}"


@dataclass(frozen=True)
class Place:
    """What hangs on a role in one database, or among the shared objects."""

    database: str
    found: tuple[Dependency, ...]
    grants: tuple[Row, ...] = ()
    """Grants of the role that need a word: those that DROP OWNED leaves, and those that it passed on."""

    @property
    def owned(self) -> list[Dependency]:
        return [each for each in self.found if each.moves]

    @property
    def lost(self) -> list[Dependency]:
        return [each for each in self.found if not each.moves]

    @property
    def losses(self) -> list[str]:
        """What DROP OWNED takes away here, others' rights that came from this role included."""
        passed_on = (
            f"{row['privileges']} on {row['object']} of {row['grantee']}, which the role passed on"
            for row in self.grants
            if not row["stuck"]
        )
        return [*(each.loss for each in self.lost), *passed_on]

    @property
    def stuck(self) -> list[Row]:
        """Grants that DROP OWNED would leave, so that the role could not be dropped."""
        return [row for row in self.grants if row["stuck"]]

    @property
    def fingerprint(self) -> str:
        """Changes whenever anything is added or taken away here."""
        return sha256(canonical([[e.class_, e.object, e.sub, e.type] for e in self.found]))

    @property
    def counted(self) -> str:
        """``3 tables, views, indexes or sequences and 1 function owned, 2 rights``."""
        kinds = Counter(each.noun for each in self.owned)
        owned = [plural(many, noun, _MANY.get(noun, "")) for noun, many in sorted(kinds.items())]
        parts = [f"{listing(owned, 6)} owned"] if owned else []
        parts += [plural(len(self.lost), "right or entry", "rights and entries")] if self.lost else []
        return listing(parts)

    @property
    def name(self) -> str:
        return f"database {self.database}" if self.database else "the shared catalogs"


async def places(reader: Reader, role: int) -> list[Place]:
    """Read what hangs on a role, by database; objects are not yet described."""
    found: dict[str, list[Dependency]] = defaultdict(list)
    for row in await reader.rows(query("shared_dependencies"), {"role": role}):
        item = Dependency(row["class"], row["object"], row["sub"], row["type"], row["catalog"])
        found[row["database"] or SHARED].append(item)
    return [Place(database, tuple(items)) for database, items in sorted(found.items())]


async def described(db: Database, found: Sequence[Place], role: int) -> list[Place]:
    """The same with every object as a person calls it; refuses when a database with objects in it cannot be reached."""
    known = {row["name"]: row for row in await db.rows(query("databases"))}
    return [await _described(db, place, known.get(place.database), role) for place in found]


async def _described(db: Database, place: Place, row: Row | None, role: int) -> Place:
    if place.database in (SHARED, db.server.database):
        return await _looked_up(db, place, role)
    _must_reach(db, place, row)
    try:
        async with db.elsewhere(place.database) as other:
            return await _looked_up(other, place, role)
    except ExecutionError as error:
        raise _unreachable(place, error.message) from error


def _must_reach(db: Database, place: Place, row: Row | None) -> None:
    if row is not None and not row["connects"]:
        raise _unreachable(place, "it does not take connections (ALLOW_CONNECTIONS false)")
    if row is not None and not row["allowed"]:
        raise _unreachable(place, f"role {db.server.role} lacks CONNECT on it")


def _unreachable(place: Place, why: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"Database {place.database} cannot be reached, and something in it depends on the role ({place.counted}): {why}",
        hint="Let our role connect to it: the role can only be dropped when nothing is left in any database.",
    )


async def _looked_up(db: Database, place: Place, role: int) -> Place:
    items = place.found
    values = {
        "classes": [each.class_ for each in items],
        "objects": [each.object for each in items],
        "subs": [each.sub for each in items],
        "types": [each.type for each in items],
    }
    try:
        rows = await db.rows(query("described_objects"), values)
        # shared objects are looked at with those of no database, the others in their own
        grants = await db.rows(query("held_grants"), {"role": role, "shared": place.database == SHARED})
    except OpsAgentError as error:
        raise _unreachable(place, error.message) from error
    names = {(row["class"], row["object"], row["sub"], row["type"]): row["described"] for row in rows}
    return Place(place.database, tuple(_named(each, names) for each in items), tuple(grants))


def _named(item: Dependency, names: dict[tuple[int, int, int, str], str | None]) -> Dependency:
    text = names.get((item.class_, item.object, item.sub, item.type)) or f"{item.noun} {item.object}"
    return Dependency(item.class_, item.object, item.sub, item.type, item.catalog, text)


async def holders(db: Database, found: Sequence[Place]) -> tuple[str, ...]:
    """The sessions that have a lock on something that is to change hands, one line each."""
    owned = [(place.database, each.object) for place in found for each in place.owned if each.catalog == "pg_class"]
    if not owned:
        return ()
    values = {"databases": [database for database, _ in owned], "relations": [oid for _, oid in owned]}
    return tuple(_holder(row) for row in await db.rows(query("holders_of"), values))


def _holder(row: Row) -> str:
    if row["pid"] is None:
        return f"a prepared transaction in database {row['database']}"
    state = f", {row['state']}" if row["state"] else ""
    age = f", transaction {duration(row['transaction'])} old" if row["transaction"] else ""
    place = f"in database {row['database']}{state}{age}, uses {plural(row['held'], 'object')} of it"
    return f"pid {row['pid']} ({who(row['role'], row['application'])}) {place}"


def lines(items: Sequence[str], limit: int) -> str:
    """Names in one line, with a count of what is not shown."""
    rest = len(items) - limit
    return "; ".join(items[:limit]) + (f"; and {rest} more" if rest > 0 else "")
