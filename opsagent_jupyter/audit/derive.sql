-- The typed columns of rows of the chain: `{source}` holds seq, event_id, body, prev_hash and hash. {more} is for verification.
-- A risk level that this release does not know counts as critical.
SELECT
    seq,
    event_id,
    try_cast(event.at AS TIMESTAMPTZ) AS time,
    event.type AS type,
    event.status AS status,
    CASE
        WHEN event.risk <> '' THEN coalesce(try_cast(event.risk AS risk_level), CAST('critical' AS risk_level))
    END AS risk,
    event.tool AS tool,
    CASE WHEN contains(event.tool, '.') THEN split_part(event.tool, '.', 1) ELSE '' END AS plugin,
    event.server AS server,
    event.instance AS instance,
    event.environment AS environment,
    event.actor.id AS actor,
    event.actor.name AS actor_name,
    event.actor.via AS via,
    event.actor.agent AS agent,
    event.session AS session,
    event.call AS call,
    event.approval AS approval,
    event.digest AS digest,
    event.arguments AS arguments,
    event.statements AS statements,
    event.reason AS reason,
    event.summary AS summary,
    event.error_code AS error_code,
    event.milliseconds AS milliseconds,
    event.host AS host,
    event.setup AS setup,
    event.details AS details,
    body,
    prev_hash,
    hash{more}
FROM (
    SELECT *, from_json(body, '{
        "seq": "BIGINT", "at": "VARCHAR", "type": "VARCHAR", "status": "VARCHAR", "risk": "VARCHAR", "tool": "VARCHAR",
        "server": "VARCHAR", "instance": "VARCHAR", "environment": "VARCHAR",
        "actor": {"id": "VARCHAR", "name": "VARCHAR", "via": "VARCHAR", "agent": "BOOLEAN"},
        "session": "VARCHAR", "call": "VARCHAR", "approval": "VARCHAR", "digest": "VARCHAR",
        "arguments": "JSON", "statements": ["VARCHAR"], "reason": "VARCHAR", "summary": "VARCHAR",
        "error_code": "VARCHAR", "milliseconds": "DOUBLE", "host": "VARCHAR", "setup": "VARCHAR", "details": "JSON"
    }') AS event
    FROM {source}
)
