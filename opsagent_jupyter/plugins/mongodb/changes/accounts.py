"""Users and roles as the server knows them: who they are, what they may, and which of them are like a superuser."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from opsagent_jupyter.errors import InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Assessment, Json, Risk
from opsagent_jupyter.names import near
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.mongodb import names
from opsagent_jupyter.plugins.mongodb.changes.execution import Node, Reader
from opsagent_jupyter.plugins.mongodb.changes.rights import Rights, allows
from opsagent_jupyter.plugins.mongodb.connection import Database, Document
from opsagent_jupyter.plugins.wording import listing

ADMIN = "admin"
#: Databases that hold no users, and the one whose users have no password of the server.
NO_USERS = ("local", "config", "$external")
#: Every database, in what an administrator reaches.
EVERYWHERE = "*"

#: Built-in roles that are like a superuser, by what they allow; every role for any database is one too.
GRAVE: Mapping[str, str] = {
    "root": "may do everything",
    "__system": "may do everything",
    "__queryableBackup": "belongs to the server itself",
    "dbOwner": "owns its database and may grant itself anything on it",
    "userAdmin": "makes users and may grant itself any role of its database",
    "userAdminAnyDatabase": "makes users and may grant itself any role",
    "clusterAdmin": "administers the whole cluster",
    "clusterManager": "may reconfigure the whole cluster",
    "hostManager": "may shut down the server and kill anybody's operation",
    "backup": "reads everything, password hashes included",
    "restore": "writes everything, users included",
}
#: Built-in roles that are not; one that is unknown here counts as like a superuser.
MILD = ("read", "readWrite", "dbAdmin", "clusterMonitor", "enableSharding")
#: Built-in roles that exist only on admin.
ON_ADMIN = ("root", "__system", "clusterAdmin", "clusterManager", "clusterMonitor", "hostManager", "backup", "restore",
            "readAnyDatabase", "readWriteAnyDatabase", "dbAdminAnyDatabase", "userAdminAnyDatabase")  # fmt: skip
#: Actions of a privilege with which its holder can become anything.
POWERS = ("anyAction", "createUser", "grantRole", "createRole", "changePassword", "changeAnyPassword", "applyOps",
          "replSetReconfig", "shutdown", "setParameter", "internal", "impersonate", "forceUUID")  # fmt: skip

#: How a tool asks for a user that exists.
Named = Annotated[str, Arg("the user, as name or name@database", slot="user", example="reporting@shop")]


@dataclass(frozen=True, order=True)
class Role:
    """A role by name and database."""

    database: str
    name: str

    @property
    def written(self) -> str:
        return f"{self.name}@{self.database}"

    @property
    def document(self) -> Document:
        return {"role": self.name, "db": self.database}

    @property
    def gravity(self) -> str:
        """Why a built-in role is like a superuser, by its name alone; empty for others."""
        if self.name.endswith("AnyDatabase"):
            return GRAVE.get(self.name, "reaches every database")
        return GRAVE.get(self.name, "")

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Role:
        return cls(document["db"], document["role"])


def parsed(text: str, home: str) -> Role:
    """A role as a person writes it: ``readWrite`` of the user's own database, or ``read@reports``."""
    name, at, database = text.strip().partition("@")
    if not name or "\0" in text or bool(at) != bool(database):
        raise InvalidArguments(f"{text!r} is no role.", hint="Write readWrite, or read@reports.", path="roles")
    return Role(database or (ADMIN if name in ON_ADMIN else home), name)


def assessed(roles: Iterable[str]) -> Assessment:
    """The risk of giving or taking roles, by their names alone."""
    found = [parsed(role, "") for role in roles]
    grave = tuple(f"{role.name} {role.gravity}" for role in found if role.gravity)
    return Assessment(risk=Risk.CRITICAL if grave else Risk.HIGH, reasons=grave)


def written(roles: Iterable[Role]) -> str:
    return listing([role.written for role in sorted(roles)], 12) or "none"


# -- users


