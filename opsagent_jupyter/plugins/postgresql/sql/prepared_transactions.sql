SELECT p.gid, p.owner::text AS role, p.database::text AS database, p.prepared, now() - p.prepared AS age
FROM pg_catalog.pg_prepared_xacts AS p
ORDER BY p.prepared
