-- What a role that shall only look could change here: tables that it owns or may write, schemas in which it may create.
SELECT count(*) FILTER (WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE'))::int AS owned,
       count(*) FILTER (WHERE pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))::int AS writable,
       ARRAY(SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_namespace AS n
             WHERE n.nspname NOT LIKE 'pg\_%%' AND n.nspname <> 'information_schema'
               AND pg_catalog.has_schema_privilege(n.oid, 'CREATE') ORDER BY 1) AS creates,
       (SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') FROM pg_catalog.pg_database AS d
        WHERE d.datname = current_database()) AS owns_database
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND n.nspname NOT LIKE 'pg\_%%' AND n.nspname <> 'information_schema'
