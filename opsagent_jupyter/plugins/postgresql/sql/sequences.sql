-- How much of its numbers each sequence has used, by the smaller of its own end and that of the column it feeds.
-- Sequences that somebody holds exclusively are left out: reading them would wait.
WITH locked AS MATERIALIZED (
    SELECT relation FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
), fed AS (
    SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS number
    FROM pg_catalog.pg_depend AS d
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
      AND d.refobjsubid > 0
    UNION
    SELECT d.refobjid, f.adrelid, f.adnum
    FROM pg_catalog.pg_attrdef AS f
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
    WHERE d.refobjid <> f.adrelid
), known AS (
    SELECT c.oid, c.relname, n.nspname, s.seqmin, s.seqmax, s.seqstart, s.seqincrement AS step,
           pg_catalog.has_sequence_privilege(c.oid, 'SELECT,USAGE') AS readable, l.relation IS NOT NULL AS locked
    FROM pg_catalog.pg_sequence AS s
    JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN (SELECT DISTINCT relation FROM locked) AS l ON l.relation = c.oid
    WHERE NOT s.seqcycle AND c.relpersistence <> 't' AND (c.relpersistence = 'p' OR NOT pg_catalog.pg_is_in_recovery())
), used AS (
    SELECT k.*, CASE WHEN k.readable AND NOT k.locked THEN pg_catalog.pg_sequence_last_value(k.oid) END AS last
    FROM known AS k
)
SELECT CASE WHEN pg_catalog.pg_table_is_visible(u.oid) THEN pg_catalog.quote_ident(u.relname)
            ELSE pg_catalog.format('%%I.%%I', u.nspname, u.relname) END AS sequence,
       CASE WHEN t.oid IS NULL THEN NULL
            WHEN pg_catalog.pg_table_is_visible(t.oid) THEN pg_catalog.quote_ident(t.relname)
            ELSE pg_catalog.format('%%I.%%I', tn.nspname, t.relname) END AS table,
       a.attname::text AS column, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       u.step, u.last, u.readable, u.locked,
       CASE WHEN u.step < 0 THEN u.seqmin
            ELSE least(u.seqmax, CASE a.atttypid WHEN 21 THEN 32767 WHEN 23 THEN 2147483647 ELSE u.seqmax END) END AS "end",
       u.seqstart AS start
FROM used AS u
LEFT JOIN fed AS f ON f.sequence = u.oid
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.relation AND a.attnum = f.number
LEFT JOIN pg_catalog.pg_class AS t ON t.oid = f.relation
LEFT JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
ORDER BY sequence, "table", "column"
