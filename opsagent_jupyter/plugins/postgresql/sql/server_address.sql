SELECT coalesce(pg_catalog.host(inet_server_addr()), 'local') || ':' || current_setting('port') AS address
