-- What a stretch of the chain is: its rows, first and last place, last hash, and how many rows do not follow their
-- predecessors (the first one follows `$seq` and `$hash`) or are not what their hash says.
SELECT
    count(*), min(seq), max(seq), arg_max(hash, seq),
    count(*) FILTER (NOT coalesce(
        seq = before + 1 AND prev_hash = head AND hash = sha256(prev_hash || chr(10) || body)
        AND contains(body, '"seq":' || seq || ',') AND contains(body, '"event_id":"' || event_id || '"'), false
    ))
FROM (
    SELECT *, lag(seq, 1, $seq) OVER (ORDER BY seq) AS before, lag(hash, 1, $hash) OVER (ORDER BY seq) AS head
    FROM {source}
)
