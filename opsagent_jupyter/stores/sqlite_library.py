"""The one SQLite of this process for store files: pysqlite3's, which is newer than most Pythons', or else Python's own.

A newer SQLite may use WAL (see ``sqlite.wal_is_safe``), where a durable change takes a quarter of the time. Whatever in
this process opens a store file takes it from here: POSIX drops every lock of a process on a file as soon as any part of
it closes that file (https://sqlite.org/howtocorrupt.html, 2.2), and two libraries do not know of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:  # no wheel for this platform
        import sqlite3

__all__ = ["sqlite3"]
