-- What goes with a role without being asked for: memberships both ways, settings by name, and who is the last superuser.
SELECT ARRAY(SELECT pg_catalog.format('%%I%%s', r.rolname, CASE WHEN m.admin_option THEN ' WITH ADMIN OPTION' ELSE '' END)
             FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
             WHERE m.member = %(role)s::oid ORDER BY 1) AS member_of,
       ARRAY(SELECT pg_catalog.format('%%I%%s', r.rolname, CASE WHEN m.admin_option THEN ' WITH ADMIN OPTION' ELSE '' END)
             FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.member
             WHERE m.roleid = %(role)s::oid ORDER BY 1) AS members,
       ARRAY(SELECT DISTINCT pg_catalog.split_part(c, '=', 1)
             FROM pg_catalog.pg_db_role_setting AS s, LATERAL unnest(s.setconfig) AS c
             WHERE s.setrole = %(role)s::oid ORDER BY 1) AS settings,
       ARRAY(SELECT pg_catalog.quote_ident(subname) FROM pg_catalog.pg_subscription
             WHERE subowner = %(role)s::oid ORDER BY 1) AS subscriptions,
       EXISTS (SELECT FROM pg_catalog.pg_roles AS r
               WHERE r.rolsuper AND r.rolcanlogin AND r.oid <> %(role)s::oid) AS other_superusers,
       pg_catalog.pg_has_role(current_user, %(role)s::oid, 'MEMBER') AS ours_through_it,
       me.rolcreaterole AS creates, me.rolsuper AS superuser
FROM pg_catalog.pg_roles AS me
WHERE me.rolname = current_user
