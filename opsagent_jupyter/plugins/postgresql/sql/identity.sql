SELECT pg_catalog.split_part(current_setting('server_version'), ' ', 1) AS version,
       current_database()::text AS database,
       (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database()) AS database_oid,
       current_user::text AS role,
       session_user::text AS session_role,
       current_setting('search_path') AS search_path
