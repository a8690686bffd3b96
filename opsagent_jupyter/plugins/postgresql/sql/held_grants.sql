-- Of a role's grants on what others own: those that DROP OWNED leaves, because somebody else granted them or the owner is
-- not ours to act as, and those that the role passed on, which go with its own.
WITH held AS (
    SELECT 'pg_catalog.pg_class'::regclass::oid AS class, c.oid, 0 AS sub, c.relowner AS owner, c.relacl AS acl
    FROM pg_catalog.pg_class AS c WHERE c.relacl IS NOT NULL AND NOT %(shared)s
    UNION ALL
    SELECT 'pg_catalog.pg_class'::regclass, c.oid, a.attnum, c.relowner, a.attacl
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND NOT %(shared)s
    UNION ALL
    SELECT 'pg_catalog.pg_namespace'::regclass, n.oid, 0, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace AS n WHERE NOT %(shared)s
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::regclass, p.oid, 0, p.proowner, p.proacl FROM pg_catalog.pg_proc AS p WHERE p.proacl IS NOT NULL AND NOT %(shared)s
    UNION ALL
    SELECT 'pg_catalog.pg_type'::regclass, t.oid, 0, t.typowner, t.typacl FROM pg_catalog.pg_type AS t WHERE t.typacl IS NOT NULL AND NOT %(shared)s
    UNION ALL
    SELECT 'pg_catalog.pg_foreign_server'::regclass, f.oid, 0, f.srvowner, f.srvacl FROM pg_catalog.pg_foreign_server AS f WHERE NOT %(shared)s
    UNION ALL
    SELECT 'pg_catalog.pg_database'::regclass, d.oid, 0, d.datdba, d.datacl FROM pg_catalog.pg_database AS d WHERE %(shared)s
    UNION ALL
    SELECT 'pg_catalog.pg_tablespace'::regclass, s.oid, 0, s.spcowner, s.spcacl FROM pg_catalog.pg_tablespace AS s WHERE %(shared)s
)
SELECT pg_catalog.pg_describe_object(h.class, h.oid, h.sub) AS object,
       pg_catalog.string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type) AS privileges,
       x.grantee = %(role)s::oid AS stuck,
       pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantor)) AS grantor,
       CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END AS grantee,
       x.grantor = h.owner AS by_owner
FROM held AS h, LATERAL pg_catalog.aclexplode(h.acl) AS x
WHERE h.owner <> %(role)s::oid
  AND ((x.grantee = %(role)s::oid AND (x.grantor <> h.owner OR NOT pg_catalog.pg_has_role(h.owner, 'USAGE')))
       OR (x.grantor = %(role)s::oid AND x.grantee <> %(role)s::oid))
GROUP BY h.class, h.oid, h.sub, x.grantor, x.grantee, h.owner
ORDER BY 1, 4, 5
