-- Rotation: how a secret rotates and how far a rotation is; one row for each secret that was ever set up for
-- it. due: when it is to be looked at next; NULL where nothing comes by itself.
CREATE TABLE rotation (
    secret INTEGER PRIMARY KEY REFERENCES secret (uid) ON DELETE CASCADE,
    due INTEGER, doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE INDEX rotation_due ON rotation (due) WHERE due IS NOT NULL;
