-- Each aggregate is one row: a document (JSON) with a MAC over it. The other columns are there to
-- find it by; they repeat what the document says, and the document is what counts.

-- What the data directory is: format, site, the wrapped store key.
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;

CREATE TABLE account (id TEXT PRIMARY KEY, doc BLOB NOT NULL, mac BLOB NOT NULL) STRICT;

CREATE TABLE access_key (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;

-- KMS keys. due: when the deletion window ends, ms. rotates: when the next automatic rotation is due,
-- ms; nothing while the key is not enabled.
CREATE TABLE kms_key (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, due INTEGER, rotates INTEGER,
    doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE INDEX kms_key_account ON kms_key (account, id);
CREATE INDEX kms_key_due ON kms_key (due) WHERE due IS NOT NULL;
CREATE INDEX kms_key_rotates ON kms_key (rotates) WHERE rotates IS NOT NULL;

CREATE TABLE alias (
    account TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL,
    doc BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (account, name)
) STRICT;
CREATE INDEX alias_key ON alias (account, key, name);

-- Secrets. due: when the recovery window ends, ms. accessed: day of the last read, days since 1970.
CREATE TABLE secret (
    uid INTEGER PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL,
    created INTEGER NOT NULL, changed INTEGER NOT NULL, due INTEGER, accessed INTEGER,
    doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX secret_name ON secret (account, name);
CREATE INDEX secret_created ON secret (account, created, uid);
CREATE INDEX secret_changed ON secret (account, changed, uid);
CREATE INDEX secret_accessed ON secret (account, coalesce(accessed, -1), uid);
CREATE INDEX secret_due ON secret (due) WHERE due IS NOT NULL;

-- Versions: the data key as an envelope, the value sealed under it; bound to secret and version by
-- their associated data. Labels stand in the secret's document.
CREATE TABLE version (
    row INTEGER PRIMARY KEY, secret INTEGER NOT NULL REFERENCES secret (uid) ON DELETE CASCADE,
    id TEXT NOT NULL, created INTEGER NOT NULL, accessed INTEGER,
    data_key BLOB NOT NULL, value BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX version_id ON version (secret, id);

-- Backing keys that are being made or destroyed: durable before the token is touched.
CREATE TABLE intent (
    backing_key TEXT PRIMARY KEY, doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;

-- Audit records of changes, committed with the change, on their way to the audit log.
CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, record BLOB NOT NULL) STRICT;
