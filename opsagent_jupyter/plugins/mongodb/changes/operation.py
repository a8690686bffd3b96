"""One operation of the server as ``$currentOp`` shows it: who it is, what it does, and whether it is still the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from opsagent_jupyter.errors import MissingRight
from opsagent_jupyter.models import Json, canonical, sha256
from opsagent_jupyter.plugins.mongodb import shapes
from opsagent_jupyter.plugins.mongodb.changes.execution import Reader
from opsagent_jupyter.plugins.mongodb.connection import Document
from opsagent_jupyter.plugins.wording import duration

#: Seconds by which the start of one operation may seem to differ from look to look.
START_SLACK = 2.0
#: Commands that maintain data or indexes; ending one of them loses its work.
MAINTENANCE = ("createIndexes", "compact", "reIndex", "validate", "collMod", "dropIndexes")


@dataclass(frozen=True)
class Operation:
    """A running operation."""

    row: Mapping[str, Any]

    @property
    def opid(self) -> str:
        return str(self.row["opid"])

    @property
    def client(self) -> str:
        """host:port of the client; empty for the server's own threads."""
        return str(self.row.get("client") or self.row.get("client_s") or "")

    @property
    def application(self) -> str:
        return str(self.row.get("appName", ""))

    @property
    def command(self) -> Mapping[str, Any]:
        found = self.row.get("command")
        return found if isinstance(found, Mapping) else {}

    @property
    def name(self) -> str:
        """The name of its command: ``aggregate``; empty when it shows none."""
        return next(iter(self.command), "")

    @property
    def namespace(self) -> str:
        return str(self.row.get("ns", ""))

    @property
    def users(self) -> tuple[str, ...]:
        return tuple(f"{each['user']}@{each['db']}" for each in self.row.get("effectiveUsers", ()))

    @property
    def comment(self) -> str:
        origin = self.row.get("cursor", {}).get("originatingCommand", {})
        found = self.command.get("comment") or (origin.get("comment") if isinstance(origin, Mapping) else "")
        return str(found or "")

    @property
    def seconds(self) -> float:
        return float(self.row.get("microsecs_running") or 0) / 1e6

    @property
    def started(self) -> datetime | None:
        """When it began, by the server's clock, give or take some milliseconds."""
        try:
            at = datetime.fromisoformat(str(self.row.get("currentOpTime")))
        except ValueError:
            return None
        return at - timedelta(seconds=self.seconds)

    @property
    def is_index_build(self) -> bool:
        return self.name == "createIndexes" or "IndexBuild" in str(self.row.get("desc", ""))

    @property
    def who(self) -> str:
        """``checkout, user app@shop, 10.1.2.3:5555``."""
        users = [f"user {user}" for user in self.users]
        return ", ".join(part for part in (self.application, *users, self.client) if part)

    @property
    def identity(self) -> dict[str, Json]:
        """What tells it from any other, the same at every look; of one server process an opid means one operation only."""
        lsid = self.row.get("lsid", {}).get("id")
        return {
            "opid": self.opid,
            "client": self.client,
            "connection": self.row.get("connectionId"),
            "session": bytes(getattr(lsid, "bytes", lsid)).hex() if lsid else "",
            "namespace": self.namespace,
            "kind": str(self.row.get("op", "")),
            "shape": sha256(canonical(shapes.shape(self.command))),
        }

    def same_as(self, identity: Mapping[str, Any], started: str) -> bool:
        """Whether it is the operation of that identity and start."""
        own = self.identity
        if any(own[name] != identity[name] for name in own):
            return False
        if not started or self.started is None:
            return True
        return abs((self.started - datetime.fromisoformat(started)).total_seconds()) <= START_SLACK

    @property
    def age(self) -> str:
        return duration(self.seconds)


async def running(reader: Reader, opid: str, *, others: bool, local: bool) -> list[Operation]:
    """The operations with that opid that run now; ``others`` asks for other users' too, ``local`` only those of a mongos."""
    stage: Document = {"allUsers": others, "idleConnections": False}
    if local:
        stage["localOps"] = True
    number: int | str = int(opid) if opid.lstrip("-").isdigit() else opid
    look = {"aggregate": 1, "pipeline": [{"$currentOp": stage}, {"$match": {"opid": number}}], "cursor": {}}
    found = await reader.read("admin", look)
    return [Operation(each) for each in found["cursor"]["firstBatch"]]


async def found(reader: Reader, opid: str, *, local: bool = False) -> tuple[Sequence[Operation], bool]:
    """The operations with that opid, and whether other users' could be seen as well."""
    try:
        return await running(reader, opid, others=True, local=local), True
    except MissingRight:
        return await running(reader, opid, others=False, local=local), False
