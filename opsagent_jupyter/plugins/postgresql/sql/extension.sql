SELECT extversion::text AS version FROM pg_catalog.pg_extension WHERE extname = %(name)s
