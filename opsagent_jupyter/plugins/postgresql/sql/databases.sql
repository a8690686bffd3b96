SELECT d.datname::text AS name, d.oid::int8 AS oid, d.datallowconn AS connects,
       pg_catalog.has_database_privilege(d.oid, 'CONNECT') AS allowed
FROM pg_catalog.pg_database AS d
ORDER BY d.datname
