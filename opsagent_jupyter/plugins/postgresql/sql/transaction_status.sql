SELECT pg_catalog.pg_xact_status(%(xid)s::text::xid8) AS status
