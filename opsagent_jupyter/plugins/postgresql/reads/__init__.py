"""The tools that only look. Importing this package declares them all."""

from opsagent_jupyter.plugins.postgresql.reads import (
    connections,
    diagnose,
    explaining,
    indexes,
    locks,
    replication,
    slow_queries,
    tables,
)

__all__ = ["connections", "diagnose", "explaining", "indexes", "locks", "replication", "slow_queries", "tables"]
