SELECT w.name, pg_catalog.quote_ident(w.name) AS written, pg_catalog.format('%%I.%%I', n.nspname, w.name) AS qualified,
       (SELECT c.relkind::text FROM pg_catalog.pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = w.name) AS taken_by
FROM pg_catalog.unnest(%(names)s::text[]) WITH ORDINALITY AS w (name, place)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = %(schema)s
ORDER BY w.place
