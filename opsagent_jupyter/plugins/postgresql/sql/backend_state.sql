SELECT a.state, a.query, p.phase, nullif(p.current_locker_pid, 0)::int AS locker
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN pg_catalog.pg_stat_progress_create_index AS p ON p.pid = a.pid
WHERE a.pid = %(pid)s AND a.backend_start = %(backend_start)s::timestamptz
