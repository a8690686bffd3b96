"""Standbys that lag, slots that hold back, archiving that fails, and what makes a fail-over unsafe."""

from __future__ import annotations

from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import GB, Observation
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.replication import LAG_BYTES, LAG_SECONDS, RETAINED_BYTES
from opsagent_jupyter.plugins.wording import duration, plural, size

#: Seconds and bytes of lag from which a standby is behind, and from which that harms who reads there or fails over to it.
LAG_BEHIND, LAG_LONG = (10.0, RETAINED_BYTES), (60.0, GB)


async def survey(seen: Observation) -> Survey:
    """Look at standbys, slots, archiving and subscriptions; on a standby, at itself."""
    db, recovery = seen.db, await seen.recovery()
    position = (await db.one(query("position")))["position"]
    slots = await db.rows(query("slots"), {"position": position})
    standbys = [] if recovery["standby"] else await db.rows(query("standbys"))
    findings = [
        *(finding for row in standbys if (finding := _lag(row))),
        *(finding for row in slots if (finding := _slot(row))),
        *_archiving(await db.one(query("archiver"))),
        *(_itself(await db.one(query("standby_self"))) if recovery["standby"] else _synchronous(recovery, standbys)),
        *(_stopped(row) for row in await db.rows(query("subscriptions")) if row["pid"] is None),
    ]
    hidden = () if recovery["reads_stats"] else (f"Standbys' lag is hidden: GRANT pg_monitor TO {db.server.role}.",)
    return Survey(tuple(findings), hidden)


async def safety(seen: Observation) -> Survey:
    """Look at published tables whose changes logical replication could not carry over."""
    rows = await seen.db.rows(query("published_without_identity"))
    return Survey(tuple(_unidentified(row) for row in rows))


def _lag(row: Row) -> Finding | None:
    behind = row["replay_bytes"] or 0
    seconds = row["replay_lag"].total_seconds() if row["replay_lag"] and behind else 0.0
    if behind < LAG_BYTES and seconds < LAG_SECONDS:
        return None
    where = "sent" if (row["send_bytes"] or 0) > behind / 2 else "replayed"
    time = f" and {duration(seconds)}" if seconds else ""
    return Finding(
        kind="lagging_standby",
        severity=_late(seconds, behind),
        confidence="certain",
        subject=row["standby"],
        title=f"Standby {row['standby']} is {size(behind)}{time} behind",
        evidence=(
            f"{size(row['send_bytes'] or 0)} not sent, {size(row['flush_bytes'] or 0)} not flushed, {size(behind)} not replayed",
            f"{row['state']}, {row['sync']}",
        ),
        why="Who reads there sees the past, and a fail-over would wait for it or lose what was not received.",
        advice="Look at its network and receiver."
        if where == "sent"
        else "Look for long queries on it, replay that is paused or delayed on purpose, and slow disks.",
        impact=float(behind),
    )


def _late(seconds: float, behind: int) -> Severity:
    for severity, (long, much) in ((Severity.HIGH, LAG_LONG), (Severity.MEDIUM, LAG_BEHIND)):
        if seconds >= long or behind >= much:
            return severity
    return Severity.INFO


def _slot(row: Row) -> Finding | None:
    if row["wal_status"] == "lost" or row["invalidation"]:
        return _lost(row)
    if row["active"]:
        return None
    kept, held = row["retained_bytes"] or 0, max(row["xmin_age"] or 0, row["catalog_xmin_age"] or 0)
    unlimited = row["safe_bytes"] is None
    severity = Severity.MEDIUM if kept >= RETAINED_BYTES else Severity.INFO
    return Finding(
        kind="inactive_slot",
        severity=Severity.HIGH if kept >= GB and unlimited else severity,
        confidence="certain",
        subject=row["slot"],
        title=f"Replication slot {row['slot']} is not in use and retains {size(kept)} of WAL",
        evidence=(
            f"{row['type']} slot, WAL {row['wal_status'] or 'not reserved'}",
            "no limit: max_slot_wal_keep_size is -1"
            if unlimited
            else f"{size(row['safe_bytes'])} more until it is lost",
            *([f"not in use for {duration(row['inactive'])}"] if row["inactive"] else []),
            *([f"holds VACUUM back by {plural(held, 'transaction')}"] if held else []),
        ),
        why="The server keeps all WAL since its consumer left, until the disk is full or the slot is lost.",
        advice=f"Bring its consumer back, or SELECT pg_drop_replication_slot('{row['slot']}') if it is gone for good.",
        impact=float(kept),
    )


