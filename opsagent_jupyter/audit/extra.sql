-- Rows of the carried file: all, those after the store's newest, and the first seq that is there twice or should not be.
-- Those up to `$begins` were pruned from the store.
WITH live AS (FROM carried.audit WHERE seq > $begins OR $begins = 0)
SELECT
    count(*),
    count(*) FILTER (seq > $newest),
    (SELECT min(seq) FROM (SELECT seq FROM live GROUP BY seq HAVING count(*) > 1 OR seq < 1))
FROM live;
