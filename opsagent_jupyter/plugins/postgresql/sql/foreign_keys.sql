-- Foreign keys whose own side has no valid index that begins with their columns, in whatever order; the largest first.
SELECT f.conname::text AS name, t.oid::int8 AS oid,
       CASE WHEN pg_catalog.pg_table_is_visible(t.oid) THEN pg_catalog.quote_ident(t.relname)
            ELSE pg_catalog.format('%%I.%%I', n.nspname, t.relname) END AS table,
       CASE WHEN pg_catalog.pg_table_is_visible(p.oid) THEN pg_catalog.quote_ident(p.relname)
            ELSE pg_catalog.format('%%I.%%I', pn.nspname, p.relname) END AS parent,
       (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.place)
        FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = k.number) AS columns,
       greatest(t.reltuples, s.n_live_tup, 0)::float8 AS rows,
       t.relpages::int8 * current_setting('block_size')::int AS size,
       coalesce(ps.n_tup_del, 0)::int8 AS parent_deletes,
       t.relkind::text AS kind
FROM pg_catalog.pg_constraint AS f
JOIN pg_catalog.pg_class AS t ON t.oid = f.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_catalog.pg_class AS p ON p.oid = f.confrelid
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = t.oid
LEFT JOIN pg_catalog.pg_stat_all_tables AS ps ON ps.relid = p.oid
WHERE f.contype = 'f' AND f.conparentid = 0 AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_index AS i
      WHERE i.indrelid = t.oid AND i.indisvalid AND i.indpred IS NULL
        AND f.conkey <@ (pg_catalog.string_to_array(i.indkey::text, ' ')::int2[])[1:least(pg_catalog.cardinality(f.conkey), i.indnkeyatts)])
ORDER BY t.relpages DESC, f.conname
LIMIT 200
