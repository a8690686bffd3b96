SELECT d.stats_reset, pg_catalog.date_part('epoch', now() - coalesce(d.stats_reset, pg_catalog.pg_postmaster_start_time())) AS seconds,
       pg_catalog.pg_is_in_recovery() AS standby,
       (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_stat_replication) AS standbys
FROM pg_catalog.pg_stat_database AS d
WHERE d.datname = current_database()
