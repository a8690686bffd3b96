SELECT r.rolname::text AS name, r.rolcanlogin AS logs_in FROM pg_catalog.pg_roles AS r WHERE r.oid = %(role)s::oid
