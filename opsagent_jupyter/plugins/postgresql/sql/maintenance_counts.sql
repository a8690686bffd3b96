-- How often the leaves of a table were maintained by hand. VACUUM FULL is not counted; it changes the file instead.
WITH RECURSIVE tree (oid) AS (  -- pg_partition_tree would wait for a partition that is locked exclusively
    SELECT %(table)s::oid
    UNION
    SELECT h.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
    JOIN pg_catalog.pg_class AS k ON k.oid = h.inhrelid AND k.relispartition
)
SELECT pg_catalog.count(*)::int AS leaves,
       coalesce(pg_catalog.sum(s.vacuum_count), 0)::int8 AS vacuums,
       coalesce(pg_catalog.sum(s.analyze_count), 0)::int8 AS analyzes,
       coalesce(pg_catalog.sum(s.n_dead_tup), 0)::int8 AS dead,
       pg_catalog.max(s.last_analyze)::text AS last_analyze,
       coalesce(pg_catalog.array_agg(c.relfilenode::int8 ORDER BY c.oid), '{}') AS filenodes,
       coalesce(pg_catalog.sum(c.relpages), 0)::int8 AS pages,
       current_setting('track_counts')::boolean AS counting
FROM pg_catalog.pg_class AS c
LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'm') AND c.oid IN (SELECT oid FROM tree)
