-- A role as it is, in the words of a request for one; its memberships as the role oids.
SELECT r.oid::int8 AS oid, r.rolcanlogin AS login, r.rolinherit AS inherit, r.rolsuper AS superuser,
       r.rolcreatedb AS createdb, r.rolcreaterole AS createrole, r.rolreplication AS replication,
       r.rolbypassrls AS bypassrls, r.rolconnlimit AS connection_limit,
       r.rolvaliduntil IS NOT DISTINCT FROM %(valid_until)s::timestamptz AS valid_until,
       ARRAY(SELECT DISTINCT m.roleid::int8 FROM pg_catalog.pg_auth_members AS m WHERE m.member = r.oid ORDER BY 1) AS member_of
FROM pg_catalog.pg_roles AS r
WHERE r.rolname::text = %(name)s::text
