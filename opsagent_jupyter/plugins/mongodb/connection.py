"""The connection of one instance: reads with a time limit, changes that see their end, and cancelling in the server.

Every command carries ``comment: "opsagent <id>"``; by it our own operation is found in ``$currentOp``, to be killed when
its task is cancelled and to be told from other people's after a crash.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from opsagent_jupyter.errors import OpsAgentError, TargetUnreachable
from opsagent_jupyter.models import Catalog, Health, Json, new_id
from opsagent_jupyter.plugin import Limits
from opsagent_jupyter.plugins.mongodb import failures, uri

if TYPE_CHECKING:
    from pymongo import AsyncMongoClient

Document = dict[str, Any]
T = TypeVar("T")
Send = Callable[["AsyncMongoClient[Document]", Document], Awaitable[T]]

#: Seconds that one read may run in the server, and that its answer may take beyond.
READ_SECONDS, ANSWER_GRACE = 5.0, 3.0
#: Reads and changes of one instance at a time; the pool has two more places, for cancelling and probing.
READERS, CHANGERS = 4, 2
#: Seconds that a cancelled operation gets to end, and until it is killed again.
CANCEL_GRACE, CANCEL_AGAIN = 10.0, 0.25
#: Seconds until a member that does not answer counts as unreachable.
MEMBER_SECONDS = 3.0
MARK = "opsagent"

STANDALONE, REPLICA_SET, SHARDED = "standalone", "replica set", "sharded cluster"

#: Where the connection string says nothing. Reads go on without a primary; a poll leaves no operation that waits.
_DEFAULTS: Mapping[str, Any] = {
    "serverselectiontimeoutms": 5_000,
    "connecttimeoutms": 5_000,
    "servermonitoringmode": "poll",
    "readpreference": "primaryPreferred",
}
#: Options that only a whole set understands, and those that we set for one member ourselves.
_OF_A_SET = frozenset(
    (
        "replicaset", "directconnection", "loadbalanced", "readpreference", "readpreferencetags", "maxstalenessseconds",
        "srvservicename", "srvmaxhosts", "serverselectiontimeoutms", "connecttimeoutms", "servermonitoringmode",
    )
)  # fmt: skip
#: Nothing is sent twice by the driver: what may have run is not retried.
_FIXED: Mapping[str, Any] = {"retryWrites": False, "retryReads": False, "maxPoolSize": READERS + CHANGERS + 2}


@dataclass(frozen=True)
class Server:
    """What a connection learns of the deployment once; nothing here changes while it lives."""

    version: str
    number: tuple[int, ...]
    """As buildInfo.versionArray: (6, 0, 5)."""
    topology: str
    """STANDALONE, REPLICA_SET or SHARDED."""
    set_name: str
    hosts: tuple[str, ...]
    """Data-bearing members that the set tells everybody (hidden ones it does not), or the host we were given."""
    user: str
    """``name@database`` as it logged in; empty without authentication."""
    roles: tuple[str, ...]
    """``role@database``."""
    database: str
    """The database that the connection string names; empty when it names none."""
    direct: bool
    """Whether we talk to one member only (directConnection)."""

    @property
    def major(self) -> int:
        return self.number[0]


class Database:
    """A live connection to one instance."""

    def __init__(self, name: str, secret: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.server: Server
        self.secret = secret
        self._clients: dict[str, AsyncMongoClient[Document]] = {}
        self._readers: dict[str, asyncio.Semaphore] = {}
        self._changers = asyncio.Semaphore(CHANGERS)
        self._changing = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    @classmethod
    async def connect(cls, name: str, secret: str, limits: Limits) -> Database:
        """Connect once and learn what the deployment is; raises an ``ExecutionError``."""
        from opsagent_jupyter.plugins.mongodb.standing import learned

        uri.parse(secret)
        database = cls(name, secret, limits)
        try:
            database.server = await learned(database, uri.parse(secret))
        except BaseException:
            await database.close()
            raise
        return database

    # -- reading

    async def command(
        self,
        database: str,
        command: Mapping[str, Any],
        *,
        seconds: float = READ_SECONDS,
        member: str = "",
        action: str = "",
    ) -> Document:
        """Run one command that only reads, with a time limit in the server, and return its reply.

        ``member`` (host:port) asks that member of the set directly; ``action`` names the right for a refusal, where it
        is not the command's own name. Cancelling the task kills the operation on the server.
        """

        async def send(client: AsyncMongoClient[Document], document: Document) -> Document:
            reply = await client[database].command(document, read_preference=client.read_preference)
            return dict(reply)

        return await self._read(send, command, seconds, member, action)

    async def documents(
        self,
        database: str,
        command: Mapping[str, Any],
        *,
        limit: int = 5_000,
        seconds: float = READ_SECONDS,
        member: str = "",
        action: str = "",
    ) -> list[Document]:
        """Run a command that answers with a cursor, and return at most ``limit`` of its documents."""

        async def send(client: AsyncMongoClient[Document], document: Document) -> list[Document]:
            cursor = await client[database].cursor_command(
                document, read_preference=client.read_preference, comment=document["comment"]
            )
            found: list[Document] = []
            async with cursor:
                async for each in cursor:
                    found.append(each)
                    if len(found) >= limit:
                        break
            return found

        open_ended: Document = {"cursor": {}} if "aggregate" in command and "cursor" not in command else {}
        return await self._read(send, {**command, **open_ended}, seconds, member, action)

    async def _read(self, send: Send[T], command: Mapping[str, Any], seconds: float, member: str, action: str) -> T:
        document = stamped(command, seconds)
        client = self.client(member)
        async with self._readers.setdefault(member, asyncio.Semaphore(READERS)):
            with failures.translated(action):
                return await self._limited(send(client, document), client, document["comment"], seconds + ANSWER_GRACE)

    async def _limited(
        self, sending: Awaitable[T], client: AsyncMongoClient[Document], comment: str, seconds: float
    ) -> T:
        """Wait for an answer; a cancelled wait kills the operation on the server, a silent server is given up."""
        task = asyncio.ensure_future(sending)
        try:
            await asyncio.wait({task}, timeout=seconds)
            if not task.done():
                await self._end(task, client, comment, grace=0)
                raise failures.no_answer(seconds)
            return task.result()
        except asyncio.CancelledError:
            await self._end(task, client, comment)
            raise
        finally:
            await _abandoned(task)

    # -- changing

    @asynccontextmanager
    async def changing(self, *, member: str = "") -> AsyncIterator[Change]:
        """Lend the way to send one approved change, to the primary, or to ``member`` (host:port) for a change of one node.

        A connection that is closed meanwhile stays until the change has ended.
        """
        async with self._changers:
            client = self.client(member)
            self._changing += 1
            try:
                yield Change(self, client)
            finally:
                self._changing -= 1
                if self._closed and not self._changing:
                    await self._let_go()

    async def operations(self, comment: str, *, member: str = "") -> list[Document]:
        """Our own operations with this comment that run now, as ``$currentOp`` shows them."""
        return await self._commented(self.client(member), comment)

    # -- who and how

    async def identity(self) -> dict[str, Json]:
        """Return what tells this deployment from any other: its id, set name, hosts, topology, user, database, version."""
        from opsagent_jupyter.plugins.mongodb.standing import identity

        return await identity(self)

    async def health(self) -> Health:
        """Ask for a sign of life and the rights of the user."""
        from opsagent_jupyter.plugins.mongodb.standing import health

        return await health(self)

    async def catalog(self) -> Catalog:
        """Return databases, collections with their fields that indexes use, and indexes."""
        from opsagent_jupyter.plugins.mongodb.standing import catalog

        return await catalog(self)

    async def close(self) -> None:
        """Let go of every connection; a change that runs keeps its own until it has ended."""
        self._closed = True
        if not self._changing:
            await self._let_go()

    async def _let_go(self) -> None:
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()

    # -- the driver's clients

    def client(self, member: str = "") -> AsyncMongoClient[Document]:
        """The driver's client of the deployment, or of one member alone; made when first asked for."""
        if self._closed and not self._changing:
            raise TargetUnreachable(
                f"The connection to {self.name} was closed.", hint="Ask again: a new one is opened."
            )
        if member not in self._clients:
            self._clients[member] = self._opened(member)
        return self._clients[member]

    def _opened(self, member: str) -> AsyncMongoClient[Document]:
        uri.driver()
        from pymongo import AsyncMongoClient

        given = {key for key, _ in uri.parse(self.secret).options}
        options = {key: value for key, value in _DEFAULTS.items() if key not in given}
        text = self.secret
        if member:
            text = self._directed(member)
            seconds = {"serverselectiontimeoutms": MEMBER_SECONDS * 1000, "connecttimeoutms": MEMBER_SECONDS * 1000}
            options = {"directConnection": True, "servermonitoringmode": "poll", **seconds}
        with failures.translated():
            return AsyncMongoClient(text, appname=f"opsagent:{self.name}"[:128], **{**options, **_FIXED})

    def _directed(self, member: str) -> str:
        """The connection string with one member for its hosts; what only a whole set understands is left out."""
        parts = uri.parse(self.secret)
        login = f"{parts.login}@" if parts.login else ""
        options = dict.fromkeys((key, value) for key, value in parts.options if key not in _OF_A_SET)
        # what a seed list says by itself: TLS, and in its TXT record where users are kept
        implied = {"tls": "true", **({"authsource": "admin"} if login else {})} if parts.scheme == uri.SEEDED else {}
        known = {key for key, _ in options}
        pairs = [*options, *(pair for pair in implied.items() if pair[0] not in known)]
        query = "&".join(f"{key}={uri.quoted(value)}" for key, value in pairs)
        return f"{uri.PLAIN}{login}{member}/{uri.quoted(parts.database)}?{query}"

    # -- ending what runs

    async def _commented(self, client: AsyncMongoClient[Document], comment: str) -> list[Document]:
        """Operations with a comment; every user may see and kill their own."""
        pipeline: list[Document] = [
            {"$currentOp": {"allUsers": False, "idleConnections": False}},
            {"$match": {"$or": [{"command.comment": comment}, {"cursor.originatingCommand.comment": comment}]}},
        ]
        look = {"aggregate": 1, "pipeline": pipeline, "cursor": {}, "maxTimeMS": 2_000, "comment": f"{MARK} look"}
        with failures.translated():
            reply = await asyncio.wait_for(
                client.admin.command(look, read_preference=client.read_preference), ANSWER_GRACE
            )
        return list(reply["cursor"]["firstBatch"])

    async def kill(self, client: AsyncMongoClient[Document], comment: str) -> int:
        """Ask the server to end our operations with this comment; the number that was asked for.

        The thread that builds an index for us has the comment too, and no client: a server that is told to end both at
        once can end up in a deadlock (measured on 6.0.5).
        """
        found = [each for each in await self._commented(client, comment) if each.get("client")]
        for each in found:
            with failures.translated():
                await asyncio.wait_for(
                    client.admin.command(
                        {"killOp": 1, "op": each["opid"], "comment": f"{MARK} look"},
                        read_preference=client.read_preference,
                    ),
                    ANSWER_GRACE,
                )
        return len(found)

    async def _end(
        self, task: asyncio.Future[Any], client: AsyncMongoClient[Document], comment: str, grace: float = CANCEL_GRACE
    ) -> None:
        """Kill our operation until its task has ended: the first try may come before it has reached the server."""
        end = time.monotonic() + grace
        while not task.done():
            for each in await self._where(client):
                with suppress(OpsAgentError, TimeoutError):
                    await self.kill(each, comment)
            await asyncio.wait({task}, timeout=CANCEL_AGAIN)
            if time.monotonic() >= end:
                return

    async def _where(self, client: AsyncMongoClient[Document]) -> Sequence[AsyncMongoClient[Document]]:
        """Where an operation may run: behind a read preference other than primary on any member."""
        primary_first = client.read_preference.mode in (0, 1) and await client.primary
        if client is not self._clients.get("") or primary_first:
            return [client]
        nodes = [f"{host}:{port}" for host, port in client.nodes]
        return [self.client(node) for node in nodes] if len(nodes) > 1 else [client]


