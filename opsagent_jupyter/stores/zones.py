"""Zones of the audit: stretches of its sequence that hold a value, so that no other row is looked at (a zone map)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, literal_column, or_, select

from opsagent_jupyter.stores.tables import ZONE, ZONED, audit_zones, plugin_audit_log

Z = audit_zones.c
LOG = plugin_audit_log.c
#: Zones that are asked for at once.
PAGE = 100


def condition(filters: Mapping[str, str]) -> ColumnElement[bool] | None:
    """What these filters ask of a zone, None when nothing; a person is found by id or by name."""
    asked = [Z[name] == value for name, value in filters.items() if name in ("server", "instance")]
    if "actor" in filters:
        asked.append(or_(Z.actor == filters["actor"], Z.actor_name == filters["actor"]))
    return and_(*asked) if asked else None


def stretches(connection: Connection, asked: ColumnElement[bool], low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of the stretches between two places that may hold what is asked for, newest first."""
    zones = select(Z.zone).distinct().where(Z.zone >= low // ZONE, asked).order_by(Z.zone.desc()).limit(PAGE)
    top = high // ZONE
    while found := connection.execute(zones.where(Z.zone <= top)).scalars().all():
        for newest, oldest in _runs(found):
            yield max(oldest * ZONE, low), min((newest + 1) * ZONE - 1, high)
        top = found[-1] - 1


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
