SELECT attname::text AS name
FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%(relation)s) AND attnum > 0 AND NOT attisdropped
