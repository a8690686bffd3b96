SELECT name, setting, unit, vartype, context, source, boot_val, reset_val, pending_restart
FROM pg_catalog.pg_settings
WHERE name = ANY (%(names)s) OR pending_restart OR (name LIKE 'enable\_%%' AND vartype = 'bool' AND setting = 'off' AND boot_val = 'on')
ORDER BY name
