"""PostgreSQL 13 to 18. Importing this loads no driver: psycopg comes with the first connection."""

from opsagent_jupyter.plugins.postgresql.plugin import plugin

__all__ = ["plugin"]
