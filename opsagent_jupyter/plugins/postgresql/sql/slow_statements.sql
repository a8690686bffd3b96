-- {schema} is where the extension was installed, {order} a column of a closed list; later columns by presence (jsonb).
SELECT s.queryid::text AS query_id,
       r.rolname::text AS role,
       s.calls::int8 AS calls,
       s.rows::int8 AS rows,
       s.total_exec_time AS total,
       s.mean_exec_time AS mean,
       s.max_exec_time AS longest,
       s.stddev_exec_time AS deviation,
       (s.shared_blks_hit + s.shared_blks_read)::int8 AS blocks,
       s.shared_blks_read::int8 AS blocks_read,
       s.temp_blks_written::int8 AS temp_blocks,
       s.wal_bytes::float8 AS wal_bytes,
       (pg_catalog.to_jsonb(s) ->> 'stats_since')::timestamptz AS since,
       s.query AS query
FROM (
    SELECT *
    FROM {schema}.pg_stat_statements AS p
    WHERE p.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND p.queryid IS NOT NULL
      AND pg_catalog.strpos(p.query, '/* opsagent */') = 0
      AND p.query !~* '^\s*(begin|start|commit|end|rollback|abort|savepoint|release|set|reset|show|discard|deallocate|explain|close|fetch|listen|unlisten)\M'
      AND NOT (p.query ~* '\mpassword\M' AND p.query !~* '^\s*(select|with|insert|update|delete|merge|values)\M')
      AND p.calls >= %(minimum)s
    ORDER BY p.{order} DESC, p.queryid
    LIMIT %(limit)s
) AS s
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.userid
ORDER BY s.{order} DESC, s.queryid
