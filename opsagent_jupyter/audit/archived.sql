-- The archived rows that the store has no more, their columns taken out of the bodies again: only those are verified.
SELECT *
FROM ({rows})
WHERE seq <= {begins}
