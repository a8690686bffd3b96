-- Recorded reads that name this table and this column.
SELECT p.query
FROM {schema}.pg_stat_statements AS p
WHERE p.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND p.query ~* '^\s*(select|with)\M' AND p.query ~* %(table)s AND p.query ~* %(column)s
  AND pg_catalog.strpos(p.query, '/* opsagent */') = 0
ORDER BY p.total_exec_time DESC
LIMIT 3
