-- The indexes of a table, of its partitions and of their TOAST tables; REINDEX goes through the wanted ones. No lock is
-- waited for: the size of an index that is locked exclusively is the planner's page count.
WITH RECURSIVE tree (oid) AS (
    SELECT %(table)s::oid
    UNION
    SELECT h.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
    JOIN pg_catalog.pg_class AS k ON k.oid = h.inhrelid AND k.relispartition
), parts (oid) AS (
    SELECT %(index)s::oid
    UNION
    SELECT h.inhrelid FROM parts JOIN pg_catalog.pg_inherits AS h ON h.inhparent = parts.oid
), locked AS MATERIALIZED (
    SELECT DISTINCT relation FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
)
SELECT i.indexrelid::int8 AS oid, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS index, c.relname::text AS name,
       %(index)s::oid IS NULL OR i.indexrelid IN (SELECT oid FROM parts) AS wanted,
       i.indisvalid AS valid, i.indisready AS ready, i.indisunique AS is_unique, i.indisexclusion AS is_exclusion,
       pg_catalog.pg_relation_filenode(c.oid)::int8 AS filenode,
       t.relpages::int8 * current_setting('block_size')::int AS table_bytes,
       CASE WHEN l.relation IS NULL AND %(sizes)s THEN pg_catalog.pg_relation_size(c.oid)
            ELSE c.relpages::int8 * current_setting('block_size')::int END AS size,
       l.relation IS NOT NULL AS locked
FROM tree
JOIN pg_catalog.pg_class AS o ON o.oid = tree.oid
JOIN pg_catalog.pg_class AS t ON t.oid IN (o.oid, o.reltoastrelid)
JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN locked AS l ON l.relation = c.oid
ORDER BY c.relpages DESC, c.oid
