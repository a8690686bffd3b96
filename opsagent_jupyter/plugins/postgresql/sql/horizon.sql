-- What keeps VACUUM from removing dead rows: the oldest snapshot of sessions, slots and prepared transactions.
SELECT kind, name, age
FROM (
    SELECT 'session' AS kind, 'pid ' || a.pid AS name, pg_catalog.age(coalesce(a.backend_xmin, a.backend_xid))::int8 AS age
    FROM pg_catalog.pg_stat_activity AS a
    WHERE coalesce(a.backend_xmin, a.backend_xid) IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
      AND a.backend_type <> 'walsender' AND a.application_name NOT LIKE 'opsagent:%%'
    UNION ALL
    SELECT 'standby', r.application_name, pg_catalog.age(r.backend_xmin)::int8 FROM pg_catalog.pg_stat_replication AS r
    WHERE r.backend_xmin IS NOT NULL
    UNION ALL
    SELECT 'slot', s.slot_name::text, pg_catalog.age(s.xmin)::int8
    FROM pg_catalog.pg_replication_slots AS s WHERE s.xmin IS NOT NULL
    UNION ALL
    SELECT 'prepared transaction', p.gid, pg_catalog.age(p.transaction)::int8 FROM pg_catalog.pg_prepared_xacts AS p
) AS holders
ORDER BY age DESC
LIMIT 5
