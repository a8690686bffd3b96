SELECT pg_catalog.quote_ident(rolname) AS name FROM pg_catalog.pg_roles WHERE rolname NOT LIKE 'pg\_%%' ORDER BY 1 LIMIT %(limit)s