async def _abandoned(task: asyncio.Future[Any]) -> None:
    """Let go of a task, whatever state it is in, so that nothing of it is left on the loop."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1)
    if task.done() and not task.cancelled():
        task.exception()


def stamped(command: Mapping[str, Any], seconds: float, comment: str = "") -> Document:
    """A command with its time limit and a comment that no other command has."""
    limit = {} if "maxTimeMS" in command or next(iter(command)) in _UNLIMITED else {"maxTimeMS": int(seconds * 1000)}
    return {**command, **limit, "comment": comment or f"{MARK} {new_id()}"}


#: Commands that answer from memory; a handshake takes no limit.
_UNLIMITED = ("hello", "killOp")


@dataclass(frozen=True)
class Ending:
    """How a command ended, as the driver saw it; what it did is read back from the database."""

    reply: Mapping[str, Any] = field(default_factory=dict)
    code: int = 0
    """The server's code; -1 for a refusal that has none."""
    message: str = ""
    lost: bool = False
    """The end was not seen: the connection broke, or the server did not answer the kill."""
    cancelled: bool = False
    seconds: float = 0.0
    error: OpsAgentError | None = None
    """What the failure means, as an error that says what to do."""

    @property
    def clean(self) -> bool:
        """Whether the server reported success."""
        return not (self.lost or self.code)


