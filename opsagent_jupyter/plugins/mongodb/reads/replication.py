"""get_repl_status: members, their lag as far as it is known, and how far back the oplog reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from opsagent_jupyter.errors import MissingRight, OpsAgentError, PreconditionFailed, TargetUnreachable
from opsagent_jupyter.models import Result
from opsagent_jupyter.plugins.mongodb import failures
from opsagent_jupyter.plugins.mongodb.connection import Database, Document
from opsagent_jupyter.plugins.mongodb.reads.status import at
from opsagent_jupyter.plugins.mongodb.sheets import aware, sheet
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import duration, listing, plural

#: Seconds of lag from which on it is worth a remark; hours of oplog below which a long break means a new copy.
LATE, SHORT_WINDOW = 10.0, 24.0
#: A member that never answered has this for its last operation: no lag can be computed from it.
_EPOCH = 86_400.0

PRIMARY, SECONDARY, ARBITER = "PRIMARY", "SECONDARY", "ARBITER"
_COPYING = (SECONDARY, "RECOVERING", "STARTUP2", "ROLLBACK")


@dataclass(frozen=True)
class Member:
    """One member as the member that was asked sees it."""

    name: str
    state: str
    reachable: bool
    lag: float | None
    """Seconds behind the primary, or behind the newest member when there is no primary; None when it is not known."""
    last_operation: datetime | None
    last_heard: datetime | None
    sync_source: str
    message: str
    votes: int
    priority: float | None
    hidden: bool
    delay: int

    @property
    def late(self) -> bool:
        """Whether it is behind by more than it is meant to be."""
        return self.lag is not None and self.lag - self.delay > LATE


@dataclass(frozen=True)
class Standing:
    """The set as a whole."""

    name: str
    members: tuple[Member, ...]
    asked: str
    majority: int
    at: datetime
    full: bool
    """Whether the oplog has thrown away entries already: before that its window only says how young it is."""
    window: float | None
    """Hours between the oldest and the newest entry of the oplog of the member that was asked."""
    notes: tuple[str, ...] = ()

    @property
    def primary(self) -> str:
        return next((each.name for each in self.members if each.state == PRIMARY and each.reachable), "")

    @property
    def gone(self) -> list[Member]:
        return [each for each in self.members if not each.reachable]

    @property
    def voting_up(self) -> int:
        return sum(each.votes for each in self.members if each.reachable)


@tools.read(
    phrases=(
        "is the replica set healthy",
        "show the replica set status",
        "what is the replication lag",
        "is a secondary behind",
        "which member is the primary",
        "how long is the oplog window",
        "is a member down",
    ),
    keywords=(
        "replica",
        "replication",
        "replicaset",
        "set",
        "lag",
        "secondary",
        "primary",
        "oplog",
        "member",
        "members",
    ),
    patterns=(r"\brs[. ](status|conf)\b", r"\breplSetGetStatus\b", r"\breplica\s*set\b", r"\boplog\b", r"\blag\b"),
)
async def get_repl_status(db: Database) -> Result:
    """Show the members of the replica set with state and lag, unreachable ones as such, and the oplog window."""
    try:
        found = await standing(db)
    except PreconditionFailed as error:
        if failures.code_in(error) != failures.NO_REPLICATION:
            raise
        return Result(
            summary="This server is a standalone: it has no replica set, so nothing is replicated and nothing lags.",
            notes=("Its data is on one server only: a backup is the only copy.",),
        )
    rows = [_row(each) for each in found.members]
    page = sheet("members", _COLUMNS, rows, db.limits, {"lag": "s", "meant delay": "s"})
    lags = [each.lag for each in found.members if each.lag is not None]
    return Result(
        summary=_summary(found),
        highlights=tuple(_points(found)),
        tables=(page,),
        figures={
            "members": len(found.members),
            "unreachable": len(found.gone),
            "primary": found.primary,
            "largest_lag_seconds": max(lags, default=None),
            "oplog_hours": None if found.window is None else round(found.window, 2),
        },
        notes=(
            f"As {found.asked} sees it, by heartbeats of the last seconds; lag is exact to a second.",
            *found.notes,
        ),
    )


_COLUMNS = (
    "member", "state", "reachable", "lag", "last operation", "last heard", "sync source", "votes", "priority", "hidden",
    "meant delay", "message",
)  # fmt: skip


async def standing(db: Database) -> Standing:
    """Ask the set, by way of whichever member answers."""
    status, asked = await _status(db)
    notes: list[str] = []
    try:
        config = (await db.command("admin", {"replSetGetConfig": 1}, member=asked))["config"]
    except MissingRight as error:
        config = {}
        notes.append(f"Votes, priorities and delays are not known: {error}")
    window, full = await _window(db, asked, notes)
    settings = {each["host"]: each for each in config.get("members", ())}
    rows = status["members"]
    newest = _newest(rows)
    me = next((row["name"] for row in rows if row.get("self")), asked)
    if not any(row["stateStr"] == PRIMARY and row.get("health") for row in rows):
        notes.append(
            "Without a primary, lag is counted from the newest member: what the lost primary had may be missing."
        )
    return Standing(
        name=status["set"],
        members=tuple(_member(row, settings.get(row["name"], {}), newest) for row in rows),
        asked=me,
        majority=int(status.get("majorityVoteCount", len(rows) // 2 + 1)),
        at=aware(status["date"]),
        full=full,
        window=window,
        notes=tuple(notes),
    )


async def _status(db: Database) -> tuple[Document, str]:
    command = {"replSetGetStatus": 1}
    try:
        return await db.command("admin", command), ""
    except TargetUnreachable:
        for member in db.server.hosts if not db.server.direct else ():
            try:
                return await db.command("admin", command, member=member), member
            except TargetUnreachable:
                continue
        raise


async def _window(db: Database, member: str, notes: list[str]) -> tuple[float | None, bool]:
    """Hours that the oplog covers, by its oldest and newest entry, and whether it was ever full."""
    left_out = {"wiredTiger": 0, "tcmalloc": 0, "metrics": 0, "locks": 0}
    try:
        status = await db.command("admin", {"serverStatus": 1, "oplog": 1, **left_out}, member=member)
    except OpsAgentError as error:
        notes.append(f"The oplog cannot be seen: {error}")
        return None, False
    found, full = at(status, "oplog", {}), bool(at(status, "oplogTruncation/truncateCount", 0))
    oldest, newest = at(found, "earliestOptime"), at(found, "latestOptime")
    if isinstance(newest, dict):
        newest = newest.get("ts")
    if oldest is None or newest is None:
        notes.append("This server does not say how far its oplog reaches.")
        return None, False
    return float(newest.time - oldest.time) / 3600, full


def _newest(rows: Sequence[Document]) -> datetime | None:
    """The last operation of the primary; without one, the newest of those that can be reached."""
    known = [row for row in rows if row.get("health") and (_operation(row) is not None)]
    primary = [row for row in known if row["stateStr"] == PRIMARY]
    return max((when for row in primary or known if (when := _operation(row))), default=None)


def _operation(row: Document) -> datetime | None:
    """The time of a member's last operation; one that never answered has none, though the server says 1970."""
    when = row.get("optimeDate")
    found = aware(when) if isinstance(when, datetime) else None
    return found if found and found.timestamp() > _EPOCH else None


