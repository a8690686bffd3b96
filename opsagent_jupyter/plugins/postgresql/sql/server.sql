SELECT pg_catalog.split_part(current_setting('server_version'), ' ', 1) AS version,
       current_setting('server_version_num')::int AS number,
       current_database()::text AS database,
       d.oid::int8 AS database_oid,
       current_user::text AS role,
       r.rolsuper AS superuser,
       current_setting('block_size')::int AS block_size
FROM pg_catalog.pg_database AS d, pg_catalog.pg_roles AS r
WHERE d.datname = current_database() AND r.rolname = current_user
