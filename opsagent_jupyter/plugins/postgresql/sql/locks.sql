-- Who waits, and who is waited for, whoever they are. No relation is opened: names come from the catalog only.
WITH sessions AS MATERIALIZED (
    SELECT a.*, pg_catalog.pg_blocking_pids(a.pid) AS blocked_by
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.pid <> pg_catalog.pg_backend_pid()
), involved AS (
    SELECT pid FROM sessions WHERE pg_catalog.cardinality(blocked_by) > 0
    UNION
    SELECT pg_catalog.unnest(blocked_by) FROM sessions
)
SELECT a.pid, a.blocked_by, a.usename::text AS role, a.application_name AS application, a.datname::text AS database,
       a.backend_type AS kind, a.leader_pid AS leader, a.backend_start::text AS started,
       a.state, a.wait_event_type AS waits_for, a.wait_event AS event,
       now() - a.xact_start AS transaction, now() - a.state_change AS in_state,
       CASE WHEN pg_catalog.cardinality(a.blocked_by) > 0
            THEN now() - coalesce((pg_catalog.to_jsonb(l) ->> 'waitstart')::timestamptz, a.query_start) END AS waiting,
       l.locktype AS lock, l.mode,
       CASE WHEN coalesce(l.database, t.database) = (SELECT oid FROM pg_catalog.pg_database
                                                      WHERE datname = current_database())
            THEN (SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
                              ELSE pg_catalog.format('%%I.%%I', n.nspname, c.relname) END
                  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                  WHERE c.oid = coalesce(l.relation, t.relation)) END AS relation,
       a.query
FROM sessions AS a
JOIN involved AS i ON i.pid = a.pid
LEFT JOIN LATERAL (SELECT * FROM pg_catalog.pg_locks AS w WHERE w.pid = a.pid AND NOT w.granted LIMIT 1) AS l ON true
-- whoever waits for a row's last writer holds the place in that row's queue
LEFT JOIN LATERAL (SELECT * FROM pg_catalog.pg_locks AS h
                   WHERE h.pid = a.pid AND h.granted AND h.locktype = 'tuple' AND l.locktype = 'transactionid' LIMIT 1) AS t ON true
ORDER BY a.xact_start NULLS LAST, a.pid
