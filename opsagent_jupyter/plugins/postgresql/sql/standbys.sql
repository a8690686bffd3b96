SELECT r.pid, r.application_name AS standby, coalesce(pg_catalog.host(r.client_addr), 'local') AS client, r.state,
       r.sync_state AS sync,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.sent_lsn)::int8 AS send_bytes,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.flush_lsn)::int8 AS flush_bytes,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn)::int8 AS replay_bytes,
       r.write_lag, r.flush_lag, r.replay_lag, now() - r.reply_time AS last_reply
FROM pg_catalog.pg_stat_replication AS r
ORDER BY replay_bytes DESC NULLS LAST, r.application_name
