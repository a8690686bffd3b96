-- Functions and relations among {source}, with what decides whether they may run, and one row `object` if there is more.
found AS (
    SELECT classid, objid, bool_or(runs) AS runs, bool_and(trusted) AS trusted, bool_or(direct) AS direct
      FROM {source}
     WHERE classid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_class'::regclass)
     GROUP BY classid, objid
),
inside AS (  -- functions of the server that an added function of language internal is another name for
    SELECT own.prosrc, jsonb_agg(jsonb_build_array(own.proname, own.provolatile)) AS functions
      FROM pg_catalog.pg_proc own
     WHERE own.oid < 16384 AND own.prolang = 12
       AND own.prosrc IN (SELECT p.prosrc FROM found f JOIN pg_catalog.pg_proc p ON p.oid = f.objid
                           WHERE f.classid = 'pg_catalog.pg_proc'::regclass AND p.oid >= 16384 AND p.prolang = 12)
     GROUP BY own.prosrc
),
stored AS (  -- added functions in what the planner simplifies for every statement on a relation: calls of constants run
    SELECT x.relation, coalesce(o.oprcode::oid, d.refobjid) AS function,
           CASE WHEN o.oid IS NULL THEN x.expression END AS expression
      FROM found f
      JOIN LATERAL (
        SELECT i.indrelid AS relation, 'pg_catalog.pg_class'::regclass AS classid, i.indexrelid AS objid,
               concat_ws(', ', pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)) AS expression
          FROM pg_catalog.pg_index i
         WHERE i.indrelid = f.objid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
        UNION ALL
        SELECT k.conrelid, 'pg_catalog.pg_constraint'::regclass, k.oid, pg_get_expr(k.conbin, k.conrelid)
          FROM pg_catalog.pg_constraint k WHERE k.conrelid = f.objid AND k.contype = 'c'
        UNION ALL
        SELECT s.stxrelid, 'pg_catalog.pg_statistic_ext'::regclass, s.oid, NULL
          FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = f.objid
        UNION ALL
        SELECT p.partrelid, 'pg_catalog.pg_class'::regclass, p.partrelid, pg_get_expr(p.partexprs, p.partrelid)
          FROM pg_catalog.pg_partitioned_table p WHERE p.partrelid = f.objid AND p.partexprs IS NOT NULL
      ) x ON f.classid = 'pg_catalog.pg_class'::regclass
      JOIN pg_catalog.pg_depend d ON d.classid = x.classid AND d.objid = x.objid
                                 AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass)
      LEFT JOIN pg_catalog.pg_operator o ON d.refclassid = 'pg_catalog.pg_operator'::regclass AND o.oid = d.refobjid
),
function AS (
    SELECT 'function' AS what, objid AS oid, runs, trusted, direct, NULL AS expression
      FROM found WHERE classid = 'pg_catalog.pg_proc'::regclass
    UNION ALL
    SELECT 'stored', function, false, false, false, expression FROM stored
)
SELECT f.what, n.nspname, p.proname AS name, f.runs, f.trusted, f.direct, p.oid < 16384 AS own,
       jsonb_build_object(
           'language', l.lanname,
           'label', p.provolatile,
           'definer', p.prosecdef,
           'settings', p.proconfig,
           'aggregate', p.prokind = 'a',
           'extension', e.extname,
           'library', p.probin,
           'inside', CASE WHEN p.oid >= 16384 AND p.prolang = 12 THEN i.functions END,
           'parsed', CASE WHEN p.oid >= 16384 THEN (to_jsonb(p) ->> 'prosqlbody') IS NOT NULL END,
           'writes', CASE WHEN p.oid >= 16384
                          THEN (to_jsonb(p) ->> 'prosqlbody') ~ ':commandType [2-9]|:hasForUpdate true' END,
           'expression', f.expression,
           'source', CASE WHEN p.oid >= 16384 AND l.lanname = 'sql' THEN p.prosrc END
       ) AS facts
  FROM function f
 CROSS JOIN LATERAL (SELECT * FROM pg_catalog.pg_proc p WHERE p.oid = f.oid OFFSET 0) p  -- by index, however many there are
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  LEFT JOIN LATERAL (
      SELECT e.extname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
       WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e' OFFSET 0
  ) e ON true
  LEFT JOIN inside i ON i.prosrc = p.prosrc
UNION ALL
SELECT 'relation', n.nspname, c.relname, f.runs, f.trusted, f.direct, c.oid < 16384,
       jsonb_build_object(
           'kind', c.relkind,
           'plain', c.relkind IN ('r', 'p', 'm', 'S') AND NOT c.relrowsecurity AND NOT c.relhassubclass
                    AND (SELECT count(*) FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = c.oid AND (a.atttypid >= 16384 OR a.attgenerated = 'v'
                                                        OR a.atthasdef AND (SELECT writes FROM question))) = 0
                    AND NOT (c.relhasrules AND (SELECT writes FROM question))
                    AND NOT EXISTS (SELECT FROM stored s WHERE s.relation = c.oid),
           'usable', has_schema_privilege(n.oid, 'USAGE'),
           'fully_readable', has_table_privilege(c.oid, 'SELECT'),
           'quoted', format('%%I.%%I', n.nspname, c.relname),
           'quoted_schema', quote_ident(n.nspname),
           'wrapper', w.fdwname,
           'remote_estimate', EXISTS (
               SELECT FROM unnest(coalesce(s.srvoptions, '{}') || coalesce(t.ftoptions, '{}')) AS o (option)
                WHERE o.option ~* '^use_remote_estimate=' AND o.option !~* '=(f|fa|fal|fals|false|off|n|no|0)$')
       )
  FROM found f
 CROSS JOIN LATERAL (SELECT * FROM pg_catalog.pg_class c WHERE c.oid = f.objid OFFSET 0) c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_foreign_table t ON t.ftrelid = c.oid
  LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid = t.ftserver
  LEFT JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
 WHERE f.classid = 'pg_catalog.pg_class'::regclass
UNION ALL
SELECT 'object', '', '', true, false, true, false, '{}'
 WHERE EXISTS (SELECT FROM {source} WHERE classid NOT IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_class'::regclass))
