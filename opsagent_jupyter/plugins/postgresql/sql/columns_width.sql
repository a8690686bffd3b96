SELECT pg_catalog.count(*)::int AS known,
       pg_catalog.sum((1 - s.null_frac) * s.avg_width)::float8 AS width,
       coalesce(pg_catalog.array_agg(s.n_distinct::float8), '{}') AS distinct_values,
       coalesce(pg_catalog.bool_and(a.atttypid NOT IN (700, 701, 1700, 3802)), false) AS merges
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = ANY (%(columns)s)
JOIN pg_catalog.pg_stats AS s
  ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
WHERE c.oid = %(table)s AND s.inherited = (c.relkind = 'p')