def _lost(row: Row) -> Finding:
    reason = f" ({row['invalidation']})" if row["invalidation"] else ""
    return Finding(
        kind="lost_slot",
        severity=Severity.MEDIUM,
        confidence="certain",
        subject=row["slot"],
        title=f"Replication slot {row['slot']} is lost{reason}",
        evidence=(f"{row['type']} slot, WAL {row['wal_status']}",),
        why="Its consumer cannot go on from where it was, and gets no changes.",
        advice=f"Build the consumer anew, and SELECT pg_drop_replication_slot('{row['slot']}').",
    )


def _archiving(row: Row) -> list[Finding]:
    if row["mode"] == "off" or not row["failing"]:
        return []
    return [
        Finding(
            kind="archiving_fails",
            severity=Severity.CRITICAL,
            confidence="certain",
            subject="archiver",
            title=f"WAL archiving fails: {row['last_failed_wal']} could not be archived {duration(row['since_failed'])} ago",
            evidence=(
                plural(row["failed"], "failure"),
                f"last success {duration(row['since_archived'])} ago" if row["since_archived"] else "never a success",
            ),
            why="No backup can be brought up to now, and WAL piles up until the disk is full.",
            advice="Read why in the server's log, and mend archive_command or its target.",
        )
    ]


def _synchronous(recovery: Row, standbys: list[Row]) -> list[Finding]:
    wanted = recovery["synchronous_names"]
    if not wanted or not recovery["reads_stats"] or any(row["sync"] in ("sync", "quorum") for row in standbys):
        return []
    return [
        Finding(
            kind="no_synchronous_standby",
            severity=Severity.CRITICAL,
            confidence="certain",
            subject="synchronous_standby_names",
            title=f"No synchronous standby is connected, and synchronous_standby_names asks for {wanted}",
            evidence=(f"{plural(len(standbys), 'standby', 'standbys')} connected",),
            why="Every commit that waits for one hangs until it comes.",
            advice="Bring the standby back, or take its name out of synchronous_standby_names and reload.",
        )
    ]


def _itself(own: Row) -> list[Finding]:
    """What is wrong with a standby as it sees itself."""
    if own["paused"]:
        title, advice = (
            "Replay is paused on this standby",
            "SELECT pg_wal_replay_resume() if nobody paused it on purpose.",
        )
    elif own["receiver"] is None:
        title, advice = "This standby receives nothing", "Look at primary_conninfo, the network and the server's log."
    else:
        return []
    since = [f"the last change it applied is {duration(own['since_replay'])} old"] if own["since_replay"] else []
    return [
        Finding(
            kind="standby_stands_still",
            severity=Severity.HIGH,
            confidence="certain" if own["paused"] else "likely",
            subject="standby",
            title=title,
            evidence=(f"{size(own['behind_bytes'] or 0)} received are not applied", *since),
            why="Who reads here sees the past, and a fail-over to it would lose what it has not received.",
            advice=advice,
        )
    ]


def _stopped(row: Row) -> Finding:
    return Finding(
        kind="subscription_stopped",
        severity=Severity.MEDIUM,
        confidence="certain",
        subject=row["subscription"],
        title=f"Subscription {row['subscription']} has no worker: it receives nothing",
        evidence=(f"received up to {row['received'] or 'nothing'}",),
        why="Its tables fall behind the publisher, which keeps WAL for it.",
        advice="Look at the server's log for why its worker ended; ALTER SUBSCRIPTION ... ENABLE if it is disabled.",
    )


def _unidentified(row: Row) -> Finding:
    return Finding(
        kind="published_without_identity",
        severity=Severity.HIGH,
        confidence="certain",
        subject=row["table"],
        title=f"Table {row['table']} is published by {row['publication']} and has no replica identity",
        evidence=("neither a primary key nor REPLICA IDENTITY",),
        why="Every UPDATE and DELETE on it fails as long as it is published.",
        advice=f"Give {row['table']} a primary key, or ALTER TABLE ... REPLICA IDENTITY USING INDEX or FULL.",
    )
