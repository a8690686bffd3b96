-- How far each database is from the end of transaction ids and of multixacts.
SELECT d.datname::text AS database, pg_catalog.age(d.datfrozenxid)::int8 AS xid_age,
       pg_catalog.mxid_age(d.datminmxid)::int8 AS multixact_age, d.datallowconn AS connectable,
       d.datname = current_database() AS here
FROM pg_catalog.pg_database AS d
ORDER BY greatest(pg_catalog.age(d.datfrozenxid), pg_catalog.mxid_age(d.datminmxid)) DESC
