-- How approval requests went, from the rows of `{source}` and from what is kept of the same requests in `{kept}`, as in
-- kept_outcomes.sql.
WITH fresh AS (
    SELECT
        approval,
        if(type <> 'approval.denied', status, NULL) AS state,
        risk, tool, server, instance, environment, actor_name AS requested_by, time AS requested_at,
        if(status IN ('approved', 'rejected'), actor_name, NULL) AS decided_by,
        if(status IN ('approved', 'rejected'), status, NULL) AS decision,
        if(status IN ('approved', 'rejected'), time, NULL) AS decided_at,
        if(status IN ('approved', 'rejected'), reason, NULL) AS reason,
        if(status IN ('succeeded', 'failed', 'unknown'), time, NULL) AS ended_at,
        if(status IN ('succeeded', 'failed', 'unknown'), summary, NULL) AS outcome,
        statements, session, digest, seq, seq AS first,
        coalesce(try_cast(approval AS UUID), CAST(md5(approval) AS UUID)) AS key
    FROM {source}
    WHERE {condition}
)
SELECT
    approval,
    arg_max(state, seq) AS state,
    max(risk) AS risk,
    arg_min(tool, first) AS tool,
    arg_min(server, first) AS server,
    arg_min(instance, first) AS instance,
    arg_min(environment, first) AS environment,
    arg_min(requested_by, first) AS requested_by,
    min(requested_at) AS requested_at,
    arg_max(decided_by, seq) AS decided_by,
    arg_max(decision, seq) AS decision,
    max(decided_at) AS decided_at,
    arg_max(reason, seq) AS reason,
    max(ended_at) AS ended_at,
    arg_max(outcome, seq) AS outcome,
    arg_min(statements, first) AS statements,
    arg_min(session, first) AS session,
    arg_min(digest, first) AS digest,
    max(seq) AS seq,
    min(first) AS first,
    any_value(key) AS key
FROM (FROM fresh UNION ALL BY NAME (FROM {kept} SEMI JOIN fresh USING (key)))
GROUP BY approval
ORDER BY seq
