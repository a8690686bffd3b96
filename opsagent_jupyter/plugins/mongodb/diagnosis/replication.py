"""The replica set: members that are gone or behind, and an oplog that is too short."""

from __future__ import annotations

from collections.abc import Iterator

from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.mongodb.connection import REPLICA_SET, Database
from opsagent_jupyter.plugins.mongodb.reads.replication import SHORT_WINDOW, Member, Standing, standing
from opsagent_jupyter.plugins.wording import duration

#: Seconds of lag and hours of oplog from which on it is a serious case.
FAR_BEHIND, TINY_WINDOW = 300.0, 2.0


async def survey(db: Database) -> Survey:
    """Look at the set; a standalone has none."""
    if db.server.topology != REPLICA_SET:
        return Survey()
    found = await standing(db)
    return Survey(tuple(findings(found)), found.notes)


def findings(found: Standing) -> Iterator[Finding]:
    """What is wrong with a set that stands so."""
    if not found.primary:
        yield _no_primary(found)
    for each in found.gone:
        yield _gone(found, each)
    for each in found.members:
        if each.late:
            yield _late(each)
    if found.full and found.window is not None and found.window < SHORT_WINDOW:
        yield _window(found, found.window)


def _no_primary(found: Standing) -> Finding:
    return Finding(
        kind="no_primary",
        severity=Severity.CRITICAL,
        confidence="certain",
        subject=found.name,
        title=f"Replica set {found.name} has no primary",
        evidence=(f"{found.voting_up} votes are up, {found.majority} are needed", *(m.name for m in found.gone)),
        why="Nothing can be written until a majority of the members sees each other.",
        advice="Bring an unreachable member back; look at its log and at the network between the members.",
    )


def _gone(found: Standing, each: Member) -> Finding:
    tight = found.voting_up <= found.majority
    heard = each.last_heard
    since = f", last heard {duration(max(0.0, (found.at - heard).total_seconds()))} ago" if heard else ""
    return Finding(
        kind="member_unreachable",
        severity=Severity.CRITICAL if tight else Severity.HIGH,
        confidence="certain",
        subject=each.name,
        title=f"{each.name} is unreachable from {found.asked}{since}",
        evidence=tuple(filter(None, (each.message, f"{found.voting_up} votes are up, {found.majority} are needed"))),
        why="One more failure stops all writes." if tight else "The set has one copy less to fall back on.",
        advice="Bring it back before the oplog has passed it by; look at its log and at the network.",
    )


def _late(each: Member) -> Finding:
    lag = each.lag or 0.0
    return Finding(
        kind="replication_lag",
        severity=Severity.HIGH if lag - each.delay >= FAR_BEHIND else Severity.MEDIUM,
        confidence="certain",
        subject=each.name,
        title=f"{each.name} is {duration(lag)} behind the primary",
        evidence=tuple(filter(None, (f"state {each.state}", each.sync_source and f"copies from {each.sync_source}"))),
        why="Reads from it are old, and writes that wait for a majority may wait for it.",
        advice="Look at its disk and load, and at long builds or bulk writes on the primary.",
        impact=lag,
    )


def _window(found: Standing, hours: float) -> Finding:
    return Finding(
        kind="oplog_window_short",
        severity=Severity.HIGH if hours < TINY_WINDOW else Severity.MEDIUM,
        confidence="likely",
        subject=found.name,
        title=f"The oplog covers {duration(hours * 3600)} only",
        evidence=(f"as {found.asked} holds it",),
        why="A member that is away for longer has to copy everything anew.",
        advice="Make it larger with replSetResizeOplog, so that it covers a maintenance and a weekend.",
        impact=-hours,
    )
