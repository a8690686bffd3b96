SELECT c.checkpoints_timed::int8 AS timed, c.checkpoints_req::int8 AS requested, w.wal_bytes::float8 AS written,
       pg_catalog.pg_size_bytes(current_setting('max_wal_size'))::float8 AS "limit",
       pg_catalog.date_part('epoch', now() - coalesce(c.stats_reset, pg_catalog.pg_postmaster_start_time())) AS seconds
FROM pg_catalog.pg_stat_bgwriter AS c, pg_catalog.pg_stat_wal AS w
