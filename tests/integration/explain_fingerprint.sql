-- Everything in the server that a statement could have changed for good, as one JSON object.
SELECT jsonb_build_object(
    'rows', (SELECT md5(string_agg(a::text, ',' ORDER BY a.id)) FROM public.acct a),
    'other rows', (SELECT md5(concat((SELECT string_agg(m::text, ',' ORDER BY m.id) FROM public.moods m),
                                     (SELECT string_agg(d::text, ',' ORDER BY d.id) FROM public.defaulted d),
                                     (SELECT string_agg(r::text, ',' ORDER BY r.id) FROM public.ruled r),
                                     (SELECT string_agg(e::text, ',' ORDER BY e.id) FROM public.evil_table e),
                                     (SELECT count(*)::text FROM shop.orders)))),
    'sequence', (SELECT concat_ws(':', last_value, log_cnt, is_called) FROM public.s1),
    'relations', (SELECT md5(string_agg(concat_ws(':', c.oid, c.relname, c.relkind, c.relfilenode, c.relpages, c.reltuples, c.relacl), ','
                                        ORDER BY c.oid))
                    FROM pg_class c WHERE c.oid >= 16384),
    'functions', (SELECT md5(string_agg(concat_ws(':', p.oid, p.proname, p.prosrc), ',' ORDER BY p.oid)) FROM pg_proc p WHERE p.oid >= 16384),
    'columns', (SELECT count(*) FROM pg_attribute WHERE attrelid >= 16384),
    'statistics of columns', (SELECT md5(string_agg(concat_ws(':', starelid, staattnum, stadistinct, stanullfrac), ',' ORDER BY starelid, staattnum))
                                FROM pg_statistic WHERE starelid >= 16384),
    'roles', (SELECT md5(string_agg(r::text, ',' ORDER BY r.oid)) FROM pg_authid r),
    'settings of roles', (SELECT count(*) FROM pg_db_role_setting),
    'databases', (SELECT array_agg(datname ORDER BY datname) FROM pg_database),
    'collations', (SELECT count(*) FROM pg_collation),
    'large objects', (SELECT md5(string_agg(l::text, ',' ORDER BY l.loid, l.pageno)) FROM pg_largeobject l),
    'large object owners', (SELECT count(*) FROM pg_largeobject_metadata),
    'slots', (SELECT array_agg(concat_ws(':', slot_name, slot_type, active, restart_lsn, confirmed_flush_lsn) ORDER BY slot_name) FROM pg_replication_slots),
    'origins', (SELECT array_agg(roname ORDER BY roname) FROM pg_replication_origin),
    'publications', (SELECT count(*) FROM pg_publication),
    'prepared transactions', (SELECT count(*) FROM pg_prepared_xacts),
    'database statistics', (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()),
    'shared statistics', (SELECT jsonb_build_array((SELECT stats_reset FROM pg_stat_bgwriter), (SELECT stats_reset FROM pg_stat_archiver),
                                                   (SELECT array_agg(stats_reset ORDER BY name) FROM pg_stat_slru))),
    'statement statistics', (SELECT count(*) > 1 FROM pg_stat_statements),
    'table statistics', (SELECT jsonb_build_array(n_tup_ins > 0, last_vacuum, last_analyze) FROM pg_stat_user_tables WHERE relid = 'public.acct'::regclass),
    'visibility map', (SELECT v::text FROM pg_visibility_map_summary('public.acct') v),
    'advisory locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
    'other locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND pid <> pg_backend_pid() AND relation >= 16384),
    'transaction ids', (SELECT pg_snapshot_xmax(pg_current_snapshot())::text),
    'configuration', pg_conf_load_time(),
    'recovery', pg_is_in_recovery(),
    'sentinel', (SELECT array_agg(concat_ws(':', pid, backend_start, query_start, state)) FROM pg_stat_activity WHERE application_name = 'sentinel')
)
