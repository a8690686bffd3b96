"""The server itself: connections, cache, queues, and who may log in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.mongodb.connection import Database
from opsagent_jupyter.plugins.mongodb.reads.status import (
    CACHE_DIRTY,
    CACHE_FULL,
    CONNECTIONS,
    JUDGED,
    WASTE,
    measures,
    status,
)
from opsagent_jupyter.plugins.wording import count, percent, size


async def survey(db: Database) -> Survey:
    """Look at the figures of the server."""
    figures = measures(await status(db))
    return Survey((*_open(db), *_cache(figures), *_connections(figures), *_tickets(figures), *_scans(figures)))


def _open(db: Database) -> Iterator[Finding]:
    if not db.server.user:
        yield Finding(
            kind="no_authentication",
            severity=Severity.HIGH,
            confidence="certain",
            subject="server",
            title="The server lets everybody in without a password",
            evidence=("this connection did not log in and may do everything",),
            why="Whoever reaches the port may read, change and delete all data.",
            advice="Make an administrator, then start the server with authorization enabled.",
        )


def _cache(figures: Mapping[str, Any]) -> Iterator[Finding]:
    share, dirty = figures.get("cache_share") or 0.0, figures.get("dirty_share") or 0.0
    if share < CACHE_FULL and dirty < CACHE_DIRTY:
        return
    yield Finding(
        kind="cache_pressure",
        severity=Severity.HIGH,
        confidence="certain",
        subject="cache",
        title=f"The cache of {size(figures.get('cache_most') or 0)} is {share:.0%} full and {dirty:.0%} dirty",
        evidence=(f"{count(figures.get('app_evictions') or 0)} pages were evicted by applications themselves",),
        why="Applications wait while they make room in the cache.",
        advice="Find what reads or writes so much (get_profiler_data), or give the cache more memory.",
        impact=share + dirty,
    )


def _connections(figures: Mapping[str, Any]) -> Iterator[Finding]:
    current, most = figures.get("connections") or 0, figures.get("connections_most") or 0
    if most and current / most >= CONNECTIONS:
        yield Finding(
            kind="connections_near_limit",
            severity=Severity.CRITICAL if current / most >= 0.95 else Severity.HIGH,
            confidence="certain",
            subject="connections",
            title=f"{count(current)} of {count(most)} connections are in use ({percent(current, most)})",
            evidence=(f"{count(figures.get('connections_active') or 0)} of them are active",),
            why="When none is left, applications cannot connect.",
            advice="Limit maxPoolSize of the applications' drivers, and look for one that opens a client for each request.",
            impact=current / most,
        )


def _tickets(figures: Mapping[str, Any]) -> Iterator[Finding]:
    taken = [kind for kind in ("read", "write") if figures.get(f"{kind}_tickets_free") == 0]
    if taken or (figures.get("queued") or 0) > 0:
        yield Finding(
            kind="tickets_taken",
            severity=Severity.HIGH if taken else Severity.MEDIUM,
            confidence="certain",
            subject="queues",
            title=f"{count(figures.get('queued') or 0)} operations wait in the queue of the server",
            evidence=tuple(f"all {kind} tickets of the storage engine are taken" for kind in taken),
            why="Operations wait before they even begin.",
            advice="Run get_current_ops for what holds the server up.",
            impact=float(figures.get("queued") or 0),
        )


def _scans(figures: Mapping[str, Any]) -> Iterator[Finding]:
    read, returned = figures.get("documents_read") or 0, figures.get("documents_returned") or 0
    if read >= JUDGED and read / max(returned, 1) >= WASTE:
        yield Finding(
            kind="many_collection_scans",
            severity=Severity.MEDIUM,
            confidence="likely",
            subject="queries",
            title=f"{count(read / max(returned, 1))} documents were read for each one returned, since the server started",
            evidence=(f"{count(figures.get('collection_scans') or 0)} scans of whole collections",),
            why="Documents are read to be thrown away: indexes are missing.",
            advice="Record slow operations (set_profiling_level), then look at get_profiler_data.",
            impact=read / max(returned, 1),
        )
