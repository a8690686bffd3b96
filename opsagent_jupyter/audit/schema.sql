-- The audit in DuckDB. One row per row of the store's chain; every column but the last three is taken out of `body`.
-- `time` is the event's `at`, which is a reserved word in DuckDB. Compression is chosen where DuckDB's own search for the
-- best one costs more than it saves: random digits do not shrink, long texts do best with zstd.
CREATE TABLE audit (
    seq          BIGINT NOT NULL,
    event_id     VARCHAR NOT NULL USING COMPRESSION uncompressed,
    time         TIMESTAMPTZ,
    type         VARCHAR,
    status       VARCHAR,
    risk         risk_level,
    tool         VARCHAR,
    plugin       VARCHAR,
    server       VARCHAR,
    instance     VARCHAR,
    environment  VARCHAR,
    actor        VARCHAR,
    actor_name   VARCHAR,
    via          VARCHAR,
    agent        BOOLEAN,
    session      VARCHAR,
    call         VARCHAR USING COMPRESSION uncompressed,
    approval     VARCHAR,
    digest       VARCHAR,
    arguments    JSON USING COMPRESSION zstd,
    statements   VARCHAR[],
    reason       VARCHAR USING COMPRESSION zstd,
    summary      VARCHAR USING COMPRESSION zstd,
    error_code   VARCHAR,
    milliseconds DOUBLE,
    host         VARCHAR,
    setup        VARCHAR,
    details      JSON USING COMPRESSION zstd,
    body         VARCHAR NOT NULL USING COMPRESSION zstd,
    prev_hash    VARCHAR NOT NULL USING COMPRESSION uncompressed,
    hash         VARCHAR NOT NULL USING COMPRESSION uncompressed
);

-- What the views below would gather from all rows, kept with every carry. `key` finds the row that a new event belongs to,
-- `first` and `seq` are its oldest and newest event.
CREATE TABLE kept_outcomes (
    call         VARCHAR NOT NULL USING COMPRESSION uncompressed,
    status       VARCHAR,
    risk         risk_level,
    tool         VARCHAR,
    server       VARCHAR,
    instance     VARCHAR,
    time         TIMESTAMPTZ,
    milliseconds DOUBLE,
    error_code   VARCHAR,
    summary      VARCHAR USING COMPRESSION zstd,
    approval     VARCHAR,
    seq          BIGINT,
    first        BIGINT,
    key          UUID
);
CREATE TABLE kept_approvals (
    approval     VARCHAR NOT NULL,
    state        VARCHAR,
    risk         risk_level,
    tool         VARCHAR,
    server       VARCHAR,
    instance     VARCHAR,
    environment  VARCHAR,
    requested_by VARCHAR,
    requested_at TIMESTAMPTZ,
    decided_by   VARCHAR,
    decision     VARCHAR,
    decided_at   TIMESTAMPTZ,
    reason       VARCHAR USING COMPRESSION zstd,
    ended_at     TIMESTAMPTZ,
    outcome      VARCHAR USING COMPRESSION zstd,
    statements   VARCHAR[],
    session      VARCHAR,
    digest       VARCHAR,
    seq          BIGINT,
    first        BIGINT,
    key          UUID
);
CREATE TABLE kept_changes (
    server           VARCHAR,
    day              DATE,
    tool             VARCHAR,
    changes          BIGINT,
    high_or_critical BIGINT,
    seq              BIGINT,
    key              UUID
);
