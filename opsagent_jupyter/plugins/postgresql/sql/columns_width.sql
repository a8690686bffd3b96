SELECT pg_catalog.count(*)::int AS known,
       pg_catalog.sum((1 - s.null_frac) * s.avg_width)::float8 AS width,
       coalesce(pg_catalog.array_agg(s.n_distinct::float8), '{}') AS distinct_values,
       coalesce(pg_catalog.bool_and(a.atttypid NOT IN (700, 701, 1700, 3802)), false) AS merges
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN LATERAL (
    SELECT attname, null_frac, avg_width, n_distinct
    FROM pg_catalog.pg_stats
    WHERE schemaname = n.nspname AND tablename = c.relname AND inherited = (c.relkind = 'p')
    OFFSET 0
) AS s ON true
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = s.attname AND a.attname = ANY (%(columns)s)
WHERE c.oid = %(table)s
