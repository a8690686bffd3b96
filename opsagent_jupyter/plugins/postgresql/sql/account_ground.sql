-- The schemas of this database and the roles that own tables in it, whoever made them first.
SELECT ARRAY(SELECT n.nspname::text FROM pg_catalog.pg_namespace AS n
             WHERE n.nspname NOT LIKE 'pg\_%%' AND n.nspname <> 'information_schema' ORDER BY 1) AS schemas,
       coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(o) ORDER BY o.name)
                 FROM (SELECT r.rolname::text AS name, count(*)::int AS tables, r.rolsuper AS superuser
                       FROM pg_catalog.pg_class AS c
                       JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                       JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
                       WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT LIKE 'pg\_%%'
                         AND n.nspname <> 'information_schema' AND NOT c.relispartition
                       GROUP BY 1, 3) AS o), '[]') AS owners
