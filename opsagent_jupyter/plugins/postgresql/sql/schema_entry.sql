SELECT pg_catalog.quote_ident(n.nspname) AS schema, pg_catalog.has_schema_privilege(%(role)s::name, n.oid, 'USAGE') AS enters
FROM pg_catalog.pg_namespace AS n
WHERE n.oid = %(schema)s::oid
