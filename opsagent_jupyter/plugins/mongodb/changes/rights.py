"""What our own user may do, as the server computes it from all its roles: asked before a change is proposed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsagent_jupyter.errors import MissingRight
from opsagent_jupyter.plugins.mongodb import failures
from opsagent_jupyter.plugins.mongodb.connection import Database

#: The command that an action of a role belongs to, where a refusal names the command.
COMMANDS: Mapping[str, str] = {
    "createIndex": "createIndexes",
    "dropIndex": "dropIndexes",
    "killop": "killOp",
    "enableProfiler": "profile",
    "grantRole": "grantRolesToUser",
    "revokeRole": "revokeRolesFromUser",
    "viewUser": "usersInfo",
    "viewRole": "rolesInfo",
}


@dataclass(frozen=True)
class Rights:
    """Our user's privileges."""

    users: tuple[str, ...]
    """``name@database`` of everybody this connection is logged in as; nobody means that the server asks for no login."""
    roles: tuple[tuple[str, str], ...]
    """(role, database), those that come with other roles included."""
    privileges: Sequence[Mapping[str, Any]]

    def may(self, action: str, database: str, collection: str = "") -> bool:
        """Whether an action is allowed on a collection; without one, on all plain collections of the database."""
        return not self.users or allows(self.privileges, action, database, collection)

    def may_on_cluster(self, action: str) -> bool:
        return not self.users or any(
            _acts(each, action) and (each["resource"].get("cluster") or each["resource"].get("anyResource"))
            for each in self.privileges
        )

    def require(self, action: str, database: str, collection: str = "") -> None:
        """Raise ``MissingRight`` with the role that would do, unless the action is allowed."""
        if not self.may(action, database, collection):
            place = f"{database}.{collection}" if collection else database
            raise failures.missing_right(COMMANDS.get(action, action), place)

    def require_on_cluster(self, action: str) -> None:
        if not self.may_on_cluster(action):
            raise failures.missing_right(COMMANDS.get(action, action), "the cluster")


async def rights(db: Database) -> Rights:
    """Ask the server what this connection may do."""
    found = (await db.command("admin", {"connectionStatus": 1, "showPrivileges": True}))["authInfo"]
    return Rights(
        tuple(f"{each['user']}@{each['db']}" for each in found["authenticatedUsers"]),
        tuple((each["role"], each["db"]) for each in found["authenticatedUserRoles"]),
        found["authenticatedUserPrivileges"],
    )


def allows(privileges: Iterable[Mapping[str, Any]], action: str, database: str, collection: str = "") -> bool:
    """Whether privileges as the server writes them hold an action on a collection, or on all plain ones of a database."""
    return any(_acts(each, action) and _covers(each["resource"], database, collection) for each in privileges)


def _acts(privilege: Mapping[str, Any], action: str) -> bool:
    return action in privilege["actions"] or "anyAction" in privilege["actions"]


def _covers(resource: Mapping[str, Any], database: str, collection: str) -> bool:
    if resource.get("anyResource"):
        return True
    if "db" not in resource or resource["db"] not in ("", database):
        return False
    named = resource.get("collection", "")
    return named == collection or (named == "" and not collection.startswith("system."))


def lacks(error: MissingRight) -> str:
    """The right that a refusal is about, for the middle of a sentence."""
    return str(error.facts.get("right") or "a right")
