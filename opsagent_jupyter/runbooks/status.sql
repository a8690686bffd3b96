-- Every step that a run of a runbook has asked for, one row a call, with who decided it and how long that and the run took.
WITH mine AS (
    SELECT DISTINCT details->>'runbook' AS runbook, details->>'run' AS run, details->>'step' AS step, call
    FROM audit WHERE details->>'runbook' <> ''
)
SELECT
    runbook,
    run,
    step,
    any_value(tool) AS tool,
    any_value(server) AS server,
    any_value(instance) AS instance,
    arg_max(status, seq) AS state,
    max(risk) AS risk,
    arg_min(actor_name, seq) AS asked_by,
    min(time) AS asked_at,
    arg_max(actor_name, seq) FILTER (type IN ('approval.approved', 'approval.rejected')) AS decided_by,
    max(time) FILTER (type IN ('approval.approved', 'approval.rejected')) AS decided_at,
    epoch(max(time) FILTER (type IN ('approval.approved', 'approval.rejected')) - min(time)) AS seconds_to_decision,
    epoch(max(time) FILTER (type NOT IN ('call.intent', 'approval.executing'))
          - max(time) FILTER (type IN ('call.intent', 'approval.executing'))) AS seconds_run,
    max(approval) AS approval,
    arg_max(summary, seq) AS summary
FROM audit JOIN mine USING (call)
WHERE type <> 'approval.denied'
GROUP BY runbook, run, step, call
ORDER BY max(seq)
