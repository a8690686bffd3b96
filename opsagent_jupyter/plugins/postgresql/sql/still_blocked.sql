SELECT pg_catalog.count(*)::int AS blocked
FROM pg_catalog.unnest(%(pids)s::int[]) AS w (pid)
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = w.pid
WHERE pg_catalog.cardinality(pg_catalog.pg_blocking_pids(w.pid)) > 0
