-- The first row of `links`, between two seqs, that the carried file has differently or not at all.
WITH stored AS ({derive}),
copied AS (
    SELECT * REPLACE (CAST(risk AS risk_level) AS risk) FROM carried.audit WHERE seq BETWEEN ? AND ?
)
SELECT min(stored.seq) FROM stored LEFT JOIN copied USING (seq) WHERE copied IS DISTINCT FROM stored;
