//! The condition keys of Secrets Manager:
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecretsmanager.html>.

use crate::name::Service;
use crate::ops::keys::facts::CONTEXT;
use crate::ops::scene::tag;
use crate::policy::{Facts, Values};
use crate::store::records::Records;
use crate::store::secrets::Secret;
use std::borrow::Cow;

/// `secretsmanager:SecretId`: what the request names the secret by.
pub(super) fn secret_id<'a>(key: &str, named: Option<&'a String>) -> Option<Values<'a>> {
    text(key, "secretsmanager:secretid", named)
}

/// A key whose value is a text of the request's.
pub(super) fn text<'a>(key: &str, of: &str, value: Option<&'a String>) -> Option<Values<'a>> {
    value.filter(|_| key == of).map(|value| Values::one(value))
}

/// A key whose value is a number of the request's.
pub(super) fn number(key: &str, of: &str, value: Option<i64>) -> Option<Values<'static>> {
    value.filter(|_| key == of).map(|value| Values::made(value.to_string()))
}

/// A key whose value is a truth value of the request's.
pub(super) fn truth(key: &str, of: &str, value: Option<bool>) -> Option<Values<'static>> {
    value.filter(|_| key == of).map(Values::truth)
}

/// `secretsmanager:KmsKeyId`: what the request names the KMS key by.
pub(super) fn kms_key_id<'a>(key: &str, named: Option<&'a String>) -> Option<Values<'a>> {
    text(key, "secretsmanager:kmskeyid", named)
}

/// `secretsmanager:KmsKeyArn`: the key that it names, whether by its ARN, its id or an alias.
pub(super) fn kms_key_arn<'a>(key: &str, arn: Option<&'a String>) -> Option<Values<'a>> {
    text(key, "secretsmanager:kmskeyarn", arn)
}

/// What the secret itself answers.
pub(super) fn of_secret<'a>(secret: &'a Secret, region: &'a str, key: &str) -> Option<Values<'a>> {
    if key == "secretsmanager:secretprimaryregion" {
        return Some(Values::one(region));
    }
    let wanted = key.strip_prefix("aws:resourcetag/");
    let wanted = wanted.or_else(|| key.strip_prefix("secretsmanager:resourcetag/"))?;
    tag(secret.tags.as_deref().unwrap_or_default(), wanted)
}

/// `secretsmanager:resource/AllowRotationLambdaArn`: the function that rotates the secret. A database
/// that can't be read answers no key, and no operation either.
pub(super) fn of_rotation(
    records: &Records,
    secret: &Secret,
    key: &str,
) -> Option<Values<'static>> {
    if key != "secretsmanager:resource/allowrotationlambdaarn" {
        return None;
    }
    let rotation = records.rotation(secret.uid).ok().flatten()?;
    Some(Values::made(rotation.function.clone()))
}

/// The name of a secret alone, as an item of a batch.
pub(super) struct Item<'a>(pub(super) &'a str);

impl Facts for Item<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        (key == "secretsmanager:secretid").then(|| Values::one(self.0))
    }
}

/// A use of a KMS key in the caller's name by Secrets Manager, for a version of a secret; AWS sets
/// the encryption context {SecretARN, SecretVersionId}.
pub(super) struct Through<'a> {
    pub(super) region: &'a str,
    pub(super) arn: &'a str,
    pub(super) version: &'a str,
}

impl Facts for Through<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        match key {
            "kms:viaservice" => {
                let service = Service::SecretsManager.prefix();
                Some(Values::made([service, ".", self.region, ".amazonaws.com"].concat()))
            }
            "aws:viaawsservice" => Some(Values::truth(true)),
            "kms:encryptioncontext:secretarn" => Some(Values::one(self.arn)),
            "kms:encryptioncontext:secretversionid" => Some(Values::one(self.version)),
            CONTEXT => {
                let pairs = ["SecretARN", self.arn, "SecretVersionId", self.version];
                Some(Values::Many(pairs.map(Cow::Borrowed).to_vec()))
            }
            "kms:encryptioncontextkeys" => {
                Some(Values::Many(vec!["SecretARN".into(), "SecretVersionId".into()]))
            }
            _ => None,
        }
    }
}
