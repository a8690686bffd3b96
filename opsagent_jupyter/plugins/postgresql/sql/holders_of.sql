-- Who holds a lock, of any mode, on some tables in any databases: what changes hands has to wait for all of them.
SELECT l.pid, d.datname::text AS database, a.usename::text AS role, a.application_name AS application, a.state,
       now() - a.xact_start AS transaction, count(DISTINCT l.relation)::int AS held
FROM unnest(%(databases)s::text[], %(relations)s::int8[]) AS o(database, relation)
JOIN pg_catalog.pg_database AS d ON d.datname = o.database
JOIN pg_catalog.pg_locks AS l ON l.locktype = 'relation' AND l.granted AND l.database = d.oid AND l.relation = o.relation::oid
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 6 DESC NULLS LAST, 1
LIMIT 20