@dataclass(frozen=True)
class User:
    """A user that exists."""

    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.document["user"])

    @property
    def database(self) -> str:
        return str(self.document["db"])

    @property
    def written(self) -> str:
        return f"{self.name}@{self.database}"

    @property
    def id(self) -> str:
        """The server's own id of the user; another user of the same name has another."""
        found = self.document.get("userId")
        return bytes(getattr(found, "bytes", found)).hex() if found is not None else ""

    @property
    def roles(self) -> frozenset[Role]:
        """The roles that were granted to it directly."""
        return frozenset(Role.of(each) for each in self.document["roles"])

    @property
    def all_roles(self) -> frozenset[Role]:
        """Those that come with other roles included."""
        return self.roles | frozenset(Role.of(each) for each in self.document.get("inheritedRoles", ()))

    @property
    def bound(self) -> dict[str, Json]:
        """Its identity and roles, for the preconditions."""
        return {"user": self.written, "user_id": self.id, "roles": [role.written for role in sorted(self.roles)]}


async def place(db: Database, text: str, database: str, argument: str) -> tuple[str, str]:
    """(name, database) of a user as a person writes it: ``bob``, or ``bob@shop`` when there is a database shop."""
    name, where = text.strip(), database or db.server.database or ADMIN
    head, _, tail = name.rpartition("@")
    if head and not database and (tail in NO_USERS or tail in await _databases(db)):
        name, where = head, tail
    if not name or "\0" in name:
        raise InvalidArguments("A user needs a name without NUL.", path=argument)
    if where in NO_USERS:
        raise PreconditionFailed(
            f"Users of {where} are not changed from here.",
            hint="They log in by a certificate, LDAP or Kerberos."
            if where == "$external"
            else "They live in other databases.",
        )
    return name, where


async def _databases(db: Database) -> set[str]:
    return {ADMIN, *await names.databases(db)}


async def looked_up(reader: Reader, name: str, database: str) -> User | None:
    """A user with everything that it may; None when there is none."""
    look = {
        "usersInfo": {"user": name, "db": database},
        "showPrivileges": True,
        "showCustomData": True,
        "showAuthenticationRestrictions": True,
    }
    found = (await reader.read(database, look))["users"]
    return User(found[0]) if found else None


async def user(db: Database, at: Node, text: str, database: str, argument: str = "user") -> User:
    """Resolve a user; ``InvalidArguments`` with near matches when there is none."""
    name, where = await place(db, text, database, argument)
    if found := await looked_up(at, name, where):
        return found
    others = await everybody(at)
    if others is None:
        others = [User(each) for each in (await at.read(where, {"usersInfo": 1}))["users"]]
    elsewhere = [each.written for each in others if each.name == name]
    hint = f"There is {listing(elsewhere)}." if elsewhere else "Write name@database for a user of another database."
    raise InvalidArguments(
        f"There is no user {name!r} in database {where}{near(name, [each.name for each in others])}.",
        hint=hint,
        path=argument,
    )


async def everybody(at: Node) -> list[User] | None:
    """The users of all databases with their direct roles; None when these rights do not show them."""
    try:
        return [User(each) for each in (await at.read(ADMIN, {"usersInfo": {"forAllDBs": True}}))["users"]]
    except MissingRight:
        return None


# -- roles


@dataclass(frozen=True)
class Known:
    """Roles with what they allow, as far as these rights show it."""

    facts: Mapping[Role, Mapping[str, Any] | None]
    """None: these rights do not show the role."""

    def gravity(self, role: Role) -> str:
        """Why a role is like a superuser; empty when it is not. What cannot be seen counts as such."""
        if role.gravity:
            return role.gravity
        if role.database in ("local", "config"):
            return f"reaches {role.database}, which belongs to the server"
        facts = self.facts.get(role)
        if facts is None:
            return "" if role.name in MILD else "cannot be seen with these rights"
        if facts.get("isBuiltin"):
            return "" if role.name in MILD else "is a built-in role that is not known here"
        return _gravity_of(facts)

    def grave(self, roles: Iterable[Role]) -> tuple[str, ...]:
        """The reasons of all roles that are like a superuser: ``dbOwner@shop owns its database …``."""
        return tuple(f"{role.written} {why}" for role in sorted(roles) if (why := self.gravity(role)))

    def privileges(self, roles: Iterable[Role]) -> list[Mapping[str, Any]] | None:
        """What roles allow together; None when one of them cannot be seen."""
        found: list[Mapping[str, Any]] = []
        for role in roles:
            facts = self.facts.get(role)
            if facts is None:
                return None
            found += facts.get("inheritedPrivileges", facts.get("privileges", ()))
        return found

    def scopes(self, roles: Iterable[Role]) -> set[str]:
        """The databases whose users these roles administer, what they inherit included."""
        inherited = [Role.of(each) for role in roles for each in (self.facts.get(role) or {}).get("inheritedRoles", ())]
        return scopes([*roles, *inherited])


