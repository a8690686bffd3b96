SELECT a.attname::text AS name, pg_catalog.quote_ident(a.attname) AS written, a.attnum::int AS number, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
