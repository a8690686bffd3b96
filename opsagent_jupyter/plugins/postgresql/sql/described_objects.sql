-- The objects behind dependencies, as a person calls them; NULL for one that is gone meanwhile.
SELECT o.class, o.object, o.sub, o.type,
       CASE WHEN o.class = 'pg_catalog.pg_database'::regclass::oid::int8
            THEN 'database ' || (SELECT pg_catalog.quote_ident(datname) FROM pg_catalog.pg_database WHERE oid = o.object::oid)
            ELSE pg_catalog.pg_describe_object(o.class::oid, o.object::oid, o.sub) END AS described
FROM unnest(%(classes)s::int8[], %(objects)s::int8[], %(subs)s::int[], %(types)s::text[]) AS o(class, object, sub, type)
