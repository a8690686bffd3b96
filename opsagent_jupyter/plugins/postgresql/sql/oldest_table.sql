-- The table of this database with the oldest transaction id, its TOAST counted as its own.
SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
            ELSE pg_catalog.format('%%I.%%I', n.nspname, c.relname) END AS table,
       greatest(pg_catalog.age(c.relfrozenxid), coalesce(pg_catalog.age(x.relfrozenxid), 0))::int8 AS xid_age,
       n.nspname = 'pg_catalog' AS system
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class AS x ON x.oid = c.reltoastrelid AND x.relfrozenxid::text <> '0'
WHERE c.relkind IN ('r', 'm') AND c.relfrozenxid::text <> '0' AND c.relpersistence <> 't'
ORDER BY greatest(pg_catalog.age(c.relfrozenxid), pg_catalog.mxid_age(c.relminmxid),
                  coalesce(pg_catalog.age(x.relfrozenxid), 0)) DESC, c.relpages DESC
LIMIT 1
