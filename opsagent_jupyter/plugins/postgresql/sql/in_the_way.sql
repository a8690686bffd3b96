-- Transactions that a statement on this table would wait for: holders of these lock modes on it and, for an index
-- that is built concurrently, every other snapshot in this database. A table is meant with its partitions.
WITH RECURSIVE tree (oid) AS (  -- pg_partition_tree would wait for a partition that is locked exclusively
    SELECT %(table)s::oid
    UNION
    SELECT h.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
    JOIN pg_catalog.pg_class AS k ON k.oid = h.inhrelid AND k.relispartition
)
SELECT l.pid, a.usename::text AS role, a.application_name AS application, a.state, a.backend_type AS kind,
       now() - a.xact_start AS transaction, now() - a.state_change AS in_state,
       pg_catalog.array_agg(DISTINCT l.mode) AS modes
FROM pg_catalog.pg_locks AS l
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation IN (SELECT oid FROM tree) AND l.granted AND l.mode = ANY (%(modes)s)
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
GROUP BY l.pid, a.usename, a.application_name, a.state, a.backend_type, a.xact_start, a.state_change
UNION ALL
SELECT a.pid, a.usename::text, a.application_name, a.state, a.backend_type, now() - a.xact_start,
       now() - a.state_change, NULL
FROM pg_catalog.pg_stat_activity AS a
WHERE %(snapshots)s AND a.datname = current_database() AND a.pid <> pg_catalog.pg_backend_pid()
  AND a.backend_xmin IS NOT NULL AND a.backend_type <> 'autovacuum worker'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks AS l WHERE l.pid = a.pid AND l.relation IN (SELECT oid FROM tree) AND l.granted
                  AND l.mode = ANY (%(modes)s))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
ORDER BY 6 DESC NULLS LAST
