SELECT a.pid, a.backend_start::text AS backend_start, a.datname::text AS database, a.application_name AS application, a.state
FROM pg_catalog.pg_stat_activity AS a
WHERE a.usesysid = %(role)s::oid
ORDER BY a.pid
