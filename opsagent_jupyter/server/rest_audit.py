"""REST: the audit.

A list without a search is read from the store, by its indexes. A search, counts over time and a file are read from the copy
in DuckDB and what follows it, which has every text of a record as a column and is complete and verified; they are bounded
in seconds and rows.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from pydantic import ValidationError

from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AuditQueryError, AuditTampered
from opsagent_jupyter.models import AuditEvent, AuditRow, Risk, now
from opsagent_jupyter.server.analysis import analysis_of
from opsagent_jupyter.server.bodies import (
    AuditEntry,
    AuditFilters,
    AuditQuery,
    AuditStats,
    Checking,
    ExportQuery,
    StatsQuery,
    Timeline,
    TimelineQuery,
    TimeSpan,
)
from opsagent_jupyter.server.paging import Page, number_of, page_of
from opsagent_jupyter.server.routes import Asked, File, Nothing, Routes

if TYPE_CHECKING:
    from opsagent_jupyter.audit.selection import Span, Written

routes = Routes()
#: Filters that stand in the query as they are.
FILTERS = ("status", "server", "instance", "tool", "actor", "session", "approval")
WEEK = timedelta(days=7)
#: Records that a file holds.
LARGEST_FILE = 1_000_000
MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


@routes.get("audit", AuditTampered, AuditQueryError)
async def list_audit(asked: Asked[AuditQuery, Nothing]) -> Page[AuditEntry]:
    """The records of the audit, newest first; ``risk`` is that level and up, ``actor`` an id or a name."""
    query = asked.query
    before, limit = number_of(query.cursor), query.limit + 1
    if query.search.strip():
        filters = analysed(query)
        rows = await analysis_of(asked.runtime).ask(lambda audit: audit.rows(filters, before, limit))
    else:
        rows = await asyncio.to_thread(newest, asked.runtime.store, query, before, limit)
    return page_of([entry_of(row) for row in rows], query.limit, "seq")


def newest(store: Store, query: AuditFilters, before: int | None, limit: int) -> Sequence[AuditRow]:
    """The newest rows from the store. Each level is read from its own index, and no further than the limit."""
    filters = filters_of(query)
    kinds: Iterable[dict[str, str]] = [{"risk": str(level)} for level in levels_of(query)]
    if query.risk is None and query.risk_exactly is None:
        kinds = [{}]
    found = [row for kind in kinds for row in store.audit_page(before=before, limit=limit, filters={**filters, **kind})]
    return sorted(found, key=lambda row: row.seq, reverse=True)[:limit]


def levels_of(query: AuditFilters) -> Sequence[Risk]:
    """The levels that are asked for: one and up, or one alone; both must hold when both are given."""
    levels = list(Risk)
    up = levels[levels.index(query.risk) :] if query.risk else levels
    return [level for level in up if query.risk_exactly in (None, level)]


def filters_of(query: AuditFilters) -> dict[str, str]:
    """The filters that were given, but for risk and search."""
    given = {name: str(getattr(query, name)) for name in FILTERS}
    given |= {name: at.isoformat() for name in ("since", "until") if (at := getattr(query, name)) is not None}
    return {name: value for name, value in given.items() if value}


def analysed(query: AuditFilters) -> dict[str, str]:
    """All filters that were given, as the analysis takes them."""
    more = {"risk": query.risk or "", "risk_exactly": query.risk_exactly or "", "search": query.search.strip()}
    return filters_of(query) | {name: str(value) for name, value in more.items() if value}


@routes.get("audit/timeline", AuditTampered, AuditQueryError)
async def get_audit_timeline(asked: Asked[TimelineQuery, Nothing]) -> Timeline:
    """The records that match, counted by span of time, status and risk."""
    filters, spans = analysed(asked.query), asked.query.spans
    return timeline_of(await analysis_of(asked.runtime).ask(lambda audit: audit.timeline(filters, spans)))


def timeline_of(counts: Sequence[Span]) -> Timeline:
    """The counts by span."""
    if not counts:
        return Timeline(total=0, since=None, milliseconds=0, spans=())
    spans = tuple(span_of(list(group)) for _, group in groupby(counts, key=lambda count: count.span))
    first, width = counts[0].first, counts[0].width
    return Timeline(total=sum(span.total for span in spans), since=at(first), milliseconds=width, spans=spans)


def span_of(counts: Sequence[Span]) -> TimeSpan:
    """One span from its counts."""
    by_status: Counter[str] = Counter()
    by_risk: Counter[str] = Counter()
    for count in counts:
        by_status[count.status] += count.events
        by_risk[count.risk] += count.events
    begins = counts[0].first + counts[0].span * counts[0].width
    return TimeSpan(
        since=at(begins),
        until=at(begins + counts[0].width),
        total=by_status.total(),
        by_status=by_status,
        by_risk=by_risk,
    )


def at(milliseconds: int) -> datetime:
    """A moment from its milliseconds since 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


@routes.file(
    "audit/export", tuple(kind.partition(";")[0] for kind in MEDIA_TYPES.values()), AuditTampered, AuditQueryError
)
async def export_audit(asked: Asked[ExportQuery, Nothing]) -> File:
    """The records that match as a file, oldest first: of more than a million the newest. In CSV, a text that a spreadsheet
    would calculate is led by an apostrophe."""
    query = asked.query
    filters = analysed(query)
    place = Path(await asyncio.to_thread(mkdtemp, prefix="opsagent-")) / f"audit.{query.format}"
    try:
        written: Written = await analysis_of(asked.runtime).ask(
            lambda audit: audit.write(place, query.format, filters, LARGEST_FILE)
        )
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(place.parent)
        raise
    name = f"audit-{now():%Y%m%dT%H%M%SZ}.{query.format}"
    return File(place=place, name=name, media_type=MEDIA_TYPES[query.format], rows=written.rows, cut=written.cut)


@routes.get("audit/verification")
async def get_audit_verification(asked: Asked[Nothing, Nothing]) -> Checking:
    """Whether the chain of the audit verifies. The check runs in the background; its result is kept until records follow."""
    return await analysis_of(asked.runtime).checking()


def entry_of(row: AuditRow) -> AuditEntry:
    """A row as a screen reads it; one that is no record any more was edited."""
    try:
        body = json.loads(row.body)
        event = AuditEvent.model_validate({name: body[name] for name in AuditEvent.model_fields if name in body})
    except (ValueError, ValidationError):
        raise AuditTampered(
            f"Record {row.seq} of the audit cannot be read.", hint="Run `opsagent audit verify`.", first_bad=row.seq
        ) from None
    return AuditEntry(seq=row.seq, event_id=row.event_id, hash=row.hash, event=event)


@routes.get("audit/stats")
async def get_audit_stats(asked: Asked[StatsQuery, Nothing]) -> AuditStats:
    """How many records of which kind there are, from a moment on."""
    since = asked.query.since or now() - WEEK
    counts = await asyncio.to_thread(asked.runtime.store.audit_counts, since)
    return AuditStats(
        since=since,
        total=sum(counts["status"].values()),
        by_status=counts["status"],
        by_risk=counts["risk"],
        by_server=counts["server"],
        by_tool=counts["tool"],
    )
