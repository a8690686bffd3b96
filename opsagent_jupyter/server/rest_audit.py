"""REST: the audit."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

from pydantic import ValidationError

from opsagent_jupyter.errors import AuditTampered
from opsagent_jupyter.models import AuditEvent, AuditRow, now
from opsagent_jupyter.server.bodies import AuditEntry, AuditQuery, AuditStats, StatsQuery
from opsagent_jupyter.server.paging import Page, number_of, page_of
from opsagent_jupyter.server.routes import Asked, Nothing, Routes

routes = Routes()
FILTERS = ("risk", "status", "server", "instance", "tool", "actor", "session", "approval")
WEEK = timedelta(days=7)


@routes.get("audit", AuditTampered)
async def list_audit(asked: Asked[AuditQuery, Nothing]) -> Page[AuditEntry]:
    """The records of the audit, newest first; ``risk`` is that level, ``actor`` an id or a name."""
    query = asked.query
    rows = await asyncio.to_thread(
        asked.runtime.store.audit_page,
        before=number_of(query.cursor),
        limit=query.limit + 1,
        filters=filters_of(query),
    )
    return page_of([entry_of(row) for row in rows], query.limit, "seq")


def filters_of(query: AuditQuery) -> dict[str, str]:
    """The filters that were given."""
    given = {name: str(getattr(query, name) or "") for name in FILTERS}
    given |= {name: at.isoformat() for name in ("since", "until") if (at := getattr(query, name)) is not None}
    return {name: value for name, value in given.items() if value}


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
