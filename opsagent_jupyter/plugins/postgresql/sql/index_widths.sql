-- What the planner knows of an index's columns: mean width of an entry, distinct values, and whether a btree of them
-- can keep equal values once (not for numeric, float and jsonb, nor with INCLUDE). The statistics are looked up table by
-- table (OFFSET 0): joined, the planner walks those of the whole database.
SELECT i.indexrelid::int8 AS oid,
       pg_catalog.count(*)::int AS known,
       pg_catalog.sum((1 - s.null_frac) * s.avg_width)::float8 AS width,
       pg_catalog.array_agg(s.n_distinct::float8) AS distinct_values,
       pg_catalog.bool_and(a.atttypid NOT IN (700, 701, 1700, 3802)) AND i.indnatts = i.indnkeyatts AS merges,
       coalesce((SELECT option_value::int FROM pg_catalog.pg_options_to_table(c.reloptions)
                 WHERE option_name = 'fillfactor'), 90) AS fillfactor
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
JOIN LATERAL (
    SELECT attname, null_frac, avg_width, n_distinct
    FROM pg_catalog.pg_stats
    WHERE schemaname = n.nspname AND tablename = t.relname AND NOT inherited
    OFFSET 0
) AS s ON true
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) AND a.attname = s.attname
WHERE i.indexrelid = ANY (%(oids)s::oid[])
GROUP BY i.indexrelid, i.indnatts, i.indnkeyatts, c.reloptions
