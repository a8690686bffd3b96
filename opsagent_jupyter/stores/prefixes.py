"""Ids as people write them: whole, or their first characters."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Connection, select

#: Shorter ones would name something by accident.
SHORTEST = 4


def matches(connection: Connection, column: Column[str], text: str) -> Sequence[str]:
    """Return the id that is the text, or else the first few that begin with it; found through the primary key."""
    exact = connection.execute(select(column).where(column == text)).scalars().all()
    if exact or len(text) < SHORTEST or not text.isascii():
        return exact
    after = text[:-1] + chr(ord(text[-1]) + 1)
    begins = select(column).where(column >= text, column < after).order_by(column).limit(5)
    return connection.execute(begins).scalars().all()
