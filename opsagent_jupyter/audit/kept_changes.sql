-- Changes that took effect by server, day and tool, from the rows of `{source}` and from what is kept of the same in `{kept}`.
-- A request succeeds once: it is a final state.
WITH fresh AS (
    SELECT
        server, CAST(time AS DATE) AS day, tool, 1 AS changes,
        if(risk >= CAST('high' AS risk_level), 1, 0) AS high_or_critical, seq,
        CAST(md5(concat_ws(chr(31), server, CAST(time AS DATE), tool)) AS UUID) AS key
    FROM {source}
    WHERE {condition}
)
SELECT server, day, tool, CAST(sum(changes) AS BIGINT) AS changes, CAST(sum(high_or_critical) AS BIGINT) AS high_or_critical,
       max(seq) AS seq, any_value(key) AS key
FROM (FROM fresh UNION ALL BY NAME (FROM {kept} SEMI JOIN fresh USING (key)))
GROUP BY server, day, tool
ORDER BY seq
