"""The tools that change something, each behind the gate. Importing this package declares them all."""

from opsagent_jupyter.plugins.postgresql.changes import (
    create_index,
    create_user,
    drop_index,
    drop_user,
    grant_permission,
    kill_connection,
    maintenance,
    reindex_table,
    revoke_permission,
)

__all__ = [
    "create_index",
    "create_user",
    "drop_index",
    "drop_user",
    "grant_permission",
    "kill_connection",
    "maintenance",
    "reindex_table",
    "revoke_permission",
]
