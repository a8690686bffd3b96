"""What is wrong with a deployment: one module an area, each with short reads that wait for nobody."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from opsagent_jupyter.plugins.findings import Area
from opsagent_jupyter.plugins.mongodb.connection import Database
from opsagent_jupyter.plugins.mongodb.diagnosis import documents, indexes, operations, queries, replication, server

#: What can be found, what hurts first in front.
KINDS = (
    "no_primary", "member_unreachable", "no_authentication", "waiting_operation", "connections_near_limit", "tickets_taken",
    "cache_pressure", "long_operation", "missing_index", "replication_lag", "oplog_window_short", "oversize_document",
    "oversize_array", "many_indexes", "redundant_index", "unused_index", "missing_ttl", "reclaimable_space",
    "many_collection_scans", "hidden_index", "queries_not_recorded", "every_query_recorded",
)  # fmt: skip

_SURVEYS = {
    "operations": operations.survey,
    "replication": replication.survey,
    "connections, cache and queues": server.survey,
    "recorded queries": queries.survey,
    "indexes": indexes.survey,
    "documents": documents.survey,
}


def areas(db: Database) -> Mapping[str, Area]:
    """The areas of a diagnosis by name; operations come first, as they change soonest."""
    return {name: partial(survey, db) for name, survey in _SURVEYS.items()}
