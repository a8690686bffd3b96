-- Columns whose type has no default operator class for this access method, by the rule of the server's own look-up.
WITH RECURSIVE bases AS (
    SELECT a.attname, a.attnum, a.atttypid AS oid
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = %(table)s AND a.attnum = ANY (%(numbers)s::int[])
    UNION ALL
    SELECT b.attname, b.attnum, t.typbasetype
    FROM bases AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.oid AND t.typtype = 'd'
)
SELECT b.attname::text AS name, pg_catalog.format_type(t.oid, NULL) AS type
FROM bases AS b
JOIN pg_catalog.pg_type AS t ON t.oid = b.oid AND t.typtype <> 'd'
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_opclass AS o
    JOIN pg_catalog.pg_am AS m ON m.oid = o.opcmethod AND m.amname = %(method)s
    WHERE o.opcdefault
      AND (o.opcintype = t.oid
           OR EXISTS (SELECT FROM pg_catalog.pg_cast AS c
                      WHERE c.castsource = t.oid AND c.casttarget = o.opcintype AND c.castmethod = 'b'
                        AND c.castcontext = 'i')
           OR (t.typcategory = 'A' AND o.opcintype = 'anyarray'::regtype)
           OR (t.typtype = 'e' AND o.opcintype = 'anyenum'::regtype)
           OR (t.typtype = 'r' AND o.opcintype = 'anyrange'::regtype)
           OR (t.typtype = 'm' AND o.opcintype = pg_catalog.to_regtype('anymultirange'))
           OR (t.typtype = 'c' AND o.opcintype = 'record'::regtype))
)
ORDER BY b.attnum
