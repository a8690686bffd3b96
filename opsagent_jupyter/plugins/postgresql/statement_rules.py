"""Names that decide what EXPLAIN may run: functions that do more than compute, readers, relations with secrets.

The names are PostgreSQL's own of 13 to 18 and those of its contrib modules. A volatile function that is in no list
here is refused by `purity`, so a name that is missing costs an answer, never safety.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Rule:
    """Why a family of functions is not run, and what to do instead."""

    reason: str
    does: str
    instead: str
    names: re.Pattern[str]
    planned: bool = False
    """The planner may call these itself (labelled stable or immutable), so plain EXPLAIN refuses them too."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHAPE = "EXPLAIN without ANALYZE shows the plan and does not run it."

RULES = (
    Rule(
        "signal",
        "acts on other processes of the server",
        "Use the kill_connection tool, which asks a person first.",
        re.compile(
            r"pg_(terminate_backend|cancel_backend|reload_conf|rotate_logfile(_old)?|promote|log_backend_memory_contexts)"
        ),
    ),
    Rule(
        "setting",
        "changes the state of the session",
        "Leave it out: the plan does not depend on it.",
        re.compile(r"set_config|setseed|set_limit|isn_weak|pg_stat_clear_snapshot"),
    ),
    Rule("sequence", "moves a sequence, which ROLLBACK does not undo", _SHAPE, re.compile(r"nextval|setval")),
    Rule("advisory_lock", "takes or gives back advisory locks", _SHAPE, re.compile(r"pg_(try_)?advisory_\w+")),
    Rule(
        "file",
        "reads or writes files of the server",
        "Ask for settings and statistics through their views.",
        re.compile(
            r"pg_read_\w+|pg_ls_\w+|pg_stat_file|pg_file_\w+|pg_logdir_ls|pg_hba_file_rules|pg_ident_file_mappings"
            r"|pg_show_all_file_settings|pg_current_logfile|pg_get_logical_snapshot_\w+"
        ),
    ),
    Rule(
        "large_object",
        "opens, reads or changes large objects",
        _SHAPE,
        re.compile(
            r"lo_(close|creat|create|export|from_bytea|get|import|lseek(64)?|manage|open|put|tell(64)?|truncate(64)?|unlink)"
            r"|loread|lowrite"
        ),
    ),
    Rule(
        "wal",
        "writes to the WAL or steers backup and recovery",
        _SHAPE,
        re.compile(
            r"pg_(switch_wal|create_restore_point|start_backup|stop_backup|backup_start|backup_stop|log_standby_snapshot)"
            r"|pg_(wal_replay_pause|wal_replay_resume|logical_emit_message)"
        ),
    ),
    Rule(
        "replication",
        "creates, moves, reads or drops replication slots or origins",
        "Use get_replication_status to look at them.",
        re.compile(
            r"pg_(create|copy)_\w+_slot|pg_drop_replication_slot|pg_replication_slot_advance|pg_sync_replication_slots"
            r"|pg_logical_slot_\w+|pg_replication_origin_(advance|create|drop|session_\w+|xact_\w+)"
        ),
    ),
    Rule(
        "statistics",
        "resets or rewrites statistics",
        _SHAPE,
        re.compile(
            r"pg_stat_reset\w*|pg_(?!stat_get_)\w+_reset(_\w+)?|pg_stat_force_next_flush|pg_(clear|restore)_\w+_stats"
        ),
    ),
    Rule("notify", "sends a notification", _SHAPE, re.compile(r"pg_notify")),
    Rule("snapshot", "exports a snapshot to other sessions", _SHAPE, re.compile(r"pg_export_snapshot")),
    Rule(
        "maintenance",
        "changes storage, caches or the catalog",
        "Use vacuum_table, analyze_table or reindex_table, which ask a person first.",
        re.compile(
            r"gin_clean_pending_list|brin_(de)?summarize_\w+|heap_force_\w+|pg_truncate_visibility_map|pg_prewarm"
            r"|pg_buffercache_evict\w*|autoprewarm_\w+|pg_import_system_collations|pg_extension_config_dump|pg_nextoid"
            r"|pg_stop_making_pinned_objects|binary_upgrade_\w+|hypopg_(create|drop|reset|hide|unhide)\w*"
        ),
    ),
    Rule("sleep", "only waits", "Leave it out.", re.compile(r"pg_sleep\w*")),
    Rule(
        "transaction_id",
        "uses up a transaction id",
        "Use pg_current_xact_id_if_assigned() or pg_current_snapshot().",
        re.compile(r"pg_current_xact_id|txid_current"),
        planned=True,
    ),
    Rule(
        "sql_in_text",
        "runs SQL that is hidden in a text or on another server",
        "Explain that SQL itself.",
        re.compile(
            r"(query|table|schema|database|cursor)_to_xml\w*|ts_stat|crosstab\w*|connectby|xpath_table|xslt_process"
            r"|dblink\w*|postgres_fdw_disconnect\w*"
        ),
        planned=True,
    ),
    Rule(
        "type_by_value",
        "converts a text to a type that is named by a value, so its checks cannot be looked up",
        "Write the conversion as a cast.",
        re.compile(r"(domain|array|record|range|multirange)_(in|recv)|pg_input_(is_valid|error_info)"),
        planned=True,
    ),
    Rule(
        "language",
        "runs code of a procedural language",
        "Leave it out.",
        re.compile(r"\w+_(validator|call_handler|inline_handler)"),
        planned=True,
    ),
)

