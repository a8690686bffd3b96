-- Mean width of a row from the planner's statistics; only tables of which all columns are known.
SELECT c.oid::int8 AS oid,
       pg_catalog.sum((1 - s.null_frac) * s.avg_width)::float8 AS width,
       pg_catalog.bool_or(s.null_frac > 0) AS has_nulls,
       pg_catalog.count(*)::int AS columns
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_stats AS s
  ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited
WHERE c.oid = ANY (%(oids)s::oid[])
GROUP BY c.oid
HAVING pg_catalog.count(*) = pg_catalog.count(s.attname)
