-- What GRANT ... ON ALL TABLES IN SCHEMA reaches: tables, views, materialized views, foreign and partitioned tables.
SELECT c.oid::int8 AS oid, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS written, c.relowner::int8 AS owner
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relnamespace = %(schema)s::oid AND c.relkind IN ('r', 'v', 'm', 'f', 'p')
ORDER BY c.relname
