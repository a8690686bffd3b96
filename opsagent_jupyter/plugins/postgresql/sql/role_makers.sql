-- What our role may give to a new role, and how the new role's name is written.
SELECT pg_catalog.quote_ident(%(name)s::text) AS written,
       EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname::text = %(name)s::text) AS taken,
       pg_catalog.pg_is_in_recovery() AS standby,
       r.rolsuper AS superuser, r.rolcreaterole AS createrole, r.rolcreatedb AS createdb,
       r.rolreplication AS replication, r.rolbypassrls AS bypassrls,
       coalesce(%(valid_until)s::timestamptz <= now(), false) AS past,
       (SELECT count(*) FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate)::int AS databases
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user
