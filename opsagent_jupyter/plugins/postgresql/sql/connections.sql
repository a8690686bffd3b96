SELECT a.datname::text AS database, a.usename::text AS role, a.application_name AS application, a.state,
       a.wait_event_type AS waits_for,
       pg_catalog.count(*)::int AS sessions,
       pg_catalog.max(now() - a.xact_start) AS oldest_transaction,
       pg_catalog.max(now() - a.state_change) FILTER (WHERE a.state LIKE 'idle in transaction%%') AS oldest_idle_in_transaction
FROM pg_catalog.pg_stat_activity AS a
WHERE a.backend_type = 'client backend'
GROUP BY 1, 2, 3, 4, 5
ORDER BY sessions DESC, database, role, application, state
