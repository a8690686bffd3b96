"""What is wrong with a database: one module an area, each with short reads that wait for nobody."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from opsagent_jupyter.plugins.findings import Area
from opsagent_jupyter.plugins.postgresql.connection import Database
from opsagent_jupyter.plugins.postgresql.diagnosis import (
    indexes,
    replication,
    sequences,
    server,
    sessions,
    statements,
    tables,
    wraparound,
)
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import Observation

#: What can be found, what hurts first in front.
KINDS = (
    "damaged_pages", "no_synchronous_standby", "wraparound", "archiving_fails", "blocked_session", "idle_in_transaction",
    "prepared_transaction", "sequence_near_end", "connections_near_limit", "standby_stands_still", "missing_index",
    "slow_statement", "runaway_query", "bloat", "stale_statistics", "lagging_standby", "inactive_slot", "lost_slot",
    "subscription_stopped", "published_without_identity", "vacuum_held_back", "dangerous_setting", "spill_to_disk",
    "invalid_index", "incomplete_index", "duplicate_index", "redundant_index", "unused_index", "bloated_index",
    "autovacuum_off_for_table", "cache_misses", "checkpoints_too_often", "deadlocks", "pending_restart",
    "statements_not_recorded",
)  # fmt: skip

_SURVEYS = {
    "locks and sessions": sessions.survey,
    "what holds VACUUM back": sessions.horizon,
    "wraparound": wraparound.survey,
    "sequences": sequences.survey,
    "connections": server.connections,
    "tables": tables.survey,
    "indexes": indexes.survey,
    "statements": statements.survey,
    "replication": replication.survey,
    "published tables": replication.safety,
    "cache, deadlocks and damage": server.activity,
    "settings": server.settings,
}


def areas(db: Database) -> Mapping[str, Area]:
    """The areas of a diagnosis by name, over one look at the database; sessions come first, as they change soonest."""
    seen = Observation(db)
    return {name: partial(survey, seen) for name, survey in _SURVEYS.items()}
