-- MariaDB and PostgreSQL: applications and their API keys, as SQLite has them since its third step.
CREATE TABLE applications (
    id           VARCHAR(48) NOT NULL PRIMARY KEY,
    created      BIGINT NOT NULL,
    concatenated BIGINT NOT NULL DEFAULT 0,
    changes_keys BIGINT NOT NULL DEFAULT 0
){options};
CREATE TABLE application_keys (
    application VARCHAR(48) NOT NULL,
    id          VARCHAR(48) NOT NULL,
    kind        VARCHAR(16) NOT NULL,
    material    {long} NOT NULL,
    enabled     BIGINT NOT NULL DEFAULT 1,
    created     BIGINT NOT NULL,
    PRIMARY KEY (application, id),
    FOREIGN KEY (application) REFERENCES applications (id) ON DELETE CASCADE
){options};
