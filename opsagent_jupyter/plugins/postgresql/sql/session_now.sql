SELECT a.state, a.query_start::text AS query_start
FROM pg_catalog.pg_stat_activity AS a
WHERE a.pid = %(pid)s AND a.backend_start = %(backend_start)s::timestamptz
