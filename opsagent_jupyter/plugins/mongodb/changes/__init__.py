"""The tools that change something, each behind the gate. Importing this package declares them all."""

from opsagent_jupyter.plugins.mongodb.changes import (
    compact_collection,
    create_index,
    create_user,
    drop_index,
    drop_user,
    grants,
    kill_operation,
    reindex_collection,
    set_profiling_level,
)

__all__ = [
    "compact_collection",
    "create_index",
    "create_user",
    "drop_index",
    "drop_user",
    "grants",
    "kill_operation",
    "reindex_collection",
    "set_profiling_level",
]
