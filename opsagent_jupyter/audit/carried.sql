-- The rows of the carried file; those up to {begins} were pruned from the store and leave the file with the next carry.
SELECT * REPLACE (CAST(risk AS risk_level) AS risk)
FROM carried.audit
WHERE seq > {begins}
