SELECT n.oid::int8 AS oid, n.nspname::text AS name, pg_catalog.quote_ident(n.nspname) AS written, n.nspowner::int8 AS owner
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname = ANY (%(names)s)
ORDER BY pg_catalog.array_position(%(names)s::text[], n.nspname::text)
LIMIT 1
