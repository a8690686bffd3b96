-- Common table expression: everything that the seeds can make the server run or read, followed through the catalog: views,
-- policies, SQL functions with parsed bodies, aggregates, operators, casts, domains, composite and range types, operator
-- classes. What belongs to the server itself (oid below 16384) ends a path, except its views. Below types, C functions that
-- an extension declares immutable are left out: a type of an extension would bring hundreds of them.
reach AS (
    SELECT * FROM seed
    UNION
    SELECT e.classid, e.objid, e.runs, e.trusted, false
      FROM reach r
     CROSS JOIN LATERAL (
        -- what an added object depends on, as the server recorded it
        SELECT d.refclassid AS classid, d.refobjid AS objid,
               r.runs OR r.classid = 'pg_catalog.pg_type'::regclass
                      OR d.refclassid IN ('pg_catalog.pg_type'::regclass, 'pg_catalog.pg_operator'::regclass)
                      OR r.classid = 'pg_catalog.pg_proc'::regclass
                         AND (SELECT p.provolatile <> 'v' FROM pg_catalog.pg_proc p WHERE p.oid = r.objid) AS runs,
               r.trusted
          FROM pg_catalog.pg_depend d
         WHERE d.classid = r.classid AND d.objid = r.objid AND d.deptype IN ('n', 'a', 'i')
           AND r.classid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_type'::regclass,
                             'pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_policy'::regclass,
                             'pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_attrdef'::regclass)
           AND (d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass,
                                 'pg_catalog.pg_type'::regclass)
                OR d.refclassid = 'pg_catalog.pg_class'::regclass
                   AND r.classid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_rewrite'::regclass,
                                     'pg_catalog.pg_policy'::regclass))
           AND NOT (r.classid = 'pg_catalog.pg_type'::regclass AND d.refclassid = 'pg_catalog.pg_proc'::regclass
                    AND EXISTS (SELECT FROM pg_catalog.pg_proc p
                                 WHERE p.oid = d.refobjid AND p.provolatile = 'i'
                                   AND (p.oid < 16384 OR p.prolang = 13 AND p.probin !~ (SELECT untrusted FROM question))))
        UNION ALL
        -- the server's own functions and relations, which it does not record: read from the stored expressions
        SELECT CASE m.hit[1] WHEN 'relid' THEN 'pg_catalog.pg_class'::regclass ELSE 'pg_catalog.pg_proc'::regclass END,
               m.hit[2]::oid, r.runs OR tree.runs, r.trusted
          FROM (
            SELECT concat(w.ev_action::text, w.ev_qual::text) AS body, false AS runs FROM pg_catalog.pg_rewrite w
             WHERE r.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = r.objid
            UNION ALL
            SELECT concat(o.polqual::text, o.polwithcheck::text), false FROM pg_catalog.pg_policy o
             WHERE r.classid = 'pg_catalog.pg_policy'::regclass AND o.oid = r.objid
            UNION ALL
            SELECT k.conbin::text, true FROM pg_catalog.pg_constraint k
             WHERE r.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = r.objid
            UNION ALL
            SELECT f.adbin::text, false FROM pg_catalog.pg_attrdef f
             WHERE r.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = r.objid
            UNION ALL
            SELECT concat(p.proargdefaults::text, to_jsonb(p) ->> 'prosqlbody'), p.provolatile <> 'v'
              FROM pg_catalog.pg_proc p
             WHERE r.classid = 'pg_catalog.pg_proc'::regclass AND r.objid >= 16384 AND p.oid = r.objid
          ) AS tree
         CROSS JOIN LATERAL regexp_matches(tree.body, ':(funcid|aggfnoid|winfnoid|tsmhandler|relid) (\d+)', 'g') AS m (hit)
         WHERE m.hit[2]::oid BETWEEN 1 AND 16383
        UNION ALL
        -- functions
        SELECT 'pg_catalog.pg_type'::regclass, y.id, true, r.trusted
          FROM pg_catalog.pg_proc p
         CROSS JOIN LATERAL unnest(p.proargtypes::oid[] || coalesce(p.proallargtypes, '{}') || p.prorettype) AS y (id)
         WHERE r.classid = 'pg_catalog.pg_proc'::regclass AND r.objid >= 16384 AND p.oid = r.objid AND y.id >= 16384
        UNION ALL
        SELECT 'pg_catalog.pg_proc'::regclass, y.id, r.runs, r.trusted
          FROM pg_catalog.pg_aggregate a
         CROSS JOIN LATERAL unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
                                         a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::oid[]) AS y (id)
         WHERE r.classid = 'pg_catalog.pg_proc'::regclass AND r.objid >= 16384 AND a.aggfnoid = r.objid AND y.id <> 0
        UNION ALL
        -- operators and casts
        SELECT 'pg_catalog.pg_proc'::regclass, o.oprcode::oid, true, r.trusted  -- its estimators can only be C
          FROM pg_catalog.pg_operator o
         WHERE r.classid = 'pg_catalog.pg_operator'::regclass AND r.objid >= 16384 AND o.oid = r.objid AND o.oprcode <> 0
        UNION ALL
        SELECT 'pg_catalog.pg_operator'::regclass, y.id, true, r.trusted
          FROM pg_catalog.pg_operator o CROSS JOIN LATERAL unnest(ARRAY[o.oprcom, o.oprnegate]) AS y (id)
         WHERE r.classid = 'pg_catalog.pg_operator'::regclass AND r.objid >= 16384 AND o.oid = r.objid AND y.id >= 16384
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass, y.id, true, r.trusted
          FROM pg_catalog.pg_operator o CROSS JOIN LATERAL unnest(ARRAY[o.oprleft, o.oprright, o.oprresult]) AS y (id)
         WHERE r.classid = 'pg_catalog.pg_operator'::regclass AND r.objid >= 16384 AND o.oid = r.objid AND y.id >= 16384
        UNION ALL
        SELECT 'pg_catalog.pg_proc'::regclass, c.castfunc, true, r.trusted FROM pg_catalog.pg_cast c
         WHERE r.classid = 'pg_catalog.pg_cast'::regclass AND c.oid = r.objid AND c.castfunc <> 0
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass, y.id, true, r.trusted
          FROM pg_catalog.pg_cast c CROSS JOIN LATERAL unnest(ARRAY[c.castsource, c.casttarget]) AS y (id)
         WHERE r.classid = 'pg_catalog.pg_cast'::regclass AND c.oid = r.objid AND y.id >= 16384
        UNION ALL
        -- types: what converts, compares, checks and makes them up
        SELECT 'pg_catalog.pg_cast'::regclass, c.oid, true, r.trusted FROM pg_catalog.pg_cast c
         WHERE r.classid = 'pg_catalog.pg_type'::regclass AND r.objid IN (c.castsource, c.casttarget)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p
                            WHERE p.oid = c.castfunc AND p.provolatile = 'i'
                              AND (p.oid < 16384 OR p.prolang = 13 AND p.probin !~ (SELECT untrusted FROM question)))
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass, y.id, true, r.trusted
          FROM pg_catalog.pg_cast c CROSS JOIN LATERAL unnest(ARRAY[c.castsource, c.casttarget]) AS y (id)
         WHERE r.classid = 'pg_catalog.pg_type'::regclass AND r.objid IN (c.castsource, c.casttarget) AND y.id >= 16384
        UNION ALL
        SELECT 'pg_catalog.pg_operator'::regclass, o.oid, true, r.trusted
          FROM pg_catalog.pg_operator o
         WHERE r.classid = 'pg_catalog.pg_type'::regclass AND r.objid IN (o.oprleft, o.oprright)
           AND (o.oprname IN (SELECT y.name FROM operator y)
                OR EXISTS (SELECT FROM pg_catalog.pg_amop s JOIN pg_catalog.pg_am a ON a.oid = s.amopmethod
                            WHERE s.amopopr = o.oid AND a.amname IN ('btree', 'hash')))
           AND EXISTS (SELECT FROM pg_catalog.pg_operator k JOIN pg_catalog.pg_proc p ON p.oid = k.oprcode
                        WHERE k.oid IN (o.oid, o.oprcom, o.oprnegate)
                          AND NOT (p.provolatile = 'i'
                                   AND (p.oid < 16384 OR p.prolang = 13 AND p.probin !~ (SELECT untrusted FROM question))))
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass, y.id, true, r.trusted
          FROM pg_catalog.pg_operator o CROSS JOIN LATERAL unnest(ARRAY[o.oprleft, o.oprright, o.oprresult]) AS y (id)
         WHERE r.classid = 'pg_catalog.pg_type'::regclass AND r.objid IN (o.oprleft, o.oprright) AND y.id >= 16384
           AND o.oprname IN (SELECT n.name FROM operator n)
        UNION ALL
        SELECT 'pg_catalog.pg_proc'::regclass, s.amproc::oid, true, r.trusted
          FROM pg_catalog.pg_amproc s
          JOIN pg_catalog.pg_proc p ON p.oid = s.amproc
         WHERE r.classid = 'pg_catalog.pg_type'::regclass AND r.objid IN (s.amproclefttype, s.amprocrighttype)
           AND p.prolang <> 13  -- language c
        UNION ALL
        SELECT 'pg_catalog.pg_proc'::regclass, y.id, true, r.trusted
          FROM pg_catalog.pg_range g CROSS JOIN LATERAL unnest(ARRAY[g.rngcanonical, g.rngsubdiff]::oid[]) AS y (id)
         WHERE r.classid = 'pg_catalog.pg_type'::regclass AND g.rngtypid = r.objid AND y.id <> 0
        UNION ALL
        SELECT 'pg_catalog.pg_constraint'::regclass, k.oid, true, r.trusted FROM pg_catalog.pg_constraint k
         WHERE r.classid = 'pg_catalog.pg_type'::regclass AND k.contypid = r.objid
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass, a.atttypid, true, r.trusted
          FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid
         WHERE r.classid = 'pg_catalog.pg_type'::regclass AND t.oid = r.objid AND t.typrelid <> 0 AND a.atttypid >= 16384
        UNION ALL
        -- relations
        SELECT 'pg_catalog.pg_type'::regclass, a.atttypid, true, r.trusted FROM pg_catalog.pg_attribute a
         WHERE r.classid = 'pg_catalog.pg_class'::regclass AND a.attrelid = r.objid AND a.atttypid >= 16384
        UNION ALL
        SELECT 'pg_catalog.pg_rewrite'::regclass, w.oid, r.runs, r.trusted OR r.objid < 16384
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid
         WHERE r.classid = 'pg_catalog.pg_class'::regclass AND c.oid = r.objid
           AND (w.ev_type = '1' AND c.relkind = 'v' OR w.ev_type <> '1' AND (SELECT writes FROM question))
        UNION ALL
        SELECT 'pg_catalog.pg_class'::regclass, i.inhrelid, r.runs, r.trusted FROM pg_catalog.pg_inherits i
         WHERE r.classid = 'pg_catalog.pg_class'::regclass AND i.inhparent = r.objid
        UNION ALL
        SELECT 'pg_catalog.pg_policy'::regclass, o.oid, r.runs, r.trusted
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_policy o ON o.polrelid = c.oid
         WHERE r.classid = 'pg_catalog.pg_class'::regclass AND c.oid = r.objid AND c.relrowsecurity
           AND (NOT r.direct OR row_security_active(c.oid))
        UNION ALL
        SELECT 'pg_catalog.pg_attrdef'::regclass, f.oid, r.runs, r.trusted
          FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
         WHERE r.classid = 'pg_catalog.pg_class'::regclass AND a.attrelid = r.objid
           AND (a.attgenerated = 'v' OR (SELECT writes FROM question))
     ) AS e
)
