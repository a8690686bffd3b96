-- What is wrong with the demo's shop. Each entry: kind | object | tool that shows it | what it needs besides the seed,
-- a sentence, and a query that has a row while the problem is there (as opsagent_observer, in the database `shop`).

-- missing_index | orders.customer_id | postgresql.get_slow_queries |
-- The orders of one customer are found by reading all 200,000, because no index starts with customer_id.
SELECT a.attname FROM pg_attribute AS a
WHERE a.attrelid = 'orders'::regclass AND a.attname = 'customer_id'
  AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = a.attrelid AND i.indisvalid AND i.indkey[0] = a.attnum);

-- slow_statement | orders of a customer | postgresql.get_slow_queries | pg_stat_statements
-- A sequential scan of orders in the page that every customer opens first: the most time in total.
SELECT calls, mean_exec_time FROM pg_stat_statements
WHERE query LIKE 'SELECT id, status, total_cents, created_at FROM orders WHERE customer_id = $1%';

-- slow_statement | customer by e-mail | postgresql.get_slow_queries | pg_stat_statements
-- The index on email is not used: the statement asks for lower(email).
SELECT calls, mean_exec_time FROM pg_stat_statements
WHERE query LIKE 'SELECT id, name, region FROM customers WHERE lower(email) = $1%';

-- slow_statement | revenue by category | postgresql.get_slow_queries | pg_stat_statements
-- It reads all of order_items, of which more than half is dead: the slowest on average.
SELECT calls, mean_exec_time FROM pg_stat_statements
WHERE query LIKE 'SELECT p.category, sum(i.quantity * i.price_cents) AS revenue_cents FROM order_items i%';

-- duplicate_index | orders_created_at_dup | postgresql.list_indexes |
-- The same index as orders_created_at_idx: twice the cost of every write, no gain.
SELECT twin.indexrelid::regclass FROM pg_index AS twin
JOIN pg_index AS i ON (i.indrelid, i.indkey, i.indclass) = (twin.indrelid, twin.indkey, twin.indclass)
WHERE i.indexrelid = 'orders_created_at_idx'::regclass AND twin.indexrelid = 'orders_created_at_dup'::regclass;

-- redundant_index | orders_status_idx | postgresql.list_indexes |
-- orders_status_created_at_idx starts with the same column and serves every query of this one.
SELECT short.indexrelid::regclass FROM pg_index AS short
JOIN pg_index AS long ON long.indrelid = short.indrelid AND long.indkey[0] = short.indkey[0]
WHERE short.indexrelid = 'orders_status_idx'::regclass AND short.indnkeyatts = 1
  AND long.indexrelid = 'orders_status_created_at_idx'::regclass AND long.indnkeyatts = 2;

-- unused_index | customers_region_unused | postgresql.list_indexes |
-- No query has ever used it.
SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'customers_region_unused' AND idx_scan = 0;

-- invalid_index | customers_name_uq | postgresql.list_indexes |
-- A unique index that failed to build, because names repeat. It was left behind: kept up, useless, easily mistaken.
SELECT indexrelid::regclass FROM pg_index WHERE indexrelid = 'customers_name_uq'::regclass AND NOT indisvalid;

-- bloat | order_items | postgresql.get_table_stats |
-- 60 % of the rows are dead, and autovacuum is off for this table.
SELECT n_live_tup, n_dead_tup FROM pg_stat_user_tables WHERE relname = 'order_items' AND n_dead_tup > n_live_tup;

-- stale_statistics | shipments | postgresql.get_table_stats |
-- Analysed when it had 500 rows; it has 60,000 now, and the planner does not know.
SELECT c.reltuples, s.n_mod_since_analyze FROM pg_class AS c JOIN pg_stat_user_tables AS s ON s.relid = c.oid
WHERE c.oid = 'shipments'::regclass AND s.n_mod_since_analyze > 10 * c.reltuples;

-- sequence_near_end | order_events_id_seq | postgresql.diagnose |
-- 93 % of the numbers of an integer key are used; at 100 % every insert fails.
SELECT last_value, max_value FROM pg_sequences
WHERE sequencename = 'order_events_id_seq' AND last_value > 0.9 * max_value;

-- idle_in_transaction | checkout | postgresql.get_connection_stats | sessions
-- A session that changed a row of inventory and went for coffee: it holds its locks until it ends.
SELECT pid FROM pg_stat_activity WHERE application_name = 'checkout' AND state = 'idle in transaction';

-- blocked_session | stock-sync | postgresql.get_locks | sessions
-- A writer that waits for inventory, behind `checkout`.
SELECT pid FROM pg_stat_activity WHERE application_name = 'stock-sync' AND cardinality(pg_blocking_pids(pid)) > 0;

-- runaway_query | nightly-report | postgresql.get_connection_stats | sessions
-- A report in the database `reports` that will not end this night.
SELECT pid FROM pg_stat_activity WHERE application_name = 'nightly-report' AND state = 'active';

-- inactive_slot | old_replica_slot | postgresql.get_replication_status |
-- The slot of a replica that is gone: the server keeps WAL for it.
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) FROM pg_replication_slots
WHERE slot_name = 'old_replica_slot' AND NOT active AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 100000000;

-- lagging_standby | demo_standby | postgresql.get_replication_status | standby
-- A standby that replays everything some seconds late.
SELECT replay_lag FROM pg_stat_replication WHERE application_name = 'demo_standby' AND replay_lag > interval '1 second';
