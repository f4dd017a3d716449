-- What agents make of events: the same tables in all engines. Times end in _ms: milliseconds since 1970. Yes or no is 1 or 0.

-- Lives of scopes, from the first peer to the last.
CREATE TABLE sessions (
    session     VARCHAR(64) NOT NULL PRIMARY KEY,
    application VARCHAR(48) NOT NULL,
    scope       VARCHAR(64) NOT NULL,
    node        VARCHAR(64) NOT NULL,
    created_ms  BIGINT NOT NULL,
    -- Null while it lasts, and when its node died.
    ended_ms    BIGINT,
    -- The last time that somebody is known to have been there.
    until_ms    BIGINT NOT NULL,
    stays       BIGINT NOT NULL,
    present     BIGINT NOT NULL,
    -- The time of all peers together.
    total_ms    BIGINT NOT NULL,
    bytes_in    BIGINT NOT NULL,
    bytes_out   BIGINT NOT NULL,
    score_sum   DOUBLE PRECISION NOT NULL,
    scored      BIGINT NOT NULL,
    problems    BIGINT NOT NULL
){options};
CREATE INDEX sessions_of_application ON sessions (application, created_ms, session);
CREATE INDEX sessions_by_time ON sessions (created_ms, session);
CREATE INDEX sessions_until ON sessions (until_ms);

-- Peers in them, from joining to leaving.
CREATE TABLE stays (
    stay        VARCHAR(64) NOT NULL PRIMARY KEY,
    session     VARCHAR(64) NOT NULL,
    application VARCHAR(48) NOT NULL,
    peer        VARCHAR(128) NOT NULL,
    name        VARCHAR(128) NOT NULL,
    user_name   VARCHAR(128) NOT NULL,
    client      VARCHAR(16) NOT NULL,
    node        VARCHAR(64) NOT NULL,
    joined_ms   BIGINT NOT NULL,
    until_ms    BIGINT NOT NULL,
    is_over     BIGINT NOT NULL,
    reason      VARCHAR(255),
    bytes_in    BIGINT NOT NULL,
    bytes_out   BIGINT NOT NULL,
    score_sum   DOUBLE PRECISION NOT NULL,
    scored      BIGINT NOT NULL,
    problems    BIGINT NOT NULL
){options};
CREATE INDEX stays_of_session ON stays (session, joined_ms);
CREATE INDEX stays_of_user ON stays (application, user_name);

-- How their streams fared, minute by minute. `stream` is a publication, or empty for all that the peer gets.
CREATE TABLE quality (
    stay        VARCHAR(64) NOT NULL,
    stream      VARCHAR(64) NOT NULL,
    minute_ms   BIGINT NOT NULL,
    session     VARCHAR(64) NOT NULL,
    seconds     DOUBLE PRECISION NOT NULL,
    packets     BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    score       DOUBLE PRECISION NOT NULL,
    loss        DOUBLE PRECISION,
    round_trip  DOUBLE PRECISION,
    jitter      DOUBLE PRECISION,
    queue_delay DOUBLE PRECISION,
    frozen      DOUBLE PRECISION NOT NULL,
    lowered     DOUBLE PRECISION NOT NULL,
    paused      DOUBLE PRECISION NOT NULL,
    problems    BIGINT NOT NULL,
    PRIMARY KEY (stay, stream, minute_ms)
){options};
CREATE INDEX quality_of_session ON quality (session, minute_ms);

-- Sums over stays by minute, hour and day: written in the transaction that changes what they sum up.
CREATE TABLE usage_sums (
    application VARCHAR(48) NOT NULL,
    unit        VARCHAR(8) NOT NULL,
    at_ms       BIGINT NOT NULL,
    total_ms    BIGINT NOT NULL,
    stays       BIGINT NOT NULL,
    sessions    BIGINT NOT NULL,
    bytes_in    BIGINT NOT NULL,
    bytes_out   BIGINT NOT NULL,
    PRIMARY KEY (application, unit, at_ms)
){options};
CREATE INDEX usage_by_time ON usage_sums (unit, at_ms);
CREATE TABLE quality_sums (
    application VARCHAR(48) NOT NULL,
    unit        VARCHAR(8) NOT NULL,
    at_ms       BIGINT NOT NULL,
    measured    BIGINT NOT NULL,
    score       DOUBLE PRECISION NOT NULL,
    loss        DOUBLE PRECISION NOT NULL,
    losses      BIGINT NOT NULL,
    round_trip  DOUBLE PRECISION NOT NULL,
    round_trips BIGINT NOT NULL,
    frozen      DOUBLE PRECISION NOT NULL,
    loss_in     BIGINT NOT NULL,
    loss_out    BIGINT NOT NULL,
    freezes     BIGINT NOT NULL,
    lowered     BIGINT NOT NULL,
    paused      BIGINT NOT NULL,
    far         BIGINT NOT NULL,
    queued      BIGINT NOT NULL,
    PRIMARY KEY (application, unit, at_ms)
){options};
CREATE INDEX quality_by_time ON quality_sums (unit, at_ms);

-- Whether nodes were well, minute by minute: by their own account (`self`), or by that of a probe.
CREATE TABLE checks (
    node        VARCHAR(64) NOT NULL,
    kind        VARCHAR(8) NOT NULL,
    minute_ms   BIGINT NOT NULL,
    is_well     BIGINT NOT NULL,
    reason      VARCHAR(255) NOT NULL,
    PRIMARY KEY (node, kind, minute_ms)
){options};
CREATE INDEX checks_by_time ON checks (minute_ms);

-- What clients posted.
CREATE TABLE diagnostics (
    id          VARCHAR(64) NOT NULL PRIMARY KEY,
    kind        VARCHAR(8) NOT NULL,
    application VARCHAR(48) NOT NULL,
    scope       VARCHAR(64),
    session     VARCHAR(64),
    peer        VARCHAR(128),
    user_name   VARCHAR(128) NOT NULL,
    address     VARCHAR(45) NOT NULL,
    at_ms       BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    body        {long} NOT NULL
){options};
CREATE INDEX diagnostics_of_application ON diagnostics (application, at_ms, id);
CREATE INDEX diagnostics_by_time ON diagnostics (at_ms, id);
