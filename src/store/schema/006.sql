-- Rotation functions that accounts have registered.
CREATE TABLE function (
    account TEXT NOT NULL, name TEXT NOT NULL,
    doc BLOB NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;

-- The function that rotates a secret, as its document says: one that is in use is not taken away.
ALTER TABLE rotation ADD COLUMN function TEXT;
UPDATE rotation SET function = json_extract(CAST(doc AS TEXT), '$.function');
CREATE INDEX rotation_function ON rotation (function);
