-- Common table expressions: what the names of a statement stand for, by the rules of name resolution, and what can be used
-- without being named. Over-approximate: every candidate of an overloaded name counts. The question is one JSON object:
--   schemas       where unqualified names are looked up, in order; null: everywhere
--   runs          the statement is executed, not only planned. A planner calls functions labelled stable or immutable,
--                 operators (for estimates) and checks of domains itself, so below those everything `runs`.
--   writes        it would write: rules and defaults of its relations are planned with it
--   untrusted     pattern of libraries whose functions are never harmless
--   calls, fields, operators, types, relations    the names
question AS MATERIALIZED (
    SELECT q, (q ->> 'runs')::bool AS runs, (q ->> 'writes')::bool AS writes, q ->> 'untrusted' AS untrusted,
           CASE WHEN jsonb_typeof(q -> 'schemas') = 'array'
                THEN ARRAY(SELECT jsonb_array_elements_text(q -> 'schemas')) END AS schemas
      FROM (SELECT %(question)s::jsonb AS q) AS given
),
namespace AS (
    SELECT n.oid, n.nspname, q.schemas IS NULL OR n.nspname = ANY (q.schemas) AS visible,
           array_position(q.schemas, n.nspname::text) AS place
      FROM pg_catalog.pg_namespace n CROSS JOIN question q
),
call AS (
    SELECT c.*, row_number() OVER () AS nr
      FROM question, jsonb_to_recordset(q -> 'calls') AS c (nsp text, name text, arguments int)
),
field AS (
    SELECT f.* FROM question, jsonb_to_recordset(q -> 'fields') AS f (name text, nsp text, relation text)
),
operator AS (
    SELECT y.* FROM question, jsonb_to_recordset(q -> 'operators') AS y (nsp text, name text)
),
named_function AS (
    SELECT p.oid, fits.it, bool_or(fits.it) OVER (PARTITION BY c.nr) AS any_fits
      FROM call c
      JOIN pg_catalog.pg_proc p ON p.proname = c.name
      JOIN namespace n ON n.oid = p.pronamespace
     CROSS JOIN LATERAL (SELECT c.arguments < 0
                             OR c.arguments BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs
                             OR p.provariadic <> 0 AND c.arguments >= p.pronargs - 1 AS it) fits
     WHERE n.nspname = c.nsp OR c.nsp IS NULL AND n.visible
),
field_function AS (  -- x.name calls name(x) where x has no such column
    SELECT p.oid
      FROM field f
      JOIN pg_catalog.pg_proc p ON p.proname = f.name
      JOIN namespace n ON n.oid = p.pronamespace
     WHERE n.visible
       AND (1 BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs OR p.provariadic <> 0 AND p.pronargs <= 2)
       AND (f.relation IS NULL OR EXISTS (
            SELECT FROM pg_catalog.pg_class c
              JOIN namespace cn ON cn.oid = c.relnamespace
             WHERE c.relname = f.relation
               AND (cn.nspname = f.nsp OR f.nsp IS NULL AND cn.visible)
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                WHERE a.attrelid = c.oid AND a.attname = f.name AND NOT a.attisdropped)))
),
named_relation AS (
    SELECT c.oid,
           rank() OVER (PARTITION BY r.nsp, r.name ORDER BY n.place) AS place
      FROM question CROSS JOIN jsonb_to_recordset(q -> 'relations') AS r (nsp text, name text)
      JOIN pg_catalog.pg_class c ON c.relname = r.name
      JOIN namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = r.nsp OR r.nsp IS NULL AND n.visible
),
seed (classid, objid, runs, trusted, direct) AS (
    SELECT 'pg_catalog.pg_proc'::regclass::oid, oid, (SELECT runs FROM question), false, true
      FROM named_function WHERE it OR NOT any_fits
    UNION
    SELECT 'pg_catalog.pg_proc'::regclass, oid, (SELECT runs FROM question), false, true FROM field_function
    UNION
    SELECT 'pg_catalog.pg_class'::regclass, oid, (SELECT runs FROM question), false, true
      FROM named_relation WHERE place = 1
    UNION
    SELECT 'pg_catalog.pg_type'::regclass, t.oid, true, false, true
      FROM question CROSS JOIN jsonb_to_recordset(q -> 'types') AS y (nsp text, name text)
      JOIN pg_catalog.pg_type t ON t.typname = y.name
      JOIN namespace n ON n.oid = t.typnamespace
     WHERE t.oid >= 16384 AND (n.nspname = y.nsp OR y.nsp IS NULL AND n.visible)
    UNION  -- added operators and casts between the server's own types need no other name to be used
    SELECT 'pg_catalog.pg_operator'::regclass, o.oid, true, false, false FROM pg_catalog.pg_operator o
      JOIN namespace n ON n.oid = o.oprnamespace
      JOIN operator y ON y.name = o.oprname
                     AND (n.nspname = y.nsp OR y.nsp IS NULL AND n.visible)
     WHERE o.oid >= 16384 AND o.oprleft < 16384 AND o.oprright < 16384
    UNION
    SELECT 'pg_catalog.pg_operator'::regclass, s.amopopr, true, false, false
      FROM pg_catalog.pg_amop s JOIN pg_catalog.pg_am m ON m.oid = s.amopmethod AND m.amname IN ('btree', 'hash')
     WHERE s.oid >= 16384 AND s.amoplefttype < 16384 AND s.amoprighttype < 16384 AND s.amopopr >= 16384
    UNION
    SELECT 'pg_catalog.pg_cast'::regclass, c.oid, true, false, false FROM pg_catalog.pg_cast c
     WHERE c.oid >= 16384 AND c.castsource < 16384 AND c.casttarget < 16384
    UNION
    SELECT 'pg_catalog.pg_proc'::regclass, s.amproc::oid, true, false, false
      FROM pg_catalog.pg_amproc s
      JOIN pg_catalog.pg_proc p ON p.oid = s.amproc
     WHERE s.oid >= 16384 AND s.amproclefttype < 16384 AND s.amprocrighttype < 16384 AND s.amproc >= 16384
       AND s.amprocnum <= 4  -- the others take internal arguments, so they are C
       AND p.prolang <> 13  -- language c
)
