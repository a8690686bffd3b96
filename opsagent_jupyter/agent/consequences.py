"""What a change holds up while it runs and how it is taken back, in general; the card says it of the very change.

The facts are those that the tools put on their cards (``Plan.lock``, ``Plan.undo_note``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opsagent_jupyter.plugin import Tool

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Consequence:
    """Two sentences about one way of using a tool."""

    lock: str
    undo: str


UNKNOWN = Consequence("Its card says which locks it takes before anything runs.", "Its card says how it is taken back.")
GENTLE = "It takes SHARE UPDATE EXCLUSIVE on the table: reads and writes go on, other DDL and VACUUM wait"
NOTHING = "There is nothing to take back: no row is changed by it."
UNLOCKED = "It takes no lock that others wait for."
BRIEF = "It is exclusive on the collection for a moment."


def _create_index(arguments: Arguments) -> Consequence:
    undo = "Dropping the new index takes it back."
    if arguments.get("concurrently", True):
        return Consequence(f"{GENTLE}; it waits for transactions that are older than the build.", undo)
    return Consequence("It takes SHARE on the table: reads go on, writes wait until it is built.", undo)


def _drop_index(arguments: Arguments) -> Consequence:
    undo = "It is taken back by building the index again, which takes a full build; the card has the statement."
    if arguments.get("concurrently", True):
        return Consequence(f"{GENTLE}; it waits for transactions that use the index.", undo)
    return Consequence("It takes ACCESS EXCLUSIVE on the table for a moment: reads and writes wait.", undo)


def _vacuum(arguments: Arguments) -> Consequence:
    if arguments.get("full"):
        return Consequence("It takes ACCESS EXCLUSIVE on the table until it is done: reads and writes wait.", NOTHING)
    return Consequence(f"{GENTLE}.", NOTHING)


def _reindex(arguments: Arguments) -> Consequence:
    undo = "There is nothing to take back: the index holds the same as before."
    if arguments.get("concurrently", True):
        return Consequence(f"{GENTLE}.", undo)
    return Consequence(
        "It takes SHARE on the table and ACCESS EXCLUSIVE on the index: writes wait, and so does every new query.", undo
    )


def _kill(arguments: Arguments) -> Consequence:
    lock = "It takes no lock; what the session holds is given back."
    if arguments.get("mode") == "cancel":
        return Consequence(lock, "A cancelled statement cannot be brought back; its client may send it again.")
    return Consequence(lock, "A session cannot be brought back: its open transaction is rolled back.")


def _drop_index_of_collection(arguments: Arguments) -> Consequence:
    if arguments.get("hide") or arguments.get("unhide"):
        return Consequence(BRIEF, "Hiding and unhiding take each other back, at once.")
    return Consequence(BRIEF, "It is taken back by building the index again, which takes a full build.")


def _always(lock: str, undo: str) -> Callable[[Arguments], Consequence]:
    return lambda _: Consequence(lock, undo)


_TOLD: Mapping[str, Callable[[Arguments], Consequence]] = {
    "postgresql.create_index": _create_index,
    "postgresql.drop_index": _drop_index,
    "postgresql.vacuum_table": _vacuum,
    "postgresql.analyze_table": _always(f"{GENTLE}.", "Statistics cannot be put back; another ANALYZE replaces them."),
    "postgresql.reindex_table": _reindex,
    "postgresql.kill_connection": _kill,
    "postgresql.create_user": _always(UNLOCKED, "Dropping the role takes it back while the role owns nothing."),
    "postgresql.drop_user": _always(UNLOCKED, "It cannot be taken back: nobody can read the password of a role."),
    "postgresql.grant_permission": _always(UNLOCKED, "Revoking what is new takes it back."),
    "postgresql.revoke_permission": _always(UNLOCKED, "Granting what was taken gives it back."),
    "mongodb.create_index": _always(
        "It is exclusive on the collection only when the build begins and ends; reads and writes go on in between.",
        "Dropping the new index takes it back.",
    ),
    "mongodb.drop_index": _drop_index_of_collection,
    "mongodb.compact_collection": _always("It takes no lock that reads and writes wait for.", NOTHING),
    "mongodb.reindex_collection": _always(
        "It is exclusive on the collection until it is done: reads and writes wait.", NOTHING
    ),
    "mongodb.kill_operation": _always(
        "It takes no lock; the operation gives back what it holds.",
        "An operation cannot be brought back; its client may send it again.",
    ),
    "mongodb.set_profiling_level": _always(
        "It is exclusive on the database for a moment.", "Setting the former level takes it back."
    ),
    "mongodb.create_user": _always(UNLOCKED, "Dropping the user takes it back."),
    "mongodb.drop_user": _always(UNLOCKED, "It cannot be taken back: nobody can read the password of a user."),
    "mongodb.grant_roles": _always(UNLOCKED, "Revoking the roles takes it back."),
    "mongodb.revoke_roles": _always(UNLOCKED, "Granting the roles again gives them back."),
}


def consequence(tool: Tool, arguments: Arguments) -> Consequence:
    """What is true of this call; of a tool that nothing is known of, where it will be told."""
    found = _TOLD.get(tool.full_name)
    return found(arguments) if found else UNKNOWN
