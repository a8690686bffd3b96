-- The name as SQL reads it; failing that, the name of exactly these letters.
SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
       pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS written,
       CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
            ELSE pg_catalog.format('%%I.%%I', n.nspname, c.relname) END AS shown,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
       c.relpersistence::text AS persistence,
       c.reltuples::float8 AS rows, c.relpages::int8 AS pages, c.relfilenode::int8 AS filenode,
       c.relispartition AS is_partition
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = coalesce(pg_catalog.to_regclass(%(text)s), pg_catalog.to_regclass(%(quoted)s))
