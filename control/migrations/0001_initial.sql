-- Applications: who may sign tokens.
CREATE TABLE applications (
    id      TEXT PRIMARY KEY NOT NULL,
    secret  TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- Log of sessions: one row for each peer's stay in a scope. Times in seconds since 1970.
CREATE TABLE sessions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    application TEXT NOT NULL,
    scope       TEXT NOT NULL,
    peer        TEXT NOT NULL,
    name        TEXT NOT NULL,
    joined_at   INTEGER NOT NULL,
    left_at     INTEGER,
    reason      TEXT
) STRICT;
CREATE INDEX sessions_by_scope ON sessions (application, scope, joined_at);
