-- The roles whose rights a role has without asking, and how each is written; every role for a superuser.
SELECT r.oid::int8 AS oid, pg_catalog.quote_ident(r.rolname) AS written,
       pg_catalog.pg_has_role(%(role)s::oid, r.oid, %(mode)s) AS reached,
       pg_catalog.pg_has_role(r.oid, 'USAGE') AS ours,
       r.rolname = current_user AS ourself,
       r.rolname::text AS name, r.rolcreaterole AS creates
FROM pg_catalog.pg_roles AS r
