-- Objects that several uploads name, and how their content is known.

-- How the digests are known; `verified` says whether the store checked what it was given.
ALTER TABLE objects ADD COLUMN known_by TEXT NOT NULL DEFAULT 'stream' CHECK (known_by IN ('stream', 'readback', 'store_checksum'));
-- How many uploads name it. One that is let go by all of them is removed.
ALTER TABLE objects ADD COLUMN named_by INTEGER NOT NULL DEFAULT 1 CHECK (named_by >= 1);
-- The SHA-256 of an object that is addressed by its content; such an object is never written again.
ALTER TABLE objects ADD COLUMN sha256 BLOB CHECK (length(sha256) = 32);
CREATE INDEX objects_sha256 ON objects (sha256) WHERE sha256 IS NOT NULL;

-- The key of a completed upload's object, where it is another than the one that its bytes were brought together under.
ALTER TABLE upload_sessions ADD COLUMN object_key TEXT;
