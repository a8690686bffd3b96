SELECT pg_catalog.parse_ident(%(text)s) AS parts
