"""Zones of the audit: stretches of its sequence that hold a value, so that no other row is looked at (a zone map)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, literal_column, select

from opsagent_jupyter.stores.tables import ZONE, ZONED, audit_zones, plugin_audit_log

Z = audit_zones.c
LOG = plugin_audit_log.c
#: Zones that are asked for at once.
PAGE = 100


def asked(filters: Mapping[str, str]) -> Sequence[ColumnElement[bool]]:
    """What these filters ask of a zone, one of it at least; empty when nothing. A person is found by id or by name, and each
    is asked for by itself: an index answers either newest first, but of both at once it would have to find all."""
    places = [Z[name] == filters[name] for name in ("server", "instance") if name in filters]
    if "actor" in filters:
        return [and_(Z[name] == filters["actor"], *places) for name in ("actor", "actor_name")]
    return [and_(*places)] if places else []


def stretches(
    connection: Connection, conditions: Sequence[ColumnElement[bool]], low: int, high: int
) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of the stretches between two places that may hold what is asked for, newest first."""
    newest_first = select(Z.zone).distinct().where(Z.zone >= low // ZONE).order_by(Z.zone.desc()).limit(PAGE)
    top = high // ZONE
    while True:
        found: set[int] = set()
        for condition in conditions:
            found.update(connection.execute(newest_first.where(condition, Z.zone <= top)).scalars())
        if not found:
            return
        page = sorted(found, reverse=True)[:PAGE]
        for newest, oldest in _runs(page):
            yield max(oldest * ZONE, low), min((newest + 1) * ZONE - 1, high)
        top = page[-1] - 1


def _runs(zones: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Zones without a gap between them as one, in falling order."""
    newest = zones[0]
    for zone, following in pairwise([*zones, -2]):
        if following != zone - 1:
            yield newest, zone
            newest = following


def forget(connection: Connection, before: int) -> None:
    """Remove the zones that lie wholly before a place."""
    connection.execute(delete(audit_zones).where(Z.zone < before // ZONE))


def missing(connection: Connection) -> int:
    """How many zones lack what a row of theirs has, so that a filtered list would leave that row out."""
    zone: Any = literal_column(f"seq / {ZONE}").label("zone")
    held = select(zone, *(LOG[name] for name in ZONED)).distinct().subquery()
    lost = select(held).except_(select(audit_zones)).subquery()
    return int(connection.execute(select(func.count(lost.c.zone.distinct()))).scalar_one())