class Change:
    """The way to send one approved change."""

    def __init__(self, database: Database, client: AsyncMongoClient[Document]) -> None:
        self.comment = f"{MARK} {new_id()}"
        """Found in ``$currentOp`` as ``command.comment``: note it as evidence before the command is sent."""
        self._database = database
        self._client = client

    async def run(self, database: str, command: Mapping[str, Any], *, seconds: float, limited: bool = True) -> Ending:
        """Send one command once and see its end; a cancelled task kills it on the server and still sees its end.

        ``limited=False`` leaves out maxTimeMS, for a command that must not be given up half way.
        """
        from pymongo import ReadPreference

        document = stamped(command, seconds, self.comment)
        if not limited:
            document.pop("maxTimeMS", None)
        started = time.monotonic()
        direct = self._client.read_preference if self._client.options.direct_connection else ReadPreference.PRIMARY
        task: asyncio.Future[Any] = asyncio.ensure_future(
            self._client[database].command(document, read_preference=direct)
        )
        cancelled = False
        try:
            await asyncio.wait({task}, timeout=seconds + ANSWER_GRACE)
        except asyncio.CancelledError:
            cancelled = True
        if not task.done():
            await self._database._end(task, self._client, self.comment)  # noqa: SLF001  # its own other half
        return self._ending(task, cancelled=cancelled, seconds=time.monotonic() - started)

    async def read(self, database: str, command: Mapping[str, Any], *, seconds: float = READ_SECONDS) -> Document:
        """Read something back from the same member."""
        from pymongo import ReadPreference

        direct = self._client.options.direct_connection
        with failures.translated():
            found = await asyncio.wait_for(
                self._client[database].command(
                    stamped(command, seconds),
                    read_preference=self._client.read_preference if direct else ReadPreference.PRIMARY,
                ),
                seconds + ANSWER_GRACE,
            )
        return dict(found)

    def _ending(self, task: asyncio.Future[Any], *, cancelled: bool, seconds: float) -> Ending:
        from pymongo.errors import ConnectionFailure, NotPrimaryError, PyMongoError

        if not task.done():
            task.cancel()
            return Ending(lost=True, cancelled=cancelled, seconds=seconds)
        error = task.exception()
        if error is None:
            return Ending(dict(task.result()), cancelled=cancelled, seconds=seconds)
        if not isinstance(error, PyMongoError):
            raise error
        unsent = isinstance(error, _unsent())
        lost = isinstance(error, ConnectionFailure) and not isinstance(error, NotPrimaryError) and not unsent
        return Ending(
            code=failures.code_of(error) or -1,
            message=failures.said_of(error),
            lost=lost,
            cancelled=cancelled,
            seconds=seconds,
            error=failures.failed(error),
        )


def _unsent() -> tuple[type[Exception], ...]:
    """Failures that come before anything is sent: no server to choose, no place in the pool."""
    from pymongo.errors import ServerSelectionTimeoutError, WaitQueueTimeoutError

    return ServerSelectionTimeoutError, WaitQueueTimeoutError