READERS = _names(
    """
    amvalidate array_sample array_shuffle bernoulli clock_timestamp current_query currval gen_random_uuid lastval
    pg_available_wal_summaries pg_blocking_pids pg_collation_actual_version pg_control_checkpoint pg_control_init
    pg_control_recovery pg_control_system pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn
    pg_database_collation_actual_version pg_database_size pg_get_aios pg_get_backend_memory_contexts
    pg_get_loaded_modules pg_get_multixact_members pg_get_sequence_data pg_get_shmem_allocations
    pg_get_shmem_allocations_numa pg_get_wait_events pg_get_wal_replay_pause_state pg_get_wal_resource_managers
    pg_get_wal_summarizer_state pg_indexes_size pg_is_in_recovery pg_is_wal_replay_paused
    pg_is_in_backup
    pg_isolation_test_session_is_blocked pg_jit_available pg_last_committed_xact pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status pg_notification_queue_usage
    pg_partition_ancestors pg_partition_tree pg_prepared_xact pg_relation_size pg_safe_snapshot_blocking_pids
    pg_sequence_last_value pg_show_replication_origin_status pg_stat_get_backend_io pg_stat_get_backend_wal
    pg_stat_get_io pg_stat_get_recovery_prefetch pg_stat_get_xact_blocks_fetched pg_stat_get_xact_blocks_hit
    pg_stat_get_xact_function_calls pg_stat_get_xact_function_self_time pg_stat_get_xact_function_total_time
    pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_fetched
    pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted pg_stat_get_xact_tuples_newpage_updated
    pg_stat_get_xact_tuples_returned pg_stat_get_xact_tuples_updated pg_stat_have_stats pg_table_size
    pg_tablespace_size pg_total_relation_size pg_wal_summary_contents pg_xact_commit_timestamp
    pg_xact_commit_timestamp_origin pg_xact_status random random_normal system timeofday timezone txid_status uuidv4 uuidv7
    """
)
"""Volatile built-ins that only read, count or draw lots."""

EXTENSION_READERS = frozenset(
    (extension, name)
    for extension, names in {
        "citext": "citextsend",
        "pg_buffercache": "pg_buffercache_pages pg_buffercache_summary pg_buffercache_usage_counts",
        "pg_freespacemap": "pg_freespace",
        "pg_stat_statements": "pg_stat_statements pg_stat_statements_info",
        "pg_trgm": "show_limit similarity_op strict_word_similarity_commutator_op strict_word_similarity_op"
        " word_similarity_commutator_op word_similarity_op",
        "pg_visibility": "pg_visibility pg_visibility_map pg_visibility_map_summary",
        "pgcrypto": "gen_random_bytes gen_random_uuid gen_salt",
        "pgrowlocks": "pgrowlocks",
        "pgstattuple": "pg_relpages pgstatginindex pgstathashindex pgstatindex pgstattuple pgstattuple_approx",
        "tsm_system_rows": "system_rows",
        "tsm_system_time": "system_time",
        "unaccent": "unaccent",
        "uuid-ossp": "uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4",
    }.items()
    for name in names.split()
)
"""Stable and volatile C functions of extensions that only read; immutable ones need no entry."""

UNTRUSTED_LIBRARIES = _names(
    """
    adminpack auth_delay auto_explain basic_archive dblink file_fdw pg_prewarm pg_surgery pg_walinspect
    pg_logicalinspect plperl plpgsql plpython3 pltcl postgres_fdw sepgsql tablefunc lo pgxml
    """
)
"""Libraries whose functions act, run SQL or reach out, whatever label a function over them carries."""

SECRET_RELATIONS = _names(
    """
    pg_authid pg_shadow pg_user_mapping pg_user_mappings pg_subscription pg_largeobject _pg_user_mappings
    user_mapping_options pg_hba_file_rules pg_ident_file_mappings pg_file_settings
    """
)
"""System relations that hold passwords, connection strings or file contents."""

LATER_SYNTAX = {
    "JsonObjectConstructor": "json_object",
    "JsonArrayConstructor": "json_array",
    "JsonArrayQueryConstructor": "json_array",
    "JsonObjectAgg": "json_objectagg",
    "JsonArrayAgg": "json_arrayagg",
    "JsonParseExpr": "json",
    "JsonScalarExpr": "json_scalar",
    "JsonSerializeExpr": "json_serialize",
    "JsonTable": "json_table",
    "MergeSupportFunc": "merge_action",
    "JSON_VALUE_OP": "json_value",
    "JSON_QUERY_OP": "json_query",
    "JSON_EXISTS_OP": "json_exists",
}
"""Syntax of later majors that an older server reads as a call of a function with this name."""


@lru_cache(maxsize=1024)
def rule_for(name: str) -> Rule | None:
    """The rule that keeps a function of this name from being run, if there is one."""
    return next((rule for rule in RULES if rule.names.fullmatch(name)), None)
