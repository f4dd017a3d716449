-- Several API keys for each application, so that one can be replaced while the other still signs.
CREATE TABLE application_keys (
    application TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    id          TEXT NOT NULL,
    -- 'secret': shared with the application's server. 'es256': a public key, PEM.
    kind        TEXT NOT NULL,
    material    TEXT NOT NULL,
    enabled     INTEGER NOT NULL DEFAULT 1,
    created     INTEGER NOT NULL,
    PRIMARY KEY (application, id)
) STRICT;
INSERT INTO application_keys (application, id, kind, material, created)
    SELECT id, 'first', 'secret', secret, created FROM applications;
ALTER TABLE applications DROP COLUMN secret;
-- Whether signatures over the concatenated fields are taken (docs/authentication.md).
ALTER TABLE applications ADD COLUMN concatenated INTEGER NOT NULL DEFAULT 0;
