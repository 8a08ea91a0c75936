-- Times are Unix milliseconds, positions and sizes bytes, ids the 16 bytes of a UUID, digests a JSON map from an
-- algorithm's name to lower-case hex.

CREATE TABLE upload_sessions (
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    key_hash         BLOB    NOT NULL CHECK (length(key_hash) = 32),
    protocol         TEXT    NOT NULL,
    state            TEXT    NOT NULL CHECK (state IN
        ('pending', 'uploading', 'assembling', 'completed', 'failed', 'aborted', 'expired')),
    length           INTEGER CHECK (length >= 0),
    plan             TEXT    NOT NULL,
    epoch            INTEGER NOT NULL CHECK (epoch >= 1),
    hash_offset      INTEGER NOT NULL DEFAULT 0 CHECK (hash_offset >= 0),
    hash_state       BLOB    NOT NULL DEFAULT x'',
    readback         INTEGER NOT NULL DEFAULT 0 CHECK (readback IN (0, 1)),
    -- The boot of the machine that wrote bytes which are not synced; empty where there are none.
    boot             TEXT    NOT NULL DEFAULT '',
    store_key        TEXT    NOT NULL,
    store_upload_id  TEXT,
    declared_digests TEXT    NOT NULL,
    sequential       INTEGER NOT NULL CHECK (sequential IN (0, 1)),
    filename         TEXT,
    content_type     TEXT,
    metadata         TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL,
    -- Of an assembly: how often it was put off, and until when somebody holds it.
    attempts         INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    held_until       INTEGER,
    -- Of what has ended.
    ended_at         INTEGER,
    failure_reason   TEXT,
    CHECK ((held_until IS NOT NULL) = (state = 'assembling')),
    CHECK ((ended_at IS NULL) = (state IN ('pending', 'uploading', 'assembling'))),
    CHECK ((failure_reason IS NOT NULL) = (state = 'failed'))
) STRICT;

-- One index for each thing that cron looks for; together the first two are what is open. The first has the state too,
-- because SQLite looks at it again where the condition is not one value, and would look it up in the table.
CREATE INDEX upload_sessions_expiring ON upload_sessions (expires_at, state)
    WHERE state IN ('pending', 'uploading');
CREATE INDEX upload_sessions_assembling ON upload_sessions (held_until) WHERE state = 'assembling';
-- Whose a key in the bucket is.
CREATE INDEX upload_sessions_key ON upload_sessions (store_key);
CREATE INDEX upload_sessions_ended ON upload_sessions (ended_at) WHERE ended_at IS NOT NULL;

-- Coalesced: no two ranges of an upload touch or overlap.
CREATE TABLE upload_ranges (
    upload_id BLOB    NOT NULL REFERENCES upload_sessions (id) ON DELETE CASCADE,
    start     INTEGER NOT NULL CHECK (start >= 0),
    stop      INTEGER NOT NULL,
    PRIMARY KEY (upload_id, start),
    CHECK (start < stop)
) STRICT, WITHOUT ROWID;

CREATE TABLE upload_parts (
    upload_id      BLOB    NOT NULL REFERENCES upload_sessions (id) ON DELETE CASCADE,
    number         INTEGER NOT NULL CHECK (number >= 1),
    start          INTEGER NOT NULL CHECK (start >= 0),
    stop           INTEGER NOT NULL,
    etag           TEXT    NOT NULL,
    checksum_kind  TEXT,
    checksum       TEXT,
    PRIMARY KEY (upload_id, number),
    CHECK (start < stop),
    CHECK ((checksum_kind IS NULL) = (checksum IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (
    upload_id       BLOB    NOT NULL REFERENCES upload_sessions (id) ON DELETE CASCADE,
    kind            TEXT    NOT NULL CHECK (kind IN ('multipart', 'object')),
    key             TEXT    NOT NULL,
    store_upload_id TEXT,
    created_at      INTEGER NOT NULL,
    -- Its upload has ended. Kept here too, so that what is left over is found without looking at what is open.
    ended           INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1)),
    PRIMARY KEY (upload_id, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX intents_left_over ON intents (upload_id) WHERE ended = 1;

-- Final keys: only claimed, or with the object under them. They outlive their uploads' records.
CREATE TABLE objects (
    key          TEXT    NOT NULL PRIMARY KEY,
    upload_id    BLOB    NOT NULL CHECK (length(upload_id) = 16),
    claimed_at   INTEGER NOT NULL,
    completed_at INTEGER,
    size         INTEGER CHECK (size >= 0),
    content_type TEXT,
    digests      TEXT,
    etag         TEXT,
    verified     INTEGER CHECK (verified IN (0, 1)),
    CHECK (completed_at IS NULL OR
        (size IS NOT NULL AND digests IS NOT NULL AND etag IS NOT NULL AND verified IS NOT NULL))
) STRICT;
CREATE INDEX objects_upload ON objects (upload_id);

CREATE TABLE idempotency (
    key_hash    BLOB    NOT NULL PRIMARY KEY CHECK (length(key_hash) = 32),
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    upload_id   BLOB    NOT NULL REFERENCES upload_sessions (id) ON DELETE CASCADE,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_upload ON idempotency (upload_id);
CREATE INDEX idempotency_expiring ON idempotency (expires_at);

-- The outbox. A number is never given twice, so whoever reads it can remember how far it came.
CREATE TABLE events (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      TEXT    NOT NULL CHECK (kind IN ('completed', 'failed', 'aborted', 'expired')),
    upload_id BLOB    NOT NULL CHECK (length(upload_id) = 16),
    at        INTEGER NOT NULL,
    payload   TEXT    NOT NULL
) STRICT;
CREATE INDEX events_at ON events (at);

-- One row that is written to see whether the catalog can be written.
CREATE TABLE heartbeat (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    beats INTEGER NOT NULL
) STRICT;
INSERT INTO heartbeat VALUES (1, 0);
