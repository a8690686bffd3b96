"""How the conformance tests open a store, importable by the processes they start."""

from __future__ import annotations

from unittest import mock

from opsagent_jupyter.stores import sqlite
from opsagent_jupyter.stores.store import SharedStore, open_store


def open_wal_store(url: str) -> SharedStore:
    """Open the store as on a machine whose SQLite is free of the WAL-reset bug."""
    with mock.patch.object(sqlite, "wal_is_safe", return_value=True):
        return open_store(url)


def open_journal_store(url: str) -> SharedStore:
    """Open the store as on a machine whose SQLite has the bug."""
    with mock.patch.object(sqlite, "wal_is_safe", return_value=False):
        return open_store(url)
