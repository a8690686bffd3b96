-- The database of test_explain_safety: a small shop, and next to it everything that a hostile or careless person could
-- have left behind for EXPLAIN to run. Every trap really works when it is run without the guard (test_traps_are_live).
-- Statements run one by one, each in its own transaction, as superuser postgres with password sentinelpw; contrib is there.

-- --- what the shop needs

CREATE EXTENSION IF NOT EXISTS citext;
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS btree_gin;
CREATE EXTENSION IF NOT EXISTS ltree;
CREATE EXTENSION IF NOT EXISTS unaccent;
CREATE EXTENSION IF NOT EXISTS intarray;
CREATE EXTENSION IF NOT EXISTS fuzzystrmatch;
CREATE EXTENSION IF NOT EXISTS tsm_system_rows;
CREATE EXTENSION IF NOT EXISTS pgstattuple;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE EXTENSION IF NOT EXISTS pg_buffercache;

CREATE TABLE acct (id int PRIMARY KEY, v int);
INSERT INTO acct SELECT n, n % 10 FROM generate_series(1, 200) n;
CREATE INDEX acct_v_idx ON acct (v);
CREATE SEQUENCE s1;

CREATE SCHEMA shop;
CREATE TYPE shop.order_status AS ENUM ('new', 'paid', 'sent', 'returned');
CREATE TYPE shop.address AS (street text, city text, zip text);
CREATE DOMAIN shop.positive AS numeric CHECK (VALUE >= 0);
CREATE DOMAIN shop.postcode AS text CHECK (VALUE ~ '^\d{5}$');
CREATE TYPE shop.price_range AS RANGE (subtype = numeric);

CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email citext,
    region text,
    home shop.address,
    zip shop.postcode,
    labels hstore,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shop.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES shop.customers,
    status shop.order_status NOT NULL DEFAULT 'new',
    total shop.positive NOT NULL DEFAULT 0,
    net numeric GENERATED ALWAYS AS (total * 0.81) STORED,
    tags text[] NOT NULL DEFAULT '{}',
    doc jsonb NOT NULL DEFAULT '{}',
    note text,
    words tsvector,
    path ltree,
    span shop.price_range,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shop.events (at timestamptz NOT NULL, kind text, payload jsonb) PARTITION BY RANGE (at);
CREATE TABLE shop.events_2024 PARTITION OF shop.events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE shop.events_2025 PARTITION OF shop.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE shop."Odd Name" ("Select" int, "from" text);
INSERT INTO shop.customers (name, email, region, home, zip)
    SELECT 'customer ' || n, 'c' || n || '@example.org', (ARRAY['eu', 'us', 'apac'])[1 + n % 3],
           ROW('Main street ' || n, 'Town', '12345')::shop.address, '12345'
      FROM generate_series(1, 300) n;
INSERT INTO shop.orders (customer_id, total, tags, doc, words, path)
    SELECT 1 + n % 300, n % 97, ARRAY['a', 'b'], jsonb_build_object('n', n), to_tsvector('simple', 'order ' || n), 'top.sub'
      FROM generate_series(1, 2000) n;
INSERT INTO shop.events SELECT '2024-01-01'::timestamptz + n * interval '1 hour', 'click', '{}' FROM generate_series(1, 500) n;
CREATE INDEX orders_customer_id_idx ON shop.orders (customer_id);
CREATE INDEX orders_note_idx ON shop.orders USING gin (note gin_trgm_ops);
CREATE INDEX customers_lower_idx ON shop.customers (lower(name)) WHERE region = 'eu';

