-- Mean width of a row from the planner's statistics; only tables of which all columns are known. The statistics are looked
-- up table by table (OFFSET 0): joined, the planner walks those of the whole database.
SELECT c.oid::int8 AS oid,
       pg_catalog.sum((1 - s.null_frac) * s.avg_width)::float8 AS width,
       pg_catalog.bool_or(s.null_frac > 0) AS has_nulls,
       pg_catalog.count(*)::int AS columns
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN LATERAL (
    SELECT null_frac, avg_width
    FROM pg_catalog.pg_stats
    WHERE schemaname = n.nspname AND tablename = c.relname AND NOT inherited
    OFFSET 0
) AS s ON true
WHERE c.oid = ANY (%(oids)s::oid[])
GROUP BY c.oid
HAVING pg_catalog.count(*) = (
    SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
)
