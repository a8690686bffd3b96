"""The tools that only look. Importing this package declares them all."""

from opsagent_jupyter.plugins.mongodb.reads import (
    collections,
    diagnose,
    explaining,
    indexes,
    operations,
    profiler,
    replication,
    status,
)

__all__ = ["collections", "diagnose", "explaining", "indexes", "operations", "profiler", "replication", "status"]
