SELECT d.blks_hit::int8 AS hits, d.blks_read::int8 AS reads, d.deadlocks::int8 AS deadlocks,
       d.temp_files::int8 AS temp_files, d.temp_bytes::int8 AS temp_bytes,
       coalesce(d.checksum_failures, 0)::int8 AS checksum_failures,
       pg_catalog.date_part('epoch', now() - coalesce(d.stats_reset, pg_catalog.pg_postmaster_start_time())) AS seconds,
       current_setting('shared_buffers') AS shared_buffers
FROM pg_catalog.pg_stat_database AS d
WHERE d.datname = current_database()
