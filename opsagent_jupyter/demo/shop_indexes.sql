-- Keys and indexes, the good ones first.

ALTER TABLE customers ADD PRIMARY KEY (id);
ALTER TABLE products ADD PRIMARY KEY (id);
ALTER TABLE inventory ADD PRIMARY KEY (product_id);
ALTER TABLE orders ADD PRIMARY KEY (id);
ALTER TABLE order_items ADD PRIMARY KEY (id);
ALTER TABLE shipments ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX customers_email_key ON customers (email);
CREATE INDEX order_items_order_id_idx ON order_items (order_id);
CREATE INDEX orders_status_created_at_idx ON orders (status, created_at);

-- The same index under two names, one that only repeats the start of another, and one that nothing uses.
-- Of two equal indexes the planner takes the younger, so the copy comes first and is never used.
CREATE INDEX orders_created_at_dup ON orders (created_at);
CREATE INDEX orders_created_at_idx ON orders (created_at);
CREATE INDEX orders_status_idx ON orders (status);
CREATE INDEX customers_region_unused ON customers (region);

-- A foreign key whose own side has no index: the missing index on orders.customer_id.
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
