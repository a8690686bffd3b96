-- What happened to the tables since: statistics of a small shipments table that grew, order_items archived in place.

ANALYZE shipments;
INSERT INTO shipments (id, order_id, carrier, shipped_at)
SELECT i, i, (ARRAY['post', 'courier', 'freight'])[1 + i % 3], now() - interval '4 minutes' * (200001 - i)
FROM generate_series(501::bigint, 60000) AS i;

DELETE FROM order_items WHERE order_id % 5 < 3;
