SELECT current_setting('archive_mode') AS mode, a.archived_count::int8 AS archived, a.failed_count::int8 AS failed,
       a.last_archived_wal, now() - a.last_archived_time AS since_archived,
       a.last_failed_wal, now() - a.last_failed_time AS since_failed,
       coalesce(a.last_failed_time > a.last_archived_time, a.last_failed_time IS NOT NULL) AS failing
FROM pg_catalog.pg_stat_archiver AS a
