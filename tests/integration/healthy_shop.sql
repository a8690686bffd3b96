-- The demo's shop as it should be: the same tables and rows, the indexes that its statements need and no others.
ALTER TABLE customers ADD PRIMARY KEY (id);
ALTER TABLE products ADD PRIMARY KEY (id);
ALTER TABLE inventory ADD PRIMARY KEY (product_id);
ALTER TABLE orders ADD PRIMARY KEY (id);
ALTER TABLE order_items ADD PRIMARY KEY (id);
ALTER TABLE shipments ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX customers_email_key ON customers (lower(email));
CREATE INDEX order_items_order_id_idx ON order_items (order_id);
CREATE INDEX orders_status_created_at_idx ON orders (status, created_at);
CREATE INDEX orders_created_at_idx ON orders (created_at);
CREATE INDEX orders_customer_id_created_at_idx ON orders (customer_id, created_at);
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE order_events ALTER COLUMN id TYPE bigint;
ALTER SEQUENCE order_events_id_seq AS bigint;
ALTER TABLE order_items RESET (autovacuum_enabled);
ALTER TABLE shipments RESET (autovacuum_enabled);
INSERT INTO shipments (id, order_id, carrier, shipped_at)
SELECT i, i, 'post', now() - interval '4 minutes' * (200001 - i) FROM generate_series(501::bigint, 60000) AS i;
