SELECT s.slot_name::text AS slot, s.slot_type AS type, s.database::text AS database, s.active, s.active_pid,
       s.wal_status, s.safe_wal_size::int8 AS safe_bytes,
       pg_catalog.pg_wal_lsn_diff(%(position)s::pg_lsn, s.restart_lsn)::int8 AS retained_bytes,
       pg_catalog.age(s.xmin)::int8 AS xmin_age, pg_catalog.age(s.catalog_xmin)::int8 AS catalog_xmin_age,
       now() - (pg_catalog.to_jsonb(s) ->> 'inactive_since')::timestamptz AS inactive,
       pg_catalog.to_jsonb(s) ->> 'invalidation_reason' AS invalidation,
       (pg_catalog.to_jsonb(s) ->> 'conflicting')::boolean AS conflicting
FROM pg_catalog.pg_replication_slots AS s
ORDER BY retained_bytes DESC NULLS LAST, s.slot_name
