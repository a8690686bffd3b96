SELECT pg_catalog.pg_postmaster_start_time()::text AS started, current_setting('port') AS port, session_user::text AS session_role,
       (SELECT oid::int8 FROM pg_catalog.pg_database WHERE datname = 'template1') AS template