def _gravity_of(facts: Mapping[str, Any]) -> str:
    """Why a role that somebody has made is like a superuser."""
    for inherited in facts.get("inheritedRoles", ()):
        if Role.of(inherited).gravity:
            return f"contains {Role.of(inherited).written}, which {Role.of(inherited).gravity}"
    for each in facts.get("inheritedPrivileges", facts.get("privileges", ())):
        if each["resource"].get("anyResource"):
            return "reaches every resource of the server"
        if powers := sorted(set(each["actions"]) & set(POWERS)):
            return f"allows {listing(powers)}"
        if each["resource"].get("db") == "" and each["resource"].get("collection") == "":
            return "reaches every database"
    return ""


async def known(at: Node, roles: Collection[Role]) -> Known:
    """Read what roles allow; raises ``InvalidArguments`` for one that does not exist."""
    facts: dict[Role, Mapping[str, Any] | None] = {}
    for database in sorted({role.database for role in roles}):
        of_it = [role for role in roles if role.database == database]
        try:
            look = {"rolesInfo": [role.document for role in of_it], "showPrivileges": True, "showBuiltinRoles": True}
            found = {Role.of(each | {"role": each["role"]}): each for each in (await at.read(database, look))["roles"]}
        except MissingRight:
            facts |= dict.fromkeys(of_it)
            continue
        for role in of_it:
            if role not in found:
                await _refuse_unknown(at, role)
            facts[role] = found[role]
    return Known(facts)


async def _refuse_unknown(at: Node, role: Role) -> None:
    look = {"rolesInfo": 1, "showBuiltinRoles": True}
    there = [each["role"] for each in (await at.read(role.database, look))["roles"]]
    raise InvalidArguments(
        f"There is no role {role.name!r} in database {role.database}{near(role.name, there)}.",
        hint="Write role@database for a role of another database.",
        path="roles",
    )


def covered(wanted: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]) -> bool:
    """Whether privileges on collections are all among others."""
    return all(
        "db" in each["resource"]
        and all(
            allows(held, action, each["resource"]["db"], each["resource"].get("collection", ""))
            for action in each["actions"]
        )
        for each in wanted
    )


# -- who administers users


def scopes(roles: Iterable[Role]) -> set[str]:
    """The databases whose users these roles administer; ``*`` for all of them."""
    found = set()
    for role in roles:
        if role.name in ("root", "__system", "userAdminAnyDatabase"):
            found.add(EVERYWHERE)
        elif role.name in ("userAdmin", "dbOwner"):
            found.add(EVERYWHERE if role.database == ADMIN else role.database)
    return found


async def must_leave_an_administrator(at: Node, held: Rights, target: User, lost: set[str]) -> None:
    """Refuse when nobody would be left to administer the users of the databases that ``target`` gives up."""
    if not lost:
        return
    ours = {Role(database, name) for name, database in held.roles} if target.written not in held.users else set()
    left = scopes(ours)
    others = await everybody(at)
    for each in others or ():
        if each.written != target.written:
            left |= scopes(each.roles)
    orphaned = sorted(scope for scope in lost if EVERYWHERE not in left and scope not in left)
    if not orphaned:
        return
    what = "all databases" if EVERYWHERE in orphaned else listing(orphaned)
    if others is None:
        raise PreconditionFailed(
            f"{target.written} administers the users of {what}, and whether anybody else does cannot be seen.",
            hint="Attach a user with userAdminAnyDatabase and ask there.",
        )
    raise PreconditionFailed(
        f"{target.written} is the last one who administers the users of {what}.",
        hint="Grant userAdmin (or userAdminAnyDatabase on admin) to somebody else first.",
    )


def refuse_own(held: Rights, target: User, what: str) -> None:
    """Refuse to take something from the account that OpsAgent itself uses."""
    if target.written in held.users:
        raise PreconditionFailed(
            f"{target.written} is the user that OpsAgent itself is logged in as: {what}.",
            hint="Attach another user administrator and ask there.",
        )


async def database_of_users(db: Database, name: str) -> str:
    """Resolve the database of a new user; admin always is one."""
    return name if name == ADMIN else await names.database(db, name)
