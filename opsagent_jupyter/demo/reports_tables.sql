-- The reporting database beside the shop: revenue by day and region, three years of it.

CREATE TABLE daily_sales (
    day date NOT NULL,
    region text NOT NULL,
    revenue_cents bigint NOT NULL,
    PRIMARY KEY (day, region)
);

INSERT INTO daily_sales (day, region, revenue_cents)
SELECT current_date - i, region, 100000 + (i * 7919) % 900000
FROM generate_series(1, 1095) AS i, unnest(ARRAY['north', 'south', 'east', 'west', 'overseas']) AS region;
