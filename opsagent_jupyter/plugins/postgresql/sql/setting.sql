SELECT pg_catalog.set_config(%(name)s, %(value)s, false)
