-- The usual questions, over `audit` and what is kept of it. Times are UTC. DuckDB compares a risk level with a plain word as text, by the
-- alphabet: hence the casts.

-- Who asked for what, who decided, when, why, and how it ended: one row per approval request.
CREATE VIEW approvals AS
SELECT
    approval, state, risk, tool, server, instance, environment, requested_by, requested_at, decided_by, decision, decided_at,
    reason, (epoch_us(decided_at) - epoch_us(requested_at)) / 1e6 AS seconds_to_decision, ended_at, outcome, statements, session, digest
FROM kept_approvals;

-- Every yes and no, and every attempt at one that was refused.
CREATE VIEW decisions AS
SELECT time, actor_name AS person, actor, via, status AS decision, risk, tool, server, instance, environment, reason,
       statements, approval, seq
FROM audit
WHERE type IN ('approval.approved', 'approval.rejected', 'approval.revoked', 'approval.denied');

-- How long requests wait for a person, by risk level.
CREATE VIEW time_to_decision AS
SELECT risk, count(*) AS requests, count(decided_at) AS decided, median(seconds_to_decision) AS median_seconds,
       quantile_cont(seconds_to_decision, 0.95) AS p95_seconds, max(seconds_to_decision) AS max_seconds
FROM approvals
GROUP BY risk;

-- How each call ended, as far as is known by now: one row per call that was started.
CREATE VIEW outcomes AS
SELECT call, status, risk, tool, server, instance, time, milliseconds, error_code, summary, approval, seq
FROM kept_outcomes;

-- Failures by tool.
CREATE VIEW failures AS
WITH counted AS (
    SELECT
        tool,
        count(*) AS runs,
        count(*) FILTER (status = 'failed') AS failed,
        count(*) FILTER (status = 'unknown') AS unknown,
        max(time) FILTER (status = 'failed') AS last_failure,
        max(seq) FILTER (status = 'failed') AS last_seq,
        median(milliseconds) AS median_milliseconds
    FROM outcomes
    GROUP BY tool
)
SELECT
    counted.tool, runs, failed, unknown, failed / runs AS failure_rate, last_failure, outcomes.error_code AS last_error_code,
    outcomes.summary AS last_error, median_milliseconds
FROM counted LEFT JOIN outcomes ON outcomes.seq = last_seq;

-- Changes that took effect, by server and day.
CREATE VIEW changes AS
SELECT server, day, CAST(sum(changes) AS BIGINT) AS changes, CAST(sum(high_or_critical) AS BIGINT) AS high_or_critical,
       list_sort(list(DISTINCT tool)) AS tools
FROM kept_changes
GROUP BY server, day;

-- What may have run and nobody has found out since.
CREATE VIEW unknowns AS
FROM outcomes
WHERE status = 'unknown';

-- What was asked for and refused by rule, policy or database rights, and decisions that were not allowed.
CREATE VIEW refusals AS
SELECT time, actor_name AS person, actor, via, agent, tool, risk, server, instance, error_code, summary, arguments, seq
FROM audit
WHERE status IN ('refused', 'denied');
