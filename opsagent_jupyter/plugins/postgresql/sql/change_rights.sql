SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owns,
       pg_catalog.has_schema_privilege(c.relnamespace, 'CREATE') AS creates,
       pg_catalog.pg_has_role(d.datdba, 'USAGE') AS owns_database,
       CASE WHEN %(maintain)s THEN pg_catalog.has_table_privilege(c.oid, 'MAINTAIN') ELSE false END AS maintains,
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') AS enters,
       pg_catalog.pg_is_in_recovery() AS standby
FROM pg_catalog.pg_class AS c, pg_catalog.pg_database AS d
WHERE c.oid = %(table)s AND d.datname = current_database()
