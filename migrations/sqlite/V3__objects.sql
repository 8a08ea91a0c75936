-- Objects that several uploads name, and how their content is known.

-- How the digests are known; `verified` says whether the store checked what it was given.
ALTER TABLE objects ADD COLUMN known_by TEXT NOT NULL DEFAULT 'stream' CHECK (known_by IN ('stream', 'readback', 'store_checksum'));
UPDATE objects SET known_by = 'readback'
    WHERE upload_id IN (SELECT id FROM upload_sessions WHERE readback = 1);
-- How many uploads name it. One that is let go by all of them is removed.
ALTER TABLE objects ADD COLUMN named_by INTEGER NOT NULL DEFAULT 1 CHECK (named_by >= 1);
-- The SHA-256 of an object that is addressed by its content; such an object is never written again.
ALTER TABLE objects ADD COLUMN sha256 BLOB CHECK (length(sha256) = 32);
CREATE INDEX objects_sha256 ON objects (sha256) WHERE sha256 IS NOT NULL;

-- One more kind of intent: the object at the address of its content. SQLite changes a CHECK only with a new table.
CREATE TABLE intents_new (
    upload_id       BLOB    NOT NULL REFERENCES upload_sessions (id) ON DELETE CASCADE,
    kind            TEXT    NOT NULL CHECK (kind IN ('multipart', 'object', 'address')),
    key             TEXT    NOT NULL,
    store_upload_id TEXT,
    created_at      INTEGER NOT NULL,
    ended           INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1)),
    -- Until when somebody is at removing what is at an address.
    held_until      INTEGER,
    PRIMARY KEY (upload_id, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO intents_new (upload_id, kind, key, store_upload_id, created_at, ended)
    SELECT upload_id, kind, key, store_upload_id, created_at, ended FROM intents;
DROP TABLE intents;
ALTER TABLE intents_new RENAME TO intents;
CREATE INDEX intents_left_over ON intents (upload_id) WHERE ended = 1;
-- Whether somebody is at a key's object.
CREATE INDEX intents_address ON intents (key) WHERE kind = 'address';

-- The key of a completed upload's object, where it is another than the one that its bytes were brought together under.
ALTER TABLE upload_sessions ADD COLUMN object_key TEXT;
