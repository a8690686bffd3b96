SELECT p.query, p.calls::int8 AS calls, p.mean_exec_time AS mean
FROM {schema}.pg_stat_statements AS p
WHERE p.queryid = %(query_id)s::int8
  AND p.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
ORDER BY p.total_exec_time DESC
LIMIT 1
