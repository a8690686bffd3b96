-- The sessions that hold something back: open transactions and running statements, the oldest first.
SELECT a.pid, a.usename::text AS role, a.datname::text AS database, a.application_name AS application,
       coalesce(pg_catalog.host(a.client_addr), 'local') AS client,
       a.state, a.wait_event_type AS waits_for,
       now() - a.xact_start AS transaction,
       now() - a.state_change AS in_state,
       CASE WHEN a.state = 'active' THEN now() - a.query_start END AS running,
       pg_catalog.age(a.backend_xmin)::int8 AS xmin_age,
       pg_catalog.pg_blocking_pids(a.pid) AS blocked_by,
       a.query
FROM pg_catalog.pg_stat_activity AS a
WHERE a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid()
  AND a.application_name NOT LIKE 'opsagent:%%'
  AND (a.xact_start IS NOT NULL OR a.state = 'active')
ORDER BY a.xact_start NULLS LAST
LIMIT %(limit)s