CREATE FUNCTION my_pure(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
CREATE FUNCTION shop.gross(numeric, rate numeric DEFAULT 0.19) RETURNS numeric LANGUAGE sql AS 'SELECT $1 * (1 + rate)';
CREATE FUNCTION shop.full_label(shop.customers) RETURNS text LANGUAGE sql STABLE
    AS $$ SELECT $1.name || ' (' || coalesce($1.region, '?') || ')' $$;
CREATE FUNCTION shop.open_orders(bigint) RETURNS SETOF shop.orders LANGUAGE sql STABLE ROWS 10
    AS $$ SELECT o.* FROM shop.orders o WHERE o.customer_id = $1 AND o.status <> 'returned' $$;
CREATE FUNCTION shop.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT public.my_pure(public.my_pure($1))';
CREATE FUNCTION shop.rate(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN $1 * 2; END $$;  -- volatile by default
CREATE AGGREGATE shop.product(numeric) (sfunc = numeric_mul, stype = numeric, initcond = '1');
CREATE OPERATOR shop.%% (leftarg = int, rightarg = int, procedure = int4mod);
CREATE VIEW shop.v_orders AS
    SELECT o.id, o.status, shop.gross(o.total) AS gross, c.name FROM shop.orders o JOIN shop.customers c ON c.id = o.customer_id;
CREATE VIEW shop.v_open AS SELECT * FROM shop.v_orders WHERE status IN ('new', 'paid');
CREATE MATERIALIZED VIEW mv1 AS SELECT v, count(*) AS n FROM acct GROUP BY v;
CREATE TABLE shop.tenants (id int, owner name DEFAULT current_user);
ALTER TABLE shop.tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.tenants USING (owner = current_user OR id < 10);

-- --- what a lasting effect would show in

CREATE EXTENSION IF NOT EXISTS dblink;
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
CREATE EXTENSION IF NOT EXISTS file_fdw;
CREATE EXTENSION IF NOT EXISTS tablefunc;
CREATE EXTENSION IF NOT EXISTS pg_prewarm;
CREATE EXTENSION IF NOT EXISTS pg_visibility;
DO $$ BEGIN CREATE EXTENSION IF NOT EXISTS pg_surgery; EXCEPTION WHEN OTHERS THEN NULL; END $$;  -- from 14 on
SELECT lo_from_bytea(12345, '\x6b656570');
SELECT pg_create_physical_replication_slot('keepme') WHERE NOT EXISTS (SELECT FROM pg_replication_slots);

-- --- traps: functions

CREATE FUNCTION bump() RETURNS int LANGUAGE plpgsql AS $$ BEGIN UPDATE acct SET v = v + 1; RETURN 1; END $$;
CREATE FUNCTION bump_secdef() RETURNS int LANGUAGE plpgsql SECURITY DEFINER
    AS $$ BEGIN UPDATE acct SET v = v + 1; RETURN 1; END $$;
CREATE FUNCTION bump_sql() RETURNS int LANGUAGE sql AS 'UPDATE acct SET v = v + 1; SELECT 1';
CREATE FUNCTION f_kill_volatile() RETURNS bool LANGUAGE sql
    AS $$ SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sentinel' $$;
CREATE FUNCTION f_kill_immutable() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sentinel'; RETURN 1; END $$;
CREATE FUNCTION f_kill_stable(int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sentinel'; RETURN $1; END $$;
CREATE FUNCTION f_kill_sql_stable() RETURNS bool LANGUAGE sql STABLE
    AS $$ SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sentinel' $$;
CREATE FUNCTION f_kill_deep(int) RETURNS int LANGUAGE sql AS 'SELECT CASE WHEN f_kill_sql_stable() THEN $1 ELSE 0 END';
CREATE FUNCTION f_kill_internal(int, bigint) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'pg_terminate_backend';
CREATE FUNCTION f_kill_default(a int DEFAULT f_kill_immutable()) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION f_kill_default_volatile(a int DEFAULT f_kill_immutable()) RETURNS int LANGUAGE plpgsql
    AS 'BEGIN RETURN a; END';
CREATE FUNCTION f_inlined() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT f_kill_immutable()';
CREATE FUNCTION f_nextval() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN nextval('s1'); END $$;
CREATE FUNCTION f_nextval_immutable() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN nextval('s1')::int; END $$;
CREATE FUNCTION f_lock_immutable() RETURNS int LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM pg_advisory_lock(4711); RETURN 1; END $$;
CREATE FUNCTION f_advisory(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1 FROM (SELECT pg_advisory_lock($1)) x';
CREATE FUNCTION f_settings() RETURNS int LANGUAGE sql IMMUTABLE SET statement_timeout = 0 AS 'SELECT 1';
CREATE FUNCTION f_c_lie(text, text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS '$libdir/dblink', 'dblink_exec';
CREATE FUNCTION autonomous_dblink() RETURNS text LANGUAGE sql AS $$ SELECT public.dblink_exec(
    'dbname=' || current_database() || ' port=' || current_setting('port') || ' host=127.0.0.1 user=postgres password=sentinelpw',
    'UPDATE public.acct SET v = v + 1') $$;
CREATE FUNCTION autonomous_immutable() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    PERFORM public.autonomous_dblink(); RETURN 1; END $$;
CREATE FUNCTION quiet_dblink(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1 FROM (SELECT public.autonomous_dblink()) x';
CREATE FUNCTION touch(acct) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    PERFORM public.autonomous_dblink(); RETURN 1; END $$;
CREATE FUNCTION v(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM autonomous_dblink(); RETURN 1; END $$;
CREATE SCHEMA trap;
CREATE FUNCTION trap.lurk() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN 1; END $$;
CREATE FUNCTION hidden_path() RETURNS int LANGUAGE sql STABLE SET search_path = trap AS 'SELECT lurk()';
CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN $1; END $$;
CREATE FUNCTION "é"() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN 1; END $$;
CREATE FUNCTION trap.json_scalar(anyelement) RETURNS json LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN '1'; END $$;
CREATE PROCEDURE p_bump() LANGUAGE plpgsql AS $$ BEGIN UPDATE acct SET v = v + 1; END $$;

-- --- traps: operators, casts, types, aggregates

CREATE FUNCTION f_op_kill(int, int) RETURNS bool LANGUAGE sql
    AS $$ SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sentinel' $$;
CREATE FUNCTION f_op_bump(int, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN UPDATE acct SET v = v + 1; RETURN true; END $$;
CREATE FUNCTION f_op_remote(int, int) RETURNS bool LANGUAGE plpgsql
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN true; END $$;
CREATE OPERATOR !!! (leftarg = int, rightarg = int, procedure = f_op_kill);
CREATE OPERATOR @@@ (leftarg = int, rightarg = int, procedure = f_op_bump);
CREATE OPERATOR ### (leftarg = int, rightarg = int, procedure = f_op_remote, restrict = eqsel);
CREATE FUNCTION trap.f_equal(int, text) RETURNS bool LANGUAGE plpgsql
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN true; END $$;
CREATE OPERATOR trap.= (leftarg = int, rightarg = text, procedure = trap.f_equal);
DO $$ BEGIN  -- from 14 on
    CREATE OPERATOR trap.<<>> (leftarg = int, rightarg = bigint, procedure = pg_terminate_backend);
EXCEPTION WHEN undefined_function THEN NULL; END $$;

CREATE FUNCTION f_check(text) RETURNS bool LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN true; END $$;
CREATE DOMAIN evil_dom AS text CHECK (f_check(VALUE));
CREATE DOMAIN evil_dom_below AS evil_dom;
CREATE TYPE evil_composite AS (a int, b evil_dom);
CREATE TABLE evil_table (id int, b evil_dom);
CREATE TYPE evil_cast_t AS (a int);
CREATE FUNCTION f_cast(evil_cast_t) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN 1; END $$;
CREATE CAST (evil_cast_t AS int) WITH FUNCTION f_cast(evil_cast_t) AS IMPLICIT;
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE FUNCTION f_mood(mood) RETURNS int LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN 1; END $$;
CREATE CAST (mood AS int) WITH FUNCTION f_mood(mood) AS IMPLICIT;
CREATE TABLE moods (id int, m mood);
INSERT INTO moods VALUES (1, 'calm'), (2, 'wild');
CREATE FUNCTION f_diff(float8, float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN $1 - $2; END $$;
CREATE TYPE evil_range AS RANGE (subtype = float8, subtype_diff = f_diff);
CREATE FUNCTION f_state(int, int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN $2; END $$;
CREATE AGGREGATE evil_sum(int) (sfunc = f_state, stype = int, initcond = '0');
CREATE AGGREGATE evil_config(text, bool) (sfunc = set_config, stype = text, initcond = 'application_name');
CREATE TYPE pair AS (x int, y int);
CREATE FUNCTION f_pair_eq(pair, pair) RETURNS bool LANGUAGE plpgsql
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN true; END $$;
CREATE OPERATOR = (leftarg = pair, rightarg = pair, procedure = f_pair_eq, restrict = eqsel, join = eqjoinsel);
CREATE TABLE pairs (id int, p pair);
INSERT INTO pairs VALUES (1, (1, 2)), (2, (3, 4));
CREATE TYPE word AS (t text);
CREATE FUNCTION f_word_cmp(word, word) RETURNS int LANGUAGE plpgsql
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN 0; END $$;
CREATE FUNCTION f_word_lt(word, word) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1.t < $2.t';
CREATE OPERATOR ~<~ (leftarg = word, rightarg = word, procedure = f_word_lt);
CREATE OPERATOR ~>~ (leftarg = word, rightarg = word, procedure = f_word_lt);
CREATE OPERATOR ~=~ (leftarg = word, rightarg = word, procedure = f_word_lt);
CREATE OPERATOR CLASS word_ops DEFAULT FOR TYPE word USING btree AS
    OPERATOR 1 ~<~, OPERATOR 3 ~=~, OPERATOR 5 ~>~, FUNCTION 1 f_word_cmp(word, word);
CREATE TABLE words (w word);
INSERT INTO words VALUES (ROW('a')), (ROW('b'));

-- --- traps: relations

CREATE VIEW v_kill AS SELECT f_kill_volatile() AS k;
CREATE VIEW v_kill_direct AS
    SELECT pg_terminate_backend(pid) AS t FROM pg_stat_activity WHERE application_name = 'sentinel';
CREATE VIEW v_bump AS SELECT bump() AS b;
CREATE VIEW v_remote AS SELECT autonomous_immutable() AS b;
CREATE VIEW v_deep AS SELECT b FROM (SELECT * FROM v_remote) x;
CREATE VIEW v_operator AS SELECT id ### v AS k FROM acct;
CREATE VIEW v_secret AS SELECT rolname, rolpassword FROM pg_authid;
CREATE VIEW v_xml AS SELECT query_to_xml('SELECT f_kill_volatile()', true, false, '') AS x;
CREATE TABLE rls_remote (id int);
INSERT INTO rls_remote SELECT generate_series(1, 3);
ALTER TABLE rls_remote ENABLE ROW LEVEL SECURITY;
CREATE POLICY trap ON rls_remote USING (id > autonomous_immutable() - 1);
CREATE VIEW v_rls AS SELECT * FROM rls_remote;
ALTER TABLE rls_remote FORCE ROW LEVEL SECURITY;
CREATE TABLE defaulted (id int DEFAULT autonomous_immutable(), v int);
CREATE TABLE ruled (id int);
CREATE RULE trap AS ON INSERT TO ruled DO ALSO SELECT autonomous_immutable();
CREATE VIEW v_defaulted AS SELECT * FROM defaulted;
CREATE TABLE parent (id int, v int);
CREATE SERVER loopback FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1');
DO $$ BEGIN
    EXECUTE format('ALTER SERVER loopback OPTIONS (ADD port %L, ADD dbname %L)', current_setting('port'), current_database());
END $$;
CREATE USER MAPPING FOR CURRENT_USER SERVER loopback OPTIONS (user 'postgres', password 'sentinelpw');
CREATE FOREIGN TABLE ft_acct (id int, v int) SERVER loopback OPTIONS (table_name 'acct');
CREATE FOREIGN TABLE ft_remote (b int) SERVER loopback OPTIONS (table_name 'v_remote');
CREATE FOREIGN TABLE ft_estimate (b int) SERVER loopback OPTIONS (table_name 'v_remote', use_remote_estimate 'true');
CREATE FOREIGN TABLE ft_estimate_on (b int) SERVER loopback OPTIONS (table_name 'v_remote', use_remote_estimate 'ON');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE ft_program (line text) SERVER files OPTIONS (program 'touch /dev/shm/opsagent_probe_program');
CREATE FOREIGN TABLE child () INHERITS (parent) SERVER loopback OPTIONS (table_name 'v_remote');
CREATE FUNCTION shop.clean(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN upper($1); END $$;
CREATE TABLE shop.cleaned (id int, name text CHECK (shop.clean(name) <> ''));
CREATE INDEX cleaned_idx ON shop.cleaned (shop.clean(name)) WHERE id > 0;
CREATE TABLE indexed (id int);
CREATE INDEX indexed_trap ON indexed ((id + autonomous_immutable()));
CREATE TABLE checked (id int);
CREATE TABLE checked_child (CHECK (id > autonomous_immutable())) INHERITS (checked);
CREATE TABLE indexed_operator (id int);
CREATE FUNCTION f_op_immutable(int, int) RETURNS bool LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM public.autonomous_dblink(); RETURN true; END $$;
CREATE OPERATOR #### (leftarg = int, rightarg = int, procedure = f_op_immutable);
CREATE INDEX indexed_operator_trap ON indexed_operator ((1 #### 2));

-- --- who asks

DO $$ BEGIN CREATE ROLE opsagent_ro LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
ALTER ROLE opsagent_ro PASSWORD 'observerpw';
GRANT pg_monitor TO opsagent_ro;
DO $$ BEGIN GRANT pg_read_all_data TO opsagent_ro; EXCEPTION WHEN undefined_object THEN NULL; END $$;  -- from 14 on
GRANT USAGE ON SCHEMA shop, trap TO opsagent_ro;
GRANT SELECT ON ALL TABLES IN SCHEMA public, shop TO opsagent_ro;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public, shop TO opsagent_ro;
ANALYZE acct, shop.customers, shop.orders, shop.events, pairs, moods;
