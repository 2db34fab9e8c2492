-- Custom key stores: each names a token besides the default one by its serial number. An account has a
-- token in one of them and no more, and a name once.
CREATE TABLE key_store (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, token TEXT NOT NULL,
    doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE INDEX key_store_account ON key_store (account, id);
CREATE UNIQUE INDEX key_store_name ON key_store (account, name);
CREATE UNIQUE INDEX key_store_token ON key_store (account, token);

-- store: the id of the custom key store that a KMS key is in.
ALTER TABLE kms_key ADD COLUMN store TEXT;
CREATE INDEX kms_key_store ON kms_key (store) WHERE store IS NOT NULL;
