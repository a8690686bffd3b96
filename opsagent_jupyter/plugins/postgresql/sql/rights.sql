SELECT r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication,
       pg_catalog.pg_has_role(current_user, 'pg_monitor', 'USAGE') AS monitors,
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS reads_stats,
       pg_catalog.pg_has_role(current_user, 'pg_write_server_files', 'USAGE') AS writes_files,
       pg_catalog.pg_has_role(current_user, 'pg_execute_server_program', 'USAGE') AS runs_programs,
       ARRAY(SELECT m.rolname::text FROM pg_catalog.pg_roles AS m
             WHERE NOT r.rolsuper AND m.oid <> r.oid AND pg_catalog.pg_has_role(current_user, m.oid, 'MEMBER')
               AND (m.rolsuper OR m.rolcreaterole OR m.rolreplication OR m.rolbypassrls
                    OR m.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
                                     'pg_write_all_data'))
             ORDER BY 1) AS powers,
       r.rolcreatedb,
       pg_catalog.pg_is_in_recovery() AS standby,
       EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_stat_statements') AS has_statements
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user
