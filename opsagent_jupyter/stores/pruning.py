"""Removing the beginning of the audit, which is archived by then: only as far as a record in the chain itself allows."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, delete, func, select

from opsagent_jupyter.errors import StoreError
from opsagent_jupyter.models import PRUNED, PRUNED_STATUS
from opsagent_jupyter.stores import zones
from opsagent_jupyter.stores.tables import plugin_audit_log

LOG = plugin_audit_log.c


def prune(connection: Connection, record: int, most: int) -> int:
    """Remove at most so many of the oldest rows that the record ``audit.pruned`` at this place names (``last``, ``head``), and
    return how many went. ``StoreError`` when there is no such record, or its row is another one by now."""
    last, head = _allowed(connection, record)
    oldest = connection.execute(select(func.min(LOG.seq))).scalar_one()
    if oldest > last:
        return 0
    if connection.execute(select(LOG.hash).where(LOG.seq == last)).scalar() != head:
        raise StoreError(f"Audit row {last} is not the one that record {record} allows to remove; nothing was removed.")
    upto = min(last, oldest + most - 1)
    ended = connection.execute(delete(plugin_audit_log).where(LOG.seq <= upto))
    zones.forget(connection, upto + 1)
    return int(ended.rowcount)


def _allowed(connection: Connection, record: int) -> tuple[int, str]:
    body = connection.execute(select(LOG.body).where(LOG.seq == record)).scalar()
    event: dict[str, Any] = json.loads(body or "{}")
    if event.get("type") != PRUNED or int(event["details"]["last"]) >= record:
        raise StoreError(f"Audit row {record} records no prune; nothing was removed.")
    return int(event["details"]["last"]), str(event["details"]["head"])


def removed(connection: Connection) -> int:
    """How many rows the beginning lacks because they were pruned; 0 when no prune is recorded."""
    if connection.execute(select(LOG.seq).where(LOG.status == PRUNED_STATUS).limit(1)).first() is None:
        return 0
    return int(connection.execute(select(func.min(LOG.seq))).scalar_one()) - 1
