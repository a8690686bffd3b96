-- How calls ended, from the rows of `{source}` and from what is kept of the same calls in `{kept}`. The kept rows are older,
-- and every column is a newest, first or largest, so it makes no difference in how many steps the rows arrive.
WITH fresh AS (
    SELECT
        coalesce(nullif(call, ''), event_id) AS call, status, risk, tool, server, instance, time, milliseconds, error_code,
        summary, approval, seq, seq AS first,
        coalesce(try_cast(coalesce(nullif(call, ''), event_id) AS UUID), CAST(md5(coalesce(nullif(call, ''), event_id)) AS UUID)) AS key
    FROM {source}
    WHERE {condition}
)
SELECT
    call,
    arg_max(status, seq) AS status,
    max(risk) AS risk,
    arg_min(tool, first) AS tool,
    arg_min(server, first) AS server,
    arg_min(instance, first) AS instance,
    max(time) AS time,
    arg_max(milliseconds, seq) AS milliseconds,
    arg_max(error_code, seq) AS error_code,
    arg_max(summary, seq) AS summary,
    max(approval) AS approval,
    max(seq) AS seq,
    min(first) AS first,
    any_value(key) AS key
FROM (FROM fresh UNION ALL BY NAME (FROM {kept} SEMI JOIN fresh USING (key)))
GROUP BY call
ORDER BY seq