def _member(row: Document, settings: Document, newest: datetime | None) -> Member:
    reachable, when = bool(row.get("health")), _operation(row)
    copying = reachable and row["stateStr"] in _COPYING and when is not None and newest is not None
    heard = row.get("lastHeartbeatRecv")
    return Member(
        name=row["name"],
        state=row["stateStr"] if reachable else "unreachable",
        reachable=reachable,
        lag=max(0.0, (newest - when).total_seconds()) if copying and when and newest else None,
        last_operation=when,
        last_heard=None if row.get("self") else _sound(heard),
        sync_source=row.get("syncSourceHost", ""),
        message=str(row.get("lastHeartbeatMessage") or row.get("infoMessage") or "")[:300],
        votes=int(settings.get("votes", 1)),
        priority=settings.get("priority"),
        hidden=bool(settings.get("hidden")),
        delay=int(settings.get("secondaryDelaySecs", settings.get("slaveDelay", 0)) or 0),
    )


def _sound(when: datetime | None) -> datetime | None:
    return aware(when) if when is not None and aware(when).timestamp() > _EPOCH else None


# -- words


def _row(each: Member) -> Document:
    return {
        "member": each.name,
        "state": each.state,
        "reachable": each.reachable,
        "lag": each.lag,
        "last_operation": each.last_operation,
        "last_heard": each.last_heard,
        "sync_source": each.sync_source,
        "votes": each.votes,
        "priority": each.priority,
        "hidden": each.hidden,
        "meant_delay": each.delay,
        "message": each.message,
    }


def _summary(found: Standing) -> str:
    parts = [f"Replica set {found.name} has {plural(len(found.members), 'member')}"]
    parts.append(f"primary {found.primary}" if found.primary else "no primary: nothing can be written")
    gone = [each.name for each in found.gone]
    late = [each for each in found.members if each.late]
    if gone:
        parts.append(f"unreachable: {listing(gone)}")
    if late:
        worst = max(late, key=lambda each: each.lag or 0)
        parts.append(f"{worst.name} is {duration(worst.lag or 0)} behind")
    if not gone and not late and found.primary:
        parts.append("all members are reachable and none lags" if len(found.members) > 1 else "it is alone")
    return ", ".join(parts) + "."


def _points(found: Standing) -> list[str]:
    points = []
    for each in found.gone:
        heard = each.last_heard
        since = f", last heard {duration(max(0.0, (found.at - heard).total_seconds()))} ago" if heard else ""
        points.append(f"{each.name} is unreachable from {found.asked}{since}: its lag is not known.")
    points += [_lag(each) for each in found.members if each.lag is not None]
    if found.gone and found.voting_up <= found.majority:
        short = found.voting_up < found.majority
        points.append(
            f"{found.voting_up} of {sum(each.votes for each in found.members)} votes are up and {found.majority} are "
            + ("needed: no primary can be elected." if short else "needed: one more failure stops all writes.")
        )
    if found.window is not None:
        points.append(_window_words(found.window, full=found.full))
    return points


def _lag(each: Member) -> str:
    meant = f" (meant to be {duration(each.delay)} late)" if each.delay else ""
    behind = f"is {duration(each.lag)} behind" if each.lag else "is up to date"
    return f"{each.name} ({each.state.lower()}) {behind}{meant}."


def _window_words(hours: float, *, full: bool) -> str:
    span = duration(hours * 3600)
    if not full:
        return f"The oplog covers {span} and has never been full: it will cover more."
    return f"The oplog covers {span}: a member that is away for longer needs a whole new copy."
