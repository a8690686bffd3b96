-- Two roles for OpsAgent on PostgreSQL {version}, for its database {database}: one that only looks, one that also changes.
-- Run it with psql as a superuser, connected to {database}. Nothing here has been run.
-- The roles are made without a password. \password asks for one and sends only what the server checks it with (SCRAM),
-- so that it stands in no log and in no history.

-- {observer} sees everything and changes nothing. Attach with --read-only.
CREATE ROLE {observer} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 10;
\password {observer}
GRANT CONNECT ON DATABASE {database} TO {observer};
-- What runs, who waits, statistics and settings, of all roles.
GRANT pg_monitor TO {observer};
{reading}
-- A belt beside the braces: the role can switch this off, its missing rights it cannot.
ALTER ROLE {observer} SET default_transaction_read_only = on;

-- {operator} carries out what a person has approved. It is no superuser and makes no roles.
CREATE ROLE {operator} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 10;
\password {operator}
GRANT CONNECT ON DATABASE {database} TO {operator};
GRANT pg_monitor TO {operator};
-- kill_connection: sessions of all roles but superusers.
GRANT pg_signal_backend TO {operator};
{working}
-- Indexes, and rights on objects: only the owner changes them, so the operator gets the owners' rights.
{owning}

-- create_user, drop_user and membership in roles, only if you want them from here:
-- ALTER ROLE {operator} CREATEROLE;
{making}
