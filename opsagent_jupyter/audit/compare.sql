-- Rows of the store between two places that the carried file has differently or not at all, and those whose filter
-- columns in the store do not plainly say what the bodies say. `links` and `columns` are the store's, `$last` is the last
-- row of the file.
WITH stored AS (
    SELECT *, concat_ws(
        chr(31), strftime(time, '%Y-%m-%dT%H:%M:%S.%f+00:00'), coalesce(type, ''), coalesce(status, ''),
        coalesce(risk::VARCHAR, ''), coalesce(tool, ''), coalesce(server, ''), coalesce(instance, ''),
        coalesce(actor, ''), coalesce(actor_name, ''), coalesce(session, ''), coalesce(approval, '')
    ) AS line
    FROM ({derive})
),
copied AS ({copied}),
found AS (
    SELECT
        stored.seq AS seq,
        stored.seq <= $last AND (copied.seq IS NULL OR {differ}) AS differs,
        -- A separator within a text would let one column borrow from its neighbour.
        NOT coalesce(
            stored.said = stored.seq AND columns.line = stored.line
            AND NOT contains(stored.body, '\u001f') AND NOT contains(stored.body, '\u001F'), false
        ) AS doubtful
    FROM stored
    LEFT JOIN copied ON copied.seq = stored.seq
    LEFT JOIN columns ON columns.seq = stored.seq
)
SELECT seq, differs, doubtful FROM found WHERE differs OR doubtful;
