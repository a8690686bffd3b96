-- Tables that are published with UPDATE or DELETE and have nothing that tells their rows apart: those statements fail.
SELECT DISTINCT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
            ELSE pg_catalog.format('%%I.%%I', n.nspname, c.relname) END AS table, p.pubname::text AS publication
FROM pg_catalog.pg_publication AS p
JOIN pg_catalog.pg_class AS c ON c.relkind = 'r' AND c.relpersistence = 'p'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE (p.pubupdate OR p.pubdelete) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND (p.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel AS r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))
  AND (c.relreplident = 'n'
       OR (c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid))
       OR (c.relreplident = 'i' AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)))
ORDER BY 1, 2
LIMIT 50
