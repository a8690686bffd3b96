"""Lock modes of tables: as the catalog names them, and as SQL does."""

from __future__ import annotations

MODES = {
    "AccessShareLock": "ACCESS SHARE",
    "RowShareLock": "ROW SHARE",
    "RowExclusiveLock": "ROW EXCLUSIVE",
    "ShareUpdateExclusiveLock": "SHARE UPDATE EXCLUSIVE",
    "ShareLock": "SHARE",
    "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE",
    "ExclusiveLock": "EXCLUSIVE",
    "AccessExclusiveLock": "ACCESS EXCLUSIVE",
}
ORDER = list(MODES)

#: Modes that a request waits for, by what it asks for: any lock; those of writers and up; those of maintenance and up.
ANY = ORDER
WRITERS = ORDER[2:]
MAINTENANCE = ORDER[3:]


def spelled(mode: str | None) -> str:
    """A mode as SQL names it."""
    return MODES.get(mode or "", mode or "unknown")
