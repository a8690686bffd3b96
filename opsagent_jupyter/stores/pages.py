"""Pages of a list by time: the newest first, and within one moment by id."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, ColumnElement, or_

from opsagent_jupyter.contracts import Place


def beyond(at: Column[datetime], id: Column[str], place: Place) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The conditions of the rows after a place; the first alone bounds the walk through the index."""
    moment, key = place
    return at <= moment, or_(at < moment, id > key)
