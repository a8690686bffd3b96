SELECT dealloc::int8 AS dealloc, stats_reset, pg_catalog.date_part('epoch', now() - stats_reset) AS seconds
FROM {schema}.pg_stat_statements_info
