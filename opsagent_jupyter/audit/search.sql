-- Whether any text of a record contains some words, whatever their case.
contains(
    lower(concat_ws(
        chr(10), type, status, tool, server, instance, environment, actor, actor_name, error_code, reason, summary, host,
        session, approval, CAST(arguments AS VARCHAR), array_to_string(statements, chr(10))
    )),
    lower(?)
)
