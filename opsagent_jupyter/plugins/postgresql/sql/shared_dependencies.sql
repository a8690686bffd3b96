-- Everything on the server that hangs on a role, in every database: one row an object. No database: shared objects.
SELECT d.datname::text AS database, s.classid::int8 AS class, s.objid::int8 AS object, s.objsubid AS sub,
       s.deptype::text AS type, coalesce(c.relname::text, s.classid::text) AS catalog
FROM pg_catalog.pg_shdepend AS s
LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.dbid
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = s.classid
WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.refobjid = %(role)s::oid
ORDER BY 1 NULLS FIRST, 2, 3, 4, 5
