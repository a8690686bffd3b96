SELECT sales.day,
       sales.region,
       (SELECT sum(earlier.revenue_cents) FROM daily_sales AS earlier
         WHERE earlier.region = sales.region AND earlier.day <= sales.day) AS revenue_to_date,
       pg_sleep(10) AS throttle
FROM daily_sales AS sales
ORDER BY sales.day, sales.region
