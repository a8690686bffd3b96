SELECT a.pid, a.backend_start::text AS backend_start, a.usename::text AS role, a.datname::text AS database,
       a.application_name AS application, coalesce(pg_catalog.host(a.client_addr), 'local') AS client,
       a.backend_type AS kind, a.leader_pid AS leader, a.state, a.query, a.query_start::text AS query_start,
       now() - a.xact_start AS transaction, now() - a.state_change AS in_state,
       a.backend_xid IS NOT NULL AS has_written,
       coalesce(r.rolsuper, false) AS superuser,
       CASE WHEN a.usesysid IS NOT NULL THEN pg_catalog.pg_has_role(a.usesysid, 'USAGE') ELSE false END AS same_role,
       pg_catalog.pg_has_role(current_user, 'pg_signal_backend', 'USAGE') AS signals,
       CASE WHEN %(autovacuum)s THEN pg_catalog.pg_has_role(current_user, 'pg_signal_autovacuum_worker', 'USAGE')
            ELSE false END AS signals_autovacuum,
       (SELECT s.slot_name::text FROM pg_catalog.pg_replication_slots AS s WHERE s.active_pid = a.pid LIMIT 1) AS slot,
       coalesce(
           (SELECT 'VACUUM' FROM pg_catalog.pg_stat_progress_vacuum AS p WHERE p.pid = a.pid),
           (SELECT p.command FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.pid = a.pid),
           (SELECT p.command FROM pg_catalog.pg_stat_progress_cluster AS p WHERE p.pid = a.pid),
           (SELECT 'ANALYZE' FROM pg_catalog.pg_stat_progress_analyze AS p WHERE p.pid = a.pid),
           (SELECT 'base backup' FROM pg_catalog.pg_stat_progress_basebackup AS p WHERE p.pid = a.pid)
       ) AS maintenance
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
WHERE a.pid = %(pid)s
