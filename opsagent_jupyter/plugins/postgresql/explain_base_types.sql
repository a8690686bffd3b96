-- The type below each domain among the types given, so that a NULL can stand for it without running its checks.
WITH RECURSIVE below AS (
    SELECT t.oid AS given, t.oid, t.typtype, t.typbasetype
      FROM pg_catalog.pg_type t
     WHERE t.oid OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.oid[])
    UNION ALL
    SELECT b.given, t.oid, t.typtype, t.typbasetype
      FROM below b JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) b.typbasetype
)
SELECT given, oid FROM below WHERE typtype::pg_catalog.text OPERATOR(pg_catalog.<>) 'd'
