SELECT current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int AS reserved_for_superusers,
       coalesce(current_setting('reserved_connections', true), '0')::int AS reserved,
       (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_stat_activity
        WHERE coalesce(backend_type, 'client backend') IN ('client backend', 'walsender')
          AND (datid IS NOT NULL OR backend_type = 'walsender')) AS used,
       (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_stat_activity
        WHERE backend_type IS NULL AND datid IS NOT NULL) AS hidden,
       current_setting('idle_in_transaction_session_timeout') AS idle_limit
