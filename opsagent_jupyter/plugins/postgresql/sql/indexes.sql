-- Blocks behind no lock: sizes of what is locked exclusively come from the planner's page counts.
WITH RECURSIVE tree (oid) AS (  -- pg_partition_tree would wait for a partition that is locked exclusively
    SELECT %(table)s::oid
    UNION
    SELECT h.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
    JOIN pg_catalog.pg_class AS k ON k.oid = h.inhrelid AND k.relispartition
), locked AS MATERIALIZED (
    SELECT relation FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
)
SELECT i.indexrelid::int8 AS oid, i.indrelid::int8 AS table_oid,
       CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
            ELSE pg_catalog.format('%%I.%%I', n.nspname, c.relname) END AS index,
       CASE WHEN pg_catalog.pg_table_is_visible(t.oid) THEN pg_catalog.quote_ident(t.relname)
            ELSE pg_catalog.format('%%I.%%I', n.nspname, t.relname) END AS table,
       am.amname::text AS method,
       c.relkind::text AS kind,
       i.indisvalid AS valid, i.indisready AS ready, i.indislive AS live, i.indisunique AS is_unique,
       i.indisprimary AS is_primary, i.indisexclusion AS is_exclusion, i.indisreplident AS is_identity,
       i.indnkeyatts::int AS key_count,
       pg_catalog.string_to_array(i.indkey::text, ' ')::int[] AS keys,
       i.indclass::text AS classes, i.indcollation::text AS collations, i.indoption::text AS options,
       coalesce(pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct', 'false') AS nulls_equal,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
       pg_catalog.pg_get_expr(i.indexprs, i.indrelid) AS expressions,
       (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.place)
        FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) AS columns,
       CASE WHEN l.relation IS NULL AND %(sizes)s THEN pg_catalog.pg_relation_size(c.oid)
            ELSE c.relpages::int8 * current_setting('block_size')::int END AS size,
       l.relation IS NOT NULL AS locked,
       -- the planner's count, raised to what has been inserted since
       CASE WHEN t.reltuples > 0 THEN c.reltuples * greatest(1, coalesce(st.n_live_tup, 0) / t.reltuples)
            WHEN i.indpred IS NULL THEN coalesce(st.n_live_tup, 0) ELSE -1 END::float8 AS tuples,
       c.relpages::int8 AS pages,
       s.idx_scan::int8 AS scans,
       (pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz AS last_scan,
       k.conname::text AS constraint,
       (SELECT pg_catalog.array_agg(f.conname::text) FROM pg_catalog.pg_constraint AS f
        WHERE f.contype = 'f' AND f.conindid = i.indexrelid) AS referenced_by,
       (SELECT pg_catalog.array_agg(f.conname::text) FROM pg_catalog.pg_constraint AS f
        WHERE f.contype = 'f' AND f.conrelid = i.indrelid AND f.conkey[1] = i.indkey[0]) AS supports,
       EXISTS (SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = i.indexrelid) AS attached,
       p.phase AS phase,
       p.pid AS builder,
       EXISTS (SELECT FROM pg_catalog.pg_locks AS m WHERE m.locktype = 'relation' AND m.relation = i.indrelid
               AND m.mode = 'ShareUpdateExclusiveLock' AND m.granted) AS maintained
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_stat_user_indexes AS s ON s.indexrelid = i.indexrelid
LEFT JOIN pg_catalog.pg_stat_all_tables AS st ON st.relid = t.oid
LEFT JOIN pg_catalog.pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
LEFT JOIN pg_catalog.pg_stat_progress_create_index AS p ON p.index_relid = i.indexrelid
LEFT JOIN (SELECT DISTINCT relation FROM locked) AS l ON l.relation = c.oid
WHERE CASE WHEN %(table)s::oid IS NULL
           THEN n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
                AND n.nspname NOT LIKE 'pg\_temp\_%%' AND n.nspname NOT LIKE 'pg\_toast\_temp\_%%'
           ELSE t.oid IN (SELECT oid FROM tree) END
ORDER BY c.relpages DESC, c.oid
