-- What the tus and IETF protocols need of an upload.

-- What it is for. A partial upload is a part of final ones.
ALTER TABLE upload_sessions ADD COLUMN role TEXT NOT NULL DEFAULT 'whole' CHECK (role IN ('whole', 'partial', 'final'));
-- The metadata as its client wrote it.
ALTER TABLE upload_sessions ADD COLUMN metadata_field TEXT;
-- A text that only the upload's key opens.
ALTER TABLE upload_sessions ADD COLUMN sealed BLOB;

-- Which partial uploads a final one is made of, in order; one may stand there more than once. That they are there is
-- checked when the final one is created, and kept up when one of them ends.
CREATE TABLE upload_concat (
    final_id BLOB    NOT NULL REFERENCES upload_sessions (id) ON DELETE CASCADE,
    position INTEGER NOT NULL CHECK (position >= 0),
    part_id  BLOB    NOT NULL CHECK (length(part_id) = 16),
    PRIMARY KEY (final_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_concat_part ON upload_concat (part_id);

-- Partial uploads that are complete: their objects go when they expire.
CREATE INDEX upload_sessions_spent ON upload_sessions (expires_at) WHERE role = 'partial' AND state = 'completed';
