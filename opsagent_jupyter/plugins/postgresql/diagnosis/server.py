"""The server as a whole: room for connections, the cache, checkpoints, damage, and settings that are dangerous."""

from __future__ import annotations

from collections.abc import Mapping

from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import GB, Observation
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.connections import FULL
from opsagent_jupyter.plugins.wording import count, duration, percent, plural, size

#: Share of the usable connections from which the next clients are turned away soon.
BURSTING = 0.95
#: Share of reads that miss the cache from which it is told and harms, and reads below which it says nothing.
MISSES, MANY_MISSES, READS = 0.1, 0.3, 100_000
#: Checkpoints below which nothing is said; seconds between two from which they are too often.
CHECKPOINTS, TOO_OFTEN = 10, 120.0
#: Share of max_wal_size that is written between two checkpoints when WAL asks for them.
BY_VOLUME = 0.25
#: Bytes that all sessions together could take by work_mem, and bytes of one, from which it is absurd.
WORK_MEM_ALL, WORK_MEM_ONE = 256 * GB, 2 * GB


async def connections(seen: Observation) -> Survey:
    """Look at how many connections are taken, of the server and of each role and database with a limit."""
    limits = await seen.db.one(query("connection_limits"))
    caps = await seen.db.rows(query("connection_caps"))
    usable = limits["max_connections"] - limits["reserved_for_superusers"] - limits["reserved"]
    found = [("the server", "server", limits["used"], usable)]
    found += [(f"{row['kind']} {row['name']}", row["name"], row["used"] or 0, row["limit"]) for row in caps]
    return Survey(tuple(_full(*each) for each in found if each[3] and each[2] >= FULL * each[3]))


def _full(what: str, subject: str, used: int, limit: int) -> Finding:
    return Finding(
        kind="connections_near_limit",
        severity=Severity.HIGH if used >= BURSTING * limit else Severity.MEDIUM,
        confidence="certain",
        subject=subject,
        title=f"{what[:1].upper()}{what[1:]} uses {count(used)} of {count(limit)} connections ({percent(used, limit)})",
        evidence=(f"{count(max(limit - used, 0))} left",),
        why="When none is left, clients are turned away.",
        advice="Find who holds them (get_connection_stats), and put a connection pool in front rather than raise the limit.",
        impact=used / limit,
    )


async def activity(seen: Observation) -> Survey:
    """Look at the counters of this database: cache, deadlocks, damaged pages."""
    row = await seen.db.one(query("database_activity"))
    return Survey((*_damaged(row), *_misses(row), *_deadlocks(row)))


def _damaged(row: Row) -> list[Finding]:
    if not row["checksum_failures"]:
        return []
    return [
        Finding(
            kind="damaged_pages",
            severity=Severity.CRITICAL,
            confidence="certain",
            subject="checksums",
            title=f"{plural(row['checksum_failures'], 'page')} of this database failed the checksum",
            evidence=(f"counted for {duration(row['seconds'])}",),
            why="Data on disk is damaged: statements that read it fail, or return nonsense where checks are off.",
            advice="Stop writing, save the data directory, look for a failing disk, and restore from a backup.",
        )
    ]


def _misses(row: Row) -> list[Finding]:
    asked = row["hits"] + row["reads"]
    share = row["reads"] / asked if asked else 0.0
    if row["reads"] < READS or share < MISSES:
        return []
    return [
        Finding(
            kind="cache_misses",
            severity=Severity.MEDIUM if share >= MANY_MISSES else Severity.INFO,
            confidence="possible",
            subject="shared_buffers",
            title=f"{percent(share, 1)} of the pages that were asked for were not in the cache",
            evidence=(
                f"{count(row['reads'])} of {count(asked)} pages in {duration(row['seconds'])}",
                f"shared_buffers is {row['shared_buffers']}",
            ),
            why="Each miss is a read from the system, and from the disk unless the system has it cached.",
            advice="First cure statements that read in vain; then give shared_buffers about a quarter of the memory.",
            impact=float(row["reads"]),
        )
    ]


def _deadlocks(row: Row) -> list[Finding]:
    if not row["deadlocks"]:
        return []
    each_hour = row["deadlocks"] / max(row["seconds"] / 3600, 1.0)
    return [
        Finding(
            kind="deadlocks",
            severity=Severity.MEDIUM if each_hour >= 1 and row["deadlocks"] >= 5 else Severity.INFO,
            confidence="certain",
            subject="deadlocks",
            title=f"{plural(row['deadlocks'], 'deadlock')} in {duration(row['seconds'])}",
            evidence=(f"{each_hour:.1f} an hour",),
            why="Each one ends somebody's transaction with an error after a wait.",
            advice="Read the statements in the server's log, and let all transactions take their locks in one order.",
            impact=float(row["deadlocks"]),
        )
    ]


async def settings(seen: Observation) -> Survey:
    """Look at settings that endanger data or slow everything down, and at how often checkpoints come."""
    rows = await seen.db.rows(
        query("diagnosed_settings"), {"names": [*_DANGERS, "work_mem", "max_connections", "block_size"]}
    )
    found = {row["name"]: row for row in rows}
    findings = [*_dangers(found), *_work_mem(found), *_planner(rows), *_pending(rows), *await _checkpoints(seen)]
    return Survey(tuple(findings))


