-- What a language model is told of a database: counts and versions from the catalogs alone, so that it is quick.
SELECT pg_catalog.pg_is_in_recovery() AS standby,
       (SELECT count(*)::int FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') AS tables,
       ARRAY(SELECT e.extname::text FROM pg_catalog.pg_extension AS e WHERE e.extname <> 'plpgsql' ORDER BY 1) AS extensions,
       ARRAY(SELECT e.extversion::text FROM pg_catalog.pg_extension AS e WHERE e.extname <> 'plpgsql'
             ORDER BY e.extname::text) AS versions
