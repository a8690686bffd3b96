-- What a role can really do, whatever the reason: one row an object (or column) and privilege.
SELECT o.oid::int8 AS oid, o.sub, p.privilege,
       CASE %(class)s
           WHEN 'relation' THEN
               CASE WHEN o.sub > 0 THEN pg_catalog.has_column_privilege(%(role)s::name, o.oid, o.sub::int2, p.privilege)
                    WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(%(role)s::name, o.oid, p.privilege)
                    ELSE pg_catalog.has_table_privilege(%(role)s::name, o.oid, p.privilege) END
           WHEN 'schema' THEN pg_catalog.has_schema_privilege(%(role)s::name, o.oid, p.privilege)
           WHEN 'database' THEN pg_catalog.has_database_privilege(%(role)s::name, o.oid, p.privilege)
           WHEN 'function' THEN pg_catalog.has_function_privilege(%(role)s::name, o.oid, p.privilege)
           WHEN 'role' THEN pg_catalog.pg_has_role(%(role)s::name, o.oid, 'MEMBER')
       END AS held
FROM unnest(%(oids)s::oid[], %(subs)s::int[]) AS o(oid, sub)
CROSS JOIN unnest(%(privileges)s::text[]) AS p(privilege)
LEFT JOIN pg_catalog.pg_class AS c ON %(class)s = 'relation' AND c.oid = o.oid
