-- Records by span of time, status and risk. The spans are equal, at least a second long, and reach from the first record
-- to the last.
WITH found AS (
    SELECT epoch_ms(time) AS millisecond, coalesce(status, '') AS status, coalesce(CAST(risk AS VARCHAR), '') AS risk
    FROM audit
    WHERE {where}
),
scale AS (
    SELECT min(millisecond) AS first, greatest(1000, (max(millisecond) - min(millisecond)) // {spans} + 1) AS width FROM found
)
SELECT first, width, (millisecond - first) // width AS span, status, risk, count(*) AS events
FROM found, scale
WHERE millisecond IS NOT NULL
GROUP BY ALL
ORDER BY span
