-- Parts that clients put into the store past the server.

-- A URL for this part may be good until then. Known before the URL is handed out.
CREATE TABLE direct_parts (
    upload_id BLOB    NOT NULL REFERENCES upload_sessions (id) ON DELETE CASCADE,
    number    INTEGER NOT NULL CHECK (number >= 1),
    until     INTEGER NOT NULL,
    PRIMARY KEY (upload_id, number)
) STRICT, WITHOUT ROWID;

-- The multipart upload was begun without checksums, so no part of it may have one.
ALTER TABLE upload_sessions ADD COLUMN unchecked INTEGER NOT NULL DEFAULT 0 CHECK (unchecked IN (0, 1));
