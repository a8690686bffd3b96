SELECT 'role' AS kind, r.rolname::text AS name, r.rolconnlimit AS "limit",
       (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_stat_activity AS a WHERE a.usesysid = r.oid) AS used
FROM pg_catalog.pg_roles AS r
WHERE r.rolconnlimit >= 0
UNION ALL
SELECT 'database', d.datname::text, d.datconnlimit, (SELECT numbackends FROM pg_catalog.pg_stat_database AS s WHERE s.datid = d.oid)
FROM pg_catalog.pg_database AS d
WHERE d.datconnlimit > 0
ORDER BY kind, name
