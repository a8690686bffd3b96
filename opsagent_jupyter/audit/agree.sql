-- Rows of the carried file with, for each, whether its typed columns are what its body says, and the filter columns as the
-- store joins them. Instead of reading the body, the columns are spelled as the body would spell them: that is much faster,
-- and one text has one reading only when no plain text holds a quote or a backslash, every JSON value is one, and nothing
-- is missing. A row that is right and spelled otherwise (a number such as 1e+16) is looked at closer by who asks.
WITH spelled AS (
    SELECT
        seq, event_id, body, prev_hash, hash, plugin, tool, arguments, details,
        strftime(time AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%f') AS moment,
        concat(
            actor, actor_name, via, approval, call, digest, environment, error_code, event_id, host, instance, server,
            session, setup, status, tool, type
        ) AS plain,
        concat(
            '{"actor":{"agent":', agent, ',"id":"', actor, '","name":"', actor_name, '","stable":',
            if(contains(body, '"stable":true,"via":'), 'true', 'false'), ',"via":"', via, '"},"approval":"', approval,
            '","arguments":', arguments, ',"at":"', replace(moment || 'Z', '.000000Z', 'Z'), '","call":"', call,
            '","details":', details, ',"digest":"', digest, '","environment":"', environment, '","error_code":"', error_code,
            '","event_id":"', event_id, '","host":"', host, '","instance":"', instance, '","milliseconds":',
            coalesce(CAST(milliseconds AS VARCHAR), 'null'), ',"reason":', to_json(reason), ',"risk":',
            if(risk IS NULL, 'null', '"' || CAST(risk AS VARCHAR) || '"'), ',"seq":', seq, ',"server":"', server,
            '","session":"', session, '","setup":"', setup, '","statements":', to_json(statements), ',"status":"', status,
            '","summary":', to_json(summary), ',"tool":"', tool, '","type":"', type, '","v":1}'
        ) AS spelling,
        agent IS NOT NULL AND actor IS NOT NULL AND actor_name IS NOT NULL AND via IS NOT NULL AND approval IS NOT NULL
        AND arguments IS NOT NULL AND time IS NOT NULL AND call IS NOT NULL AND details IS NOT NULL AND digest IS NOT NULL
        AND environment IS NOT NULL AND error_code IS NOT NULL AND host IS NOT NULL AND instance IS NOT NULL
        AND reason IS NOT NULL AND server IS NOT NULL AND session IS NOT NULL AND setup IS NOT NULL
        AND statements IS NOT NULL AND status IS NOT NULL AND summary IS NOT NULL AND tool IS NOT NULL
        AND type IS NOT NULL AND plugin IS NOT NULL AS whole,
        concat(
            moment, '+00:00', chr(31), type, chr(31), status, chr(31), CAST(risk AS VARCHAR), chr(31), tool, chr(31), server,
            chr(31), instance, chr(31), actor, chr(31), actor_name, chr(31), session, chr(31), approval, chr(10)
        ) AS line
    FROM carried.audit
    WHERE seq BETWEEN {first} AND {last}
)
SELECT
    seq, event_id, body, prev_hash, hash, line,
    coalesce(
        whole AND body = spelling
        AND NOT contains(plain, '"') AND NOT contains(plain, '\') AND NOT contains(plain, chr(31)) AND NOT contains(plain, chr(10))
        AND (arguments = '{}' OR json_valid(arguments)) AND (details = '{}' OR json_valid(details))
        AND plugin = if(contains(tool, '.'), split_part(tool, '.', 1), ''),
        false
    ) AS agrees
FROM spelled;
