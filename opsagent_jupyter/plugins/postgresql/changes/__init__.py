"""The tools that change something, each behind the gate. Importing this package declares them all."""

from opsagent_jupyter.plugins.postgresql.changes import create_index, drop_index, kill_connection, maintenance

__all__ = ["create_index", "drop_index", "kill_connection", "maintenance"]
