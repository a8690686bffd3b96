-- The usual questions, over `audit`. Times are UTC. DuckDB compares a risk level with a plain word as text, by the
-- alphabet: hence the casts.

-- Who asked for what, who decided, when, why, and how it ended: one row per approval request.
CREATE VIEW approvals AS
SELECT
    approval,
    arg_max(status, seq) FILTER (type <> 'approval.denied') AS state,
    max(risk) AS risk,
    any_value(tool) AS tool,
    any_value(server) AS server,
    any_value(instance) AS instance,
    any_value(environment) AS environment,
    arg_min(actor_name, seq) AS requested_by,
    min(time) AS requested_at,
    arg_max(actor_name, seq) FILTER (status IN ('approved', 'rejected')) AS decided_by,
    arg_max(status, seq) FILTER (status IN ('approved', 'rejected')) AS decision,
    max(time) FILTER (status IN ('approved', 'rejected')) AS decided_at,
    arg_max(reason, seq) FILTER (status IN ('approved', 'rejected')) AS reason,
    epoch(max(time) FILTER (status IN ('approved', 'rejected')) - min(time)) AS seconds_to_decision,
    max(time) FILTER (status IN ('succeeded', 'failed', 'unknown')) AS ended_at,
    arg_max(summary, seq) FILTER (status IN ('succeeded', 'failed', 'unknown')) AS outcome,
    any_value(statements) AS statements,
    any_value(session) AS session,
    any_value(digest) AS digest
FROM audit
WHERE approval <> '' AND starts_with(type, 'approval.')
GROUP BY approval;

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
SELECT
    if(call = '', event_id, call) AS call,
    arg_max(status, seq) AS status,
    max(risk) AS risk,
    any_value(tool) AS tool,
    any_value(server) AS server,
    any_value(instance) AS instance,
    max(time) AS time,
    arg_max(milliseconds, seq) AS milliseconds,
    arg_max(error_code, seq) AS error_code,
    arg_max(summary, seq) AS summary,
    max(approval) AS approval,
    max(seq) AS seq
FROM audit
WHERE type IN ('call.outcome', 'approval.succeeded', 'approval.failed', 'approval.unknown')
GROUP BY ALL;

-- Failures by tool.
CREATE VIEW failures AS
SELECT
    tool,
    count(*) AS runs,
    count(*) FILTER (status = 'failed') AS failed,
    count(*) FILTER (status = 'unknown') AS unknown,
    count(*) FILTER (status = 'failed') / count(*) AS failure_rate,
    max(time) FILTER (status = 'failed') AS last_failure,
    arg_max(error_code, seq) FILTER (status = 'failed') AS last_error_code,
    arg_max(summary, seq) FILTER (status = 'failed') AS last_error,
    median(milliseconds) AS median_milliseconds
FROM outcomes
GROUP BY tool;

-- Changes that took effect, by server and day. A request succeeds once: it is a final state.
CREATE VIEW changes AS
SELECT server, CAST(time AS DATE) AS day, count(*) AS changes,
       count(*) FILTER (risk >= CAST('high' AS risk_level)) AS high_or_critical,
       list_sort(list(DISTINCT tool)) AS tools
FROM audit
WHERE type = 'approval.succeeded'
GROUP BY ALL;

-- What may have run and nobody has found out since.
-- Few calls ever were unknown, so those are looked for first: `outcomes` would gather the rows of every call.
CREATE VIEW unknowns AS
SELECT
    if(call = '', event_id, call) AS call,
    arg_max(status, seq) AS status,
    max(risk) AS risk,
    any_value(tool) AS tool,
    any_value(server) AS server,
    any_value(instance) AS instance,
    max(time) AS time,
    arg_max(milliseconds, seq) AS milliseconds,
    arg_max(error_code, seq) AS error_code,
    arg_max(summary, seq) AS summary,
    max(approval) AS approval,
    max(seq) AS seq
FROM audit
WHERE type IN ('call.outcome', 'approval.succeeded', 'approval.failed', 'approval.unknown')
  AND if(call = '', event_id, call) IN (SELECT if(call = '', event_id, call) FROM audit WHERE status = 'unknown')
GROUP BY ALL
HAVING arg_max(status, seq) = 'unknown';

-- What was asked for and refused by rule, policy or database rights, and decisions that were not allowed.
CREATE VIEW refusals AS
SELECT time, actor_name AS person, actor, via, agent, tool, risk, server, instance, error_code, summary, arguments, seq
FROM audit
WHERE status IN ('refused', 'denied');
