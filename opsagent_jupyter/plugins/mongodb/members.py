"""One question to every member of the deployment: who answers, and who does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from opsagent_jupyter.errors import MissingRight, OpsAgentError, TargetUnreachable
from opsagent_jupyter.plugins.mongodb.connection import REPLICA_SET, Database

T = TypeVar("T")
#: Seconds that a member which did not answer is left alone: a look at ten collections must not wait for it ten times.
SILENCE = 15.0
_silent: WeakKeyDictionary[Database, dict[str, tuple[float, TargetUnreachable]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What one member said."""

    member: str
    """host:port; the deployment itself when it is one server or seen through mongos."""
    found: T | None = None
    error: OpsAgentError | None = None


def members_of(db: Database) -> list[str]:
    """The members that can be asked one by one; an empty name stands for a deployment that is asked as a whole."""
    server = db.server
    return list(server.hosts) if server.topology == REPLICA_SET and not server.direct else [""]


async def everywhere(db: Database, ask: Callable[[str], Awaitable[T]]) -> list[Answer[T]]:
    """Ask every member at once. Raises only when none of them answered."""
    members = members_of(db)
    found = await asyncio.gather(*(_answer(db, ask, member) for member in members))
    failures = [answer.error for answer in found if answer.error]
    if len(failures) == len(found):
        raise next((error for error in failures if isinstance(error, MissingRight)), failures[0])
    return list(found)


async def _answer(db: Database, ask: Callable[[str], Awaitable[T]], member: str) -> Answer[T]:
    name, silent = member or db.server.hosts[0], _silent.setdefault(db, {})
    until, known = silent.get(member, (0.0, None))
    if known is not None and time.monotonic() < until:
        return Answer(name, error=known)
    try:
        return Answer(name, found=await ask(member))
    except TargetUnreachable as error:
        if member:
            silent[member] = time.monotonic() + SILENCE, error
        return Answer(name, error=error)
    except OpsAgentError as error:
        return Answer(name, error=error)


def silent_notes(answers: Sequence[Answer[T]]) -> tuple[str, ...]:
    """A note for each member that did not answer."""
    return tuple(f"{each.member} was not asked: {each.error.message}" for each in answers if each.error)


def one_member_note(db: Database) -> tuple[str, ...]:
    """A note when we see only one member of a set."""
    if db.server.topology == REPLICA_SET and db.server.direct:
        return ("Only this member was asked: the connection string says directConnection=true.",)
    return ()
