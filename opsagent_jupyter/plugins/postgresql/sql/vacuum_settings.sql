SELECT current_setting('autovacuum')::boolean AS autovacuum,
       current_setting('autovacuum_vacuum_threshold')::float8 AS threshold,
       current_setting('autovacuum_vacuum_scale_factor')::float8 AS scale,
       current_setting('autovacuum_vacuum_max_threshold', true)::float8 AS max_threshold,
       current_setting('autovacuum_analyze_threshold')::float8 AS analyze_threshold,
       current_setting('autovacuum_analyze_scale_factor')::float8 AS analyze_scale,
       current_setting('autovacuum_freeze_max_age')::int8 AS freeze_max_age,
       current_setting('autovacuum_multixact_freeze_max_age')::int8 AS multixact_max_age
