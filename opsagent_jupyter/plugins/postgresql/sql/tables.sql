WITH RECURSIVE tree (oid) AS (  -- pg_partition_tree would wait for a partition that is locked exclusively
    SELECT %(table)s::oid
    UNION
    SELECT h.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
    JOIN pg_catalog.pg_class AS k ON k.oid = h.inhrelid AND k.relispartition
), locked AS MATERIALIZED (
    SELECT DISTINCT relation FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
)
SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name,
       CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
            ELSE pg_catalog.format('%%I.%%I', n.nspname, c.relname) END AS table,
       c.relkind::text AS kind, c.relpersistence::text AS persistence, c.relispartition AS is_partition,
       c.reltuples::float8 AS counted, c.relpages::int8 AS pages, c.relallvisible::int8 AS all_visible,
       CASE WHEN c.relfrozenxid::text::int8 <> 0 THEN pg_catalog.age(c.relfrozenxid)::int8 END AS xid_age,
       CASE WHEN c.relminmxid::text::int8 <> 0 THEN pg_catalog.mxid_age(c.relminmxid)::int8 END AS multixact_age,
       CASE WHEN x.relfrozenxid::text::int8 <> 0 THEN pg_catalog.age(x.relfrozenxid)::int8 END AS toast_xid_age,
       l.relation IS NOT NULL AS locked,
       CASE WHEN l.relation IS NULL AND %(sizes)s THEN pg_catalog.pg_table_size(c.oid)
            ELSE (c.relpages::int8 + coalesce(x.relpages, 0)) * current_setting('block_size')::int END AS table_bytes,
       CASE WHEN l.relation IS NULL AND %(sizes)s THEN pg_catalog.pg_indexes_size(c.oid)
            ELSE coalesce((SELECT pg_catalog.sum(ic.relpages::int8) FROM pg_catalog.pg_index AS i
                           JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid WHERE i.indrelid = c.oid), 0)::int8
                 * current_setting('block_size')::int END AS index_bytes,
       CASE WHEN c.reltoastrelid <> 0 THEN x.relpages::int8 * current_setting('block_size')::int END AS toast_bytes,
       s.n_live_tup::int8 AS live, s.n_dead_tup::int8 AS dead, s.n_mod_since_analyze::int8 AS modified,
       coalesce((pg_catalog.to_jsonb(s) ->> 'n_ins_since_vacuum')::int8, 0) AS inserted,
       s.seq_scan::int8 AS seq_scans, s.seq_tup_read::int8 AS seq_rows, s.idx_scan::int8 AS index_scans,
       (s.n_tup_ins + s.n_tup_upd + s.n_tup_del)::int8 AS writes,
       greatest(s.last_vacuum, s.last_autovacuum) AS last_vacuum,
       greatest(s.last_analyze, s.last_autoanalyze) AS last_analyze,
       (io.heap_blks_hit + io.heap_blks_read)::int8 AS heap_blocks, io.heap_blks_read::int8 AS heap_reads,
       coalesce((SELECT pg_catalog.jsonb_object_agg(o.option_name, o.option_value)
                 FROM pg_catalog.pg_options_to_table(c.reloptions) AS o), '{}') AS options,
       EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum AS v WHERE v.relid = c.oid) AS vacuuming
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class AS x ON x.oid = c.reltoastrelid
LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
LEFT JOIN pg_catalog.pg_statio_all_tables AS io ON io.relid = c.oid
LEFT JOIN locked AS l ON l.relation = c.oid
WHERE (c.relkind IN ('r', 'm', 'p') OR c.oid = %(table)s::oid)
  AND CASE WHEN %(table)s::oid IS NULL
           THEN n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
                AND n.nspname NOT LIKE 'pg\_temp\_%%' AND n.nspname NOT LIKE 'pg\_toast\_temp\_%%'
           ELSE c.oid IN (SELECT oid FROM tree) END
ORDER BY c.relpages DESC, c.oid
LIMIT %(limit)s
