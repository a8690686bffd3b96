SELECT s.subname::text AS subscription, s.pid, s.received_lsn::text AS received,
       now() - s.last_msg_receipt_time AS last_message
FROM pg_catalog.pg_stat_subscription AS s
WHERE pg_catalog.to_jsonb(s) ->> 'relid' IS NULL
ORDER BY 1
