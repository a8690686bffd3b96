-- Sorts by rank, and so does `risk >= CAST('high' AS risk_level)`. Without the cast DuckDB compares by the alphabet.
CREATE TYPE risk_level AS ENUM ('low', 'medium', 'high', 'critical');
