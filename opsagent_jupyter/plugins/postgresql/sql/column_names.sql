SELECT a.attrelid::int8 AS oid, pg_catalog.quote_ident(a.attname) AS name
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
LIMIT %(limit)s
