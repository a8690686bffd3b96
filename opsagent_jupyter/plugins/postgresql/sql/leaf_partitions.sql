WITH RECURSIVE tree (oid) AS (  -- pg_partition_tree would wait for a partition that is locked exclusively
    SELECT %(table)s::oid
    UNION
    SELECT h.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
    JOIN pg_catalog.pg_class AS k ON k.oid = h.inhrelid AND k.relispartition
)
SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
            ELSE pg_catalog.format('%%I.%%I', n.nspname, c.relname) END AS shown
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid IN (SELECT oid FROM tree) AND c.relkind <> 'p'
ORDER BY c.relname
