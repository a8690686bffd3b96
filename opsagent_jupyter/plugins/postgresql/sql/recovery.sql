SELECT pg_catalog.pg_is_in_recovery() AS standby,
       current_setting('synchronous_standby_names') AS synchronous_names,
       current_setting('max_wal_senders')::int AS max_senders,
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS reads_stats
