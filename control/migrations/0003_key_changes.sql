-- Whether the session key of a scope changes when a native client leaves (docs/authentication.md).
ALTER TABLE applications ADD COLUMN changes_keys INTEGER NOT NULL DEFAULT 0;
