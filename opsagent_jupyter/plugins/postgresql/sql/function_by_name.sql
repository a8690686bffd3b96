-- A function by its signature, or by its bare name, of which there may be several.
SELECT p.oid::int8 AS oid, p.proname::text AS name, p.proowner::int8 AS owner, p.prokind::text AS kind,
       p.prosecdef AS definer,
       pg_catalog.format('%%I.%%I(%%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)) AS shown,
       pg_catalog.format('%%I.%%I(%%s)', n.nspname, p.proname,
           (SELECT pg_catalog.string_agg(pg_catalog.format('%%s.%%s', pg_catalog.quote_ident(tn.nspname), pg_catalog.quote_ident(t.typname)), ', ' ORDER BY a.position)
            FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a(type, position)
            JOIN pg_catalog.pg_type AS t ON t.oid = a.type
            JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace)) AS written,
       n.oid::int8 AS schema, n.nspname::text AS schema_name
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.oid = pg_catalog.to_regprocedure(%(signature)s)
   OR (%(bare)s::text[] IS NOT NULL AND p.proname = (%(bare)s::text[])[cardinality(%(bare)s::text[])]
       AND CASE WHEN cardinality(%(bare)s::text[]) = 2 THEN n.nspname = (%(bare)s::text[])[1]
                ELSE pg_catalog.pg_function_is_visible(p.oid) END)
ORDER BY 6
LIMIT 20
