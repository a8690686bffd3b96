"""Pages by key: a cursor names the last row that was given, so no row is skipped or repeated when others come or go."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, Field

from opsagent_jupyter.contracts import Place
from opsagent_jupyter.errors import InvalidCursor
from opsagent_jupyter.models import Record

T = TypeVar("T", bound=BaseModel)


class Page(Record, Generic[T]):
    """One page of a list. ``next`` is the cursor of the page after it, empty when this is the last."""

    items: tuple[T, ...]
    next: str = ""


class Paging(Record):
    """Which page of a list is wanted."""

    limit: int = Field(default=50, ge=1, le=200, description="Rows of a page, at most.")
    cursor: str = Field(default="", max_length=400, description="`next` of the page before; empty for the first.")


def cursor_of(*key: str | int) -> str:
    """The cursor of a row's key."""
    text = json.dumps(key, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def key_of(cursor: str, *kinds: type) -> tuple[str | int, ...]:
    """The key in a cursor, whose parts are of these kinds; ``InvalidCursor`` when it is none."""
    try:
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        key = json.loads(text)
    except (ValueError, binascii.Error, RecursionError):
        raise InvalidCursor from None
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
        raise InvalidCursor
    return tuple(key)


def place_of(cursor: str) -> Place | None:
    """The place in a list by time that a cursor names; None for the beginning."""
    if not cursor:
        return None
    at, key = key_of(cursor, str, str)
    try:
        moment = datetime.fromisoformat(str(at))
    except ValueError:
        raise InvalidCursor from None
    if moment.tzinfo is None:
        raise InvalidCursor
    return moment, str(key)


def number_of(cursor: str) -> int | None:
    """The number that a cursor names; None for the beginning."""
    if not cursor:
        return None
    number = int(key_of(cursor, int)[0])
    if not 0 <= number < 2**63:
        raise InvalidCursor
    return number


def page_of(found: Sequence[T], limit: int, *key: str) -> Page[T]:
    """A page from up to ``limit + 1`` rows; ``key`` names the fields that its cursor is made of."""
    items = tuple(found[:limit])
    if len(found) <= limit:
        return Page(items=items)
    values = (getattr(items[-1], name) for name in key)
    return Page(items=items, next=cursor_of(*(v.isoformat() if isinstance(v, datetime) else v for v in values)))
