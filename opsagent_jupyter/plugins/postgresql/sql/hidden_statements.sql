SELECT pg_catalog.count(*)::int AS hidden FROM {schema}.pg_stat_statements WHERE queryid IS NULL
