-- Rows of the carried file: all, those after the store's newest, and the first seq that is there twice or should not be.
SELECT
    count(*),
    count(*) FILTER (seq > ?),
    (SELECT min(seq) FROM (SELECT seq FROM carried.audit GROUP BY seq HAVING count(*) > 1 OR seq < 1))
FROM carried.audit;
