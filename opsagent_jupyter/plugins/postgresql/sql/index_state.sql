-- The index of this name on this table, as the catalog has it now.
SELECT i.indexrelid::int8 AS oid, i.indisvalid AS valid, i.indisready AS ready, i.indisunique AS is_unique,
       am.amname::text AS method, i.indnkeyatts::int AS key_count,
       pg_catalog.string_to_array(i.indkey::text, ' ')::int[] AS keys,
       pg_catalog.string_to_array(i.indoption::text, ' ')::int[] AS options,
       i.indpred IS NOT NULL AS partial,
       c.relpages::int8 * current_setting('block_size')::int AS size
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
WHERE i.indrelid = %(table)s AND c.relname = %(name)s
