-- resealing: 1 while there may be data keys for holders of before, as the KMS key's document says.
ALTER TABLE kms_key ADD COLUMN resealing INTEGER;
UPDATE kms_key SET resealing = 1 WHERE json_extract(CAST(doc AS TEXT), '$.resealing');
CREATE INDEX kms_key_resealing ON kms_key (resealing) WHERE resealing IS NOT NULL;
