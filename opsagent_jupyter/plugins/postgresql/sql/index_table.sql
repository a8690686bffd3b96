SELECT pg_catalog.format('%%I.%%I', n.nspname, t.relname) AS table
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
WHERE i.indexrelid = %(index)s
