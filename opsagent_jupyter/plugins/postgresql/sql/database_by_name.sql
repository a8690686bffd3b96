SELECT d.oid::int8 AS oid, d.datname::text AS name, pg_catalog.quote_ident(d.datname) AS written, d.datdba::int8 AS owner
FROM pg_catalog.pg_database AS d
WHERE d.datname = ANY (%(names)s)
ORDER BY pg_catalog.array_position(%(names)s::text[], d.datname::text)
LIMIT 1
