-- A transaction that cannot write, cannot stay and cannot be talked out of it: after a first query of our own
-- SET TRANSACTION READ WRITE is an error. String syntax is pinned to what our parser assumed.
BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY;
SET LOCAL statement_timeout = {statement_timeout};
SET LOCAL lock_timeout = {lock_timeout};
SET LOCAL idle_in_transaction_session_timeout = {idle_timeout};
SET LOCAL standard_conforming_strings = on;
SET LOCAL backslash_quote = safe_encoding;
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT pg_catalog.current_schemas(true)::pg_catalog.text[],
       pg_catalog.current_setting('search_path'),
       pg_catalog.current_setting('jit'),
       pg_catalog.quote_ident(current_user),
       pg_catalog.set_config('search_path', 'pg_catalog', true),
       pg_catalog.set_config('jit', 'off', true),
       CASE WHEN pg_catalog.current_setting('is_superuser')::pg_catalog.bool
             AND pg_catalog.current_setting('temp_file_limit')::pg_catalog.text OPERATOR(pg_catalog.=) '-1'
            THEN pg_catalog.set_config('temp_file_limit', '1GB', true) END