#: Setting to the value that is dangerous, how bad that is, and why.
_DANGERS: Mapping[str, tuple[str, Severity, str]] = {
    "fsync": (
        "off",
        Severity.CRITICAL,
        "A crash of the machine can destroy the whole cluster beyond repair.",
    ),
    "full_page_writes": (
        "off",
        Severity.CRITICAL,
        "A crash of the machine in the middle of a write leaves torn pages that recovery cannot mend.",
    ),
    "zero_damaged_pages": (
        "on",
        Severity.CRITICAL,
        "A damaged page is emptied instead of reported: rows vanish without an error.",
    ),
    "ignore_checksum_failure": (
        "on",
        Severity.CRITICAL,
        "Damaged pages are used as if they were sound.",
    ),
    "autovacuum": (
        "off",
        Severity.HIGH,
        "Dead rows pile up in every table, statistics grow old, and wraparound comes nearer.",
    ),
    "track_counts": (
        "off",
        Severity.HIGH,
        "Autovacuum does not know what changed, so it does nothing.",
    ),
    "synchronous_commit": (
        "off",
        Severity.INFO,
        "A crash loses the last commits that clients were told of; nothing is damaged.",
    ),
    "autovacuum_max_workers": ("0", Severity.HIGH, "Without a worker autovacuum does nothing."),
}


def _shown(row: Row) -> str:
    return f"{row['setting']}{row['unit'] or ''}"


def _dangers(found: Mapping[str, Row]) -> list[Finding]:
    return [
        _setting(found[name], severity, f"{name} is {_shown(found[name])}", why)
        for name, (dangerous, severity, why) in _DANGERS.items()
        if name in found and found[name]["setting"] == dangerous and not _idle(name, found)
    ]


def _idle(name: str, found: Mapping[str, Row]) -> bool:
    """Whether another setting takes away all that this one could still protect."""
    return name in ("full_page_writes", "synchronous_commit") and found["fsync"]["setting"] == "off"


def _setting(row: Row, severity: Severity, title: str, why: str, advice: str = "") -> Finding:
    where = "restart" if row["context"] == "postmaster" else "reload the configuration"
    back = f"ALTER SYSTEM SET {row['name']} = '{row['boot_val']}' and {where}, unless this server may lose everything."
    return Finding(
        kind="dangerous_setting",
        severity=severity,
        confidence="certain",
        subject=row["name"],
        title=title,
        evidence=(f"set by {row['source']}", f"the default is {row['boot_val']}"),
        why=why,
        advice=advice or back,
        impact=0.0,
    )


def _work_mem(found: Mapping[str, Row]) -> list[Finding]:
    row = found["work_mem"]
    each, sessions = int(row["setting"]) * 1024, int(found["max_connections"]["setting"])
    if each < WORK_MEM_ONE and each * sessions < WORK_MEM_ALL:
        return []
    title = f"work_mem is {size(each)}, and {count(sessions)} sessions may take it several times each"
    why = f"Together they may take {size(each * sessions)} and more; the system then kills the server."
    advice = "Set work_mem low for all, and high with ALTER ROLE for those few that need it."
    return [_setting(row, Severity.MEDIUM, title, why, advice)]


def _planner(rows: list[Row]) -> list[Finding]:
    off = [row for row in rows if row["name"].startswith("enable_") and row["source"] not in ("session", "client")]
    return [
        _setting(
            row,
            Severity.MEDIUM,
            f"The planner may not use a method: {row['name']} is off",
            "Every statement is planned without it, also those that it would serve best.",
            f"Set {row['name']} to on again, and cure the one statement for which it was switched off.",
        )
        for row in off
        if row["setting"] == "off"
    ]


def _pending(rows: list[Row]) -> list[Finding]:
    names = [row["name"] for row in rows if row["pending_restart"]]
    if not names:
        return []
    return [
        Finding(
            kind="pending_restart",
            severity=Severity.INFO,
            confidence="certain",
            subject="settings",
            title=f"{plural(len(names), 'changed setting')} will hold only after a restart",
            evidence=tuple(names[:10]),
            why="The server does not run as its configuration says.",
            advice="Restart it at a time of your choice, before an accident does.",
        )
    ]


async def _checkpoints(seen: Observation) -> list[Finding]:
    if not await seen.db.columns_of("pg_catalog.pg_stat_wal"):
        return []  # before 14 nobody counts WAL, and CREATE DATABASE or a backup asks for checkpoints too
    newer = await seen.db.columns_of("pg_catalog.pg_stat_checkpointer")
    row = await seen.db.one(query("checkpoints" if newer else "checkpoints_before_17"))
    number = row["timed"] + row["requested"]
    each = row["seconds"] / number if number else 0.0
    by_volume = number and row["written"] / number >= BY_VOLUME * row["limit"]
    if row["requested"] < CHECKPOINTS or row["requested"] <= row["timed"] or each > TOO_OFTEN or not by_volume:
        return []
    return [
        Finding(
            kind="checkpoints_too_often",
            severity=Severity.MEDIUM,
            confidence="likely",
            subject="max_wal_size",
            title=f"A checkpoint comes every {duration(each)}, mostly because WAL reached max_wal_size",
            evidence=(
                f"{count(row['requested'])} requested, {count(row['timed'])} by time",
                f"{size(row['written'] / number)} of WAL each, max_wal_size is {size(row['limit'])}",
            ),
            why="After each one every changed page is written to WAL whole: more WAL, more writes, slower commits.",
            advice="Raise max_wal_size until most checkpoints come by time.",
            impact=float(number),
        )
    ]
