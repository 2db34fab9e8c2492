-- Principals and managed policies. `folded`: the name in lower case, since IAM's names differ by more
-- than letter case; ids (`AIDA...`) are never used again.
CREATE TABLE iam_user (
    account TEXT NOT NULL, folded TEXT NOT NULL, id TEXT NOT NULL,
    doc BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (account, folded)
) STRICT;
CREATE TABLE iam_group (
    account TEXT NOT NULL, folded TEXT NOT NULL, id TEXT NOT NULL,
    doc BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (account, folded)
) STRICT;
CREATE TABLE iam_role (
    account TEXT NOT NULL, folded TEXT NOT NULL, id TEXT NOT NULL,
    doc BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (account, folded)
) STRICT;
CREATE TABLE iam_policy (
    account TEXT NOT NULL, folded TEXT NOT NULL, id TEXT NOT NULL,
    doc BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (account, folded)
) STRICT;

-- principal: the id (`AIDA...`) of the user that holds it. used: when, in which region and for which
-- service an access key was last used; no document, since it grants nothing.
ALTER TABLE access_key ADD COLUMN principal TEXT NOT NULL DEFAULT '';
ALTER TABLE access_key ADD COLUMN used INTEGER;
ALTER TABLE access_key ADD COLUMN used_for TEXT;
CREATE INDEX access_key_principal ON access_key (account, principal, id);

-- Sessions that were ended before their time, until they would have ended by themselves (ms).
CREATE TABLE revoked_session (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, expires INTEGER NOT NULL,
    doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE INDEX revoked_session_account ON revoked_session (account, id);
CREATE INDEX revoked_session_expires ON revoked_session (expires);

-- Grants on KMS keys. grantee, retiring: the unique ids of the principals (`AIDA...`), which are never
-- used again; an account's number for the account.
CREATE TABLE kms_grant (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, grantee TEXT NOT NULL, retiring TEXT, name TEXT,
    doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE INDEX kms_grant_key ON kms_grant (key, id);
CREATE INDEX kms_grant_grantee ON kms_grant (key, grantee, id);
CREATE INDEX kms_grant_retiring ON kms_grant (retiring, id) WHERE retiring IS NOT NULL;
CREATE INDEX kms_grant_name ON kms_grant (key, name, id) WHERE name IS NOT NULL;
