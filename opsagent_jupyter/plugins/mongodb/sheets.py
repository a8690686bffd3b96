"""Tables of a result whose times the driver gives without a zone: they are UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from opsagent_jupyter.plugins import sheets

sheet = partial(sheets.sheet, zone=UTC)


def aware(value: datetime) -> datetime:
    """A time of the server with its zone."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)
