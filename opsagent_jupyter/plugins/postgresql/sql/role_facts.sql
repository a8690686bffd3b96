-- A role by its name as SQL reads it, or of exactly these letters; never its password.
SELECT r.oid::int8 AS oid, r.rolname::text AS name, pg_catalog.quote_ident(r.rolname) AS written,
       r.rolsuper AS superuser, r.rolcreaterole AS makes_roles, r.rolcreatedb AS makes_databases,
       r.rolreplication AS replicates, r.rolbypassrls AS bypasses, r.rolinherit AS inherits, r.rolcanlogin AS logs_in,
       r.rolconnlimit AS connection_limit, r.rolvaliduntil::text AS valid_until,
       pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment,
       ARRAY(SELECT m.rolname::text FROM pg_catalog.pg_roles AS m
             WHERE m.oid <> r.oid AND NOT r.rolsuper AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')
             ORDER BY 1) AS member_of,
       ARRAY(SELECT m.rolname::text FROM pg_catalog.pg_roles AS m
             WHERE pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')
               AND (m.rolsuper OR m.rolcreaterole OR m.rolreplication OR m.rolbypassrls
                    OR m.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
                                     'pg_write_all_data', 'pg_maintain'))
             ORDER BY 1) AS powers,
       pg_catalog.pg_has_role(r.oid, 'USAGE') AS ours,
       pg_catalog.pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION') AS administered,
       r.rolname IN (current_user, session_user) AS ourselves
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = ANY (%(names)s)
ORDER BY pg_catalog.array_position(%(names)s::text[], r.rolname::text)
LIMIT 1
