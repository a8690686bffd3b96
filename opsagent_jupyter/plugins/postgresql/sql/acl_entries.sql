-- Who may do what with some objects and who gave it, defaults made plain: one row an entry. sub is a column's number.
-- Below release 16 a membership belongs to nobody in particular: anybody with ADMIN takes it away, so its grantor is 0.
WITH held AS (
    SELECT c.oid, 0 AS sub, ''::text AS column,
           coalesce(c.relacl, pg_catalog.acldefault((CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner)) AS acl
    FROM pg_catalog.pg_class AS c
    WHERE %(class)s = 'relation' AND c.oid = ANY (%(oids)s::oid[])
    UNION ALL
    SELECT a.attrelid, a.attnum, pg_catalog.quote_ident(a.attname), a.attacl
    FROM pg_catalog.pg_attribute AS a
    WHERE %(class)s = 'relation' AND a.attrelid = ANY (%(oids)s::oid[]) AND a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT n.oid, 0, '', coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
    FROM pg_catalog.pg_namespace AS n
    WHERE %(class)s = 'schema' AND n.oid = ANY (%(oids)s::oid[])
    UNION ALL
    SELECT d.oid, 0, '', coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))
    FROM pg_catalog.pg_database AS d
    WHERE %(class)s = 'database' AND d.oid = ANY (%(oids)s::oid[])
    UNION ALL
    SELECT p.oid, 0, '', coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
    FROM pg_catalog.pg_proc AS p
    WHERE %(class)s = 'function' AND p.oid = ANY (%(oids)s::oid[])
    UNION ALL
    SELECT f.defaclnamespace, 0, '', f.defaclacl
    FROM pg_catalog.pg_default_acl AS f
    WHERE %(class)s = 'future' AND f.defaclnamespace = ANY (%(oids)s::oid[]) AND f.defaclrole = %(maker)s::oid
      AND f.defaclobjtype = 'r'
)
SELECT h.oid::int8 AS oid, h.sub, h.column, x.privilege_type AS privilege, x.grantee::int8 AS grantee, x.grantor::int8 AS grantor,
       x.is_grantable AS grantable, NULL::boolean AS inherit, NULL::boolean AS set
FROM held AS h, LATERAL pg_catalog.aclexplode(h.acl) AS x
UNION ALL
SELECT m.roleid::int8, 0, '', 'MEMBER', m.member::int8, CASE WHEN %(grantors)s THEN m.grantor::int8 ELSE 0 END, m.admin_option,
       (pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, (pg_catalog.to_jsonb(m) ->> 'set_option')::boolean
FROM pg_catalog.pg_auth_members AS m
WHERE %(class)s = 'role' AND m.roleid = ANY (%(oids)s::oid[])
ORDER BY 1, 2, 3, 4, 5
