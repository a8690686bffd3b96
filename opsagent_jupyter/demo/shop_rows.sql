-- The rows. Plain arithmetic instead of random(): every run and every release of PostgreSQL gets the same shop.

INSERT INTO customers (id, email, name, region, created_at)
SELECT i,
       'customer' || i || '@example.com',
       (ARRAY['Ada', 'Ben', 'Cleo', 'Dan', 'Eva', 'Finn', 'Gita', 'Hugo', 'Ines', 'Jon'])[1 + i % 10] || ' '
           || (ARRAY['Adler', 'Brandt', 'Costa', 'Dubois', 'Evans', 'Fischer', 'Garcia'])[1 + i % 7],
       (ARRAY['north', 'south', 'east', 'west', 'overseas'])[1 + i % 5],
       now() - interval '1 hour' * (20001 - i)
FROM generate_series(1, 20000) AS i;

INSERT INTO products (id, sku, name, category, price_cents)
SELECT i,
       'SKU-' || lpad(i::text, 5, '0'),
       (ARRAY['Lamp', 'Chair', 'Desk', 'Shelf', 'Rug', 'Clock', 'Mirror', 'Vase'])[1 + i % 8] || ' no. ' || i,
       (ARRAY['light', 'seating', 'tables', 'storage', 'textiles', 'decoration'])[1 + i % 6],
       500 + (i * 7919) % 49500
FROM generate_series(1, 2000) AS i;

INSERT INTO inventory (product_id, on_hand, counted_at)
SELECT i, (i * 31) % 400, now() - interval '1 day' FROM generate_series(1, 2000) AS i;

INSERT INTO orders (id, status, ship_to, note, customer_id, total_cents, created_at)
SELECT i,
       CASE WHEN i > 198000 THEN 'open' WHEN i % 40 = 0 THEN 'returned' ELSE 'delivered' END,
       'Market Street ' || i % 300 || ', ' || (ARRAY['Lisbon', 'Leeds', 'Lyon', 'Linz', 'Lodz'])[1 + i % 5],
       'Leave the parcel with the neighbour at no. ' || i % 300 || ' if nobody answers the door, and ring twice. Thank you!',
       1 + (i * 7919) % 20000,
       900 + (i * 104729) % 90000,
       now() - interval '4 minutes' * (200001 - i)
FROM generate_series(1::bigint, 200000) AS i;

INSERT INTO order_items (id, order_id, product_id, quantity, price_cents)
SELECT i, (i + 1) / 2, 1 + (i * 613) % 2000, 1 + i % 4, 500 + (i * 7919) % 49500
FROM generate_series(1::bigint, 400000) AS i;

INSERT INTO shipments (id, order_id, carrier, shipped_at)
SELECT i, i, 'post', now() - interval '4 minutes' * (200001 - i) FROM generate_series(1::bigint, 500) AS i;

INSERT INTO carts (id, customer_id, content)
SELECT i, i * 9, repeat('product ' || i || ', ', 10) FROM generate_series(1, 2000) AS i;

SELECT setval('order_events_id_seq', 1997159000);
INSERT INTO order_events (order_id, kind, at)
SELECT 190000 + i, (ARRAY['viewed', 'paid', 'packed', 'sent'])[1 + i % 4], now() - interval '1 minute' * (5001 - i)
FROM generate_series(1, 5000) AS i;

SELECT setval(pg_get_serial_sequence(name, 'id'), highest) FROM (VALUES
    ('customers', 20000), ('products', 2000), ('orders', 200000), ('order_items', 400000), ('shipments', 60000)
) AS counted (name, highest);
