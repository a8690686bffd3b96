SELECT pg_catalog.count(*)::int8 AS statements,
       pg_catalog.count(*) FILTER (WHERE s.queryid IS NULL)::int8 AS hidden,
       coalesce(pg_catalog.sum(s.total_exec_time), 0) AS total
FROM {schema}.pg_stat_statements AS s
WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND pg_catalog.strpos(s.query, '/* opsagent */') = 0
