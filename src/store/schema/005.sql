-- expires: when a secret's deadline is, ms. notice: when its next expiry notice is due, ms.
ALTER TABLE secret ADD COLUMN expires INTEGER;
ALTER TABLE secret ADD COLUMN notice INTEGER;
CREATE INDEX secret_expires ON secret (expires) WHERE expires IS NOT NULL;
CREATE INDEX secret_notice ON secret (notice) WHERE notice IS NOT NULL;

-- until: when the time of the rotation that is under way ends, ms; NULL where none is.
ALTER TABLE rotation ADD COLUMN until INTEGER;
CREATE INDEX rotation_until ON rotation (until) WHERE until IS NOT NULL;
