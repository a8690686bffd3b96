SELECT r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication,
       pg_catalog.pg_has_role(current_user, 'pg_monitor', 'USAGE') AS monitors,
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS reads_stats,
       pg_catalog.pg_has_role(current_user, 'pg_write_server_files', 'USAGE') AS writes_files,
       pg_catalog.pg_has_role(current_user, 'pg_execute_server_program', 'USAGE') AS runs_programs,
       pg_catalog.pg_is_in_recovery() AS standby,
       EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_stat_statements') AS has_statements
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user
