-- Who may upload: API keys, tokens that are good no more, and what links are signed with.

CREATE TABLE api_keys (
    id         TEXT    PRIMARY KEY,
    -- SHA-256 of the key's bytes.
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    name       TEXT    NOT NULL,
    scope      TEXT    NOT NULL CHECK (scope IN ('admin', 'upload', 'read')),
    -- NULL: it is of no one space.
    space      TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- Signed tokens that were revoked, by their id (jti).
CREATE TABLE revoked_tokens (
    id         TEXT    PRIMARY KEY,
    revoked_at INTEGER NOT NULL,
    -- When the token has expired anyway. NULL: nobody said.
    forget_at  INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX revoked_tokens_to_forget ON revoked_tokens (forget_at) WHERE forget_at IS NOT NULL;

-- Goes up with every change of the two tables above, in the same transaction.
CREATE TABLE tokens_version (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO tokens_version VALUES (1, 1);

CREATE TABLE link_secret (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    secret BLOB    NOT NULL CHECK (length(secret) = 32)
) STRICT;
