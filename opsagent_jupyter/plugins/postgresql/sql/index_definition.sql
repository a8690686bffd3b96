-- Everything that is needed to build the index again. Waits for whoever holds the table exclusively.
SELECT pg_catalog.pg_get_indexdef(c.oid) AS definition,
       pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
       s.spcname::text AS tablespace,
       pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS qualified,
       (SELECT pg_catalog.array_agg(ARRAY[a.attnum::int, a.attstattarget::int]) FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attstattarget >= 0) AS targets
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_tablespace AS s ON s.oid = c.reltablespace
WHERE c.oid = %(index)s
