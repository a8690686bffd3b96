SELECT pg_catalog.pg_last_wal_receive_lsn()::text AS received, pg_catalog.pg_last_wal_replay_lsn()::text AS replayed,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())::int8 AS behind_bytes,
       now() - pg_catalog.pg_last_xact_replay_timestamp() AS since_replay,
       pg_catalog.pg_is_wal_replay_paused() AS paused,
       (SELECT r.status FROM pg_catalog.pg_stat_wal_receiver AS r) AS receiver,
       (SELECT r.sender_host FROM pg_catalog.pg_stat_wal_receiver AS r) AS sender
