SELECT a.pid, a.datname::text AS database, a.usename::text AS role, a.application_name AS application,
       now() - a.query_start AS running,
       pg_catalog.to_jsonb(a) ->> 'query_id' AS query_id,
       a.wait_event_type AS waits_for, a.query AS query
FROM pg_catalog.pg_stat_activity AS a
WHERE a.state = 'active' AND a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid()
  AND a.application_name NOT LIKE 'opsagent:%%'
  AND now() - a.query_start >= %(seconds)s * interval '1 second'
ORDER BY a.query_start
LIMIT %(limit)s
