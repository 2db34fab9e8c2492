-- probe: how often a login with what is stored is tried, ms; NULL where never.
ALTER TABLE secret ADD COLUMN probe INTEGER;
CREATE INDEX secret_probe ON secret (probe) WHERE probe IS NOT NULL;

-- What the probes of a secret have found. at, due: when the last one began, and the next one is to, ms;
-- every: the pause that this was reckoned with, ms; drifted: since when the login is refused, ms.
CREATE TABLE probe (
    secret INTEGER PRIMARY KEY REFERENCES secret (uid) ON DELETE CASCADE,
    at INTEGER NOT NULL, due INTEGER NOT NULL, every INTEGER NOT NULL, drifted INTEGER,
    doc BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE INDEX probe_drifted ON probe (drifted) WHERE drifted IS NOT NULL;
