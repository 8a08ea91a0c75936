-- Whose uploads are, and what they use up.

ALTER TABLE upload_sessions ADD COLUMN space TEXT NOT NULL DEFAULT 'default';
-- Empty where nobody had to say who they are. A device that is counted and has no name is ''.
ALTER TABLE upload_sessions ADD COLUMN subject TEXT;
ALTER TABLE upload_sessions ADD COLUMN token TEXT;
ALTER TABLE upload_sessions ADD COLUMN device TEXT;
-- The most bytes that it may have, where its creator was held to less than the server allows.
ALTER TABLE upload_sessions ADD COLUMN max_size INTEGER CHECK (max_size >= 0);
-- Its content has to be of the type that was declared.
ALTER TABLE upload_sessions ADD COLUMN typed INTEGER NOT NULL DEFAULT 0 CHECK (typed IN (0, 1));
-- How many bytes of it are counted against its creator's limits.
ALTER TABLE upload_sessions ADD COLUMN charged INTEGER NOT NULL DEFAULT 0 CHECK (charged >= 0);
-- Those limits, as they were when it was created, where its length was not known then: they are looked at as bytes arrive.
ALTER TABLE upload_sessions ADD COLUMN limits TEXT;

-- The space that an object was first brought to. Others are not told that it was there before.
ALTER TABLE objects ADD COLUMN space TEXT NOT NULL DEFAULT 'default';

-- What is open, of a token and of a device.
CREATE INDEX upload_sessions_open_token ON upload_sessions (token)
    WHERE state IN ('pending', 'uploading') AND token IS NOT NULL;
CREATE INDEX upload_sessions_open_device ON upload_sessions (space, subject, device)
    WHERE state IN ('pending', 'uploading') AND device IS NOT NULL;
-- How long its record stays once it has ended, where that is not as long as everywhere.
ALTER TABLE upload_sessions ADD COLUMN retention_ms INTEGER CHECK (retention_ms >= 0);
CREATE INDEX upload_sessions_retained ON upload_sessions (ended_at + retention_ms)
    WHERE ended_at IS NOT NULL AND retention_ms IS NOT NULL;

-- How much was used up: by a device or a subject on a day (counted from 1970-01-01), by a token or in a space at all (day -1).
CREATE TABLE usage (
    kind    TEXT    NOT NULL CHECK (kind IN ('device', 'subject', 'token', 'space')),
    name    TEXT    NOT NULL,
    day     INTEGER NOT NULL,
    uploads INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    PRIMARY KEY (kind, name, day)
) STRICT, WITHOUT ROWID;
-- What the last round of pruning did, as JSON.
CREATE TABLE last_prune (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    at     INTEGER NOT NULL,
    report TEXT    NOT NULL
) STRICT;
CREATE INDEX usage_days ON usage (day) WHERE day >= 0;
-- What is there counts in the one space that there was, with objects that outlived their uploads' records.
UPDATE upload_sessions SET charged = coalesce(
        (SELECT o.size FROM objects o WHERE o.key = coalesce(upload_sessions.object_key, upload_sessions.store_key)),
        CASE WHEN state <> 'completed' AND role <> 'final' THEN length END, 0)
    WHERE state IN ('pending', 'uploading', 'assembling', 'completed');
INSERT INTO usage
    SELECT 'space', 'default', -1, count(*) FILTER (WHERE role <> 'partial'),
           coalesce(sum(charged), 0) + (SELECT coalesce(sum(o.size), 0) FROM objects o
               WHERE o.completed_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM upload_sessions s
                   WHERE s.state = 'completed' AND coalesce(s.object_key, s.store_key) = o.key))
    FROM upload_sessions WHERE state IN ('pending', 'uploading', 'assembling', 'completed');
