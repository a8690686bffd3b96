-- What else a right on a relation needs: to enter its schema, and the sequences that its serial columns draw from.
SELECT pg_catalog.quote_ident(n.nspname) AS schema,
       pg_catalog.has_schema_privilege(%(role)s::name, n.oid, 'USAGE') AS enters,
       ARRAY(SELECT pg_catalog.format('%%I.%%I', sn.nspname, s.relname)
             FROM pg_catalog.pg_depend AS d
             JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
             JOIN pg_catalog.pg_namespace AS sn ON sn.oid = s.relnamespace
             WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
               AND d.refobjid = c.oid AND d.deptype = 'a'
               -- CASE, because the planner may ask before it knows that this is a sequence
               AND CASE WHEN s.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege(%(role)s::name, s.oid, 'USAGE') END
             ORDER BY 1) AS sequences,
       c.relkind::text AS kind, c.relrowsecurity AS row_security
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = %(table)s::oid
