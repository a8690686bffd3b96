SELECT (confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin + confl_deadlock)::int8 AS conflicts
FROM pg_catalog.pg_stat_database_conflicts
WHERE datname = current_database()
