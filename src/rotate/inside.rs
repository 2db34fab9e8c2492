//! The API from inside: operations in the appliance's own name, through the same pipeline, with the
//! same audit records.

use crate::name::Service;
use crate::ops::call::{Call, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{SecretBlob, SecretText, decode, encode};
use crate::store::keys::Tag;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One secret, as the appliance itself sees it.
pub(super) struct Inside<'a> {
    pub(super) services: &'a Arc<Services>,
    pub(super) account: &'a str,
    pub(super) arn: &'a str,
}

/// What a version of a secret holds.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Held {
    pub(super) version_id: String,
    pub(super) secret_string: Option<SecretText>,
    pub(super) secret_binary: Option<SecretBlob>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Get<'a> {
    secret_id: &'a str,
    version_stage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Put<'a> {
    secret_id: &'a str,
    client_request_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_string: Option<SecretText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_binary: Option<SecretBlob>,
    version_stages: [&'static str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Move<'a> {
    secret_id: &'a str,
    version_stage: &'static str,
    move_to_version_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remove_from_version_id: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    random_password: SecretText,
}

impl Inside<'_> {
    /// Asks an operation of Secrets Manager.
    async fn ask(&self, operation: &str, input: &impl Serialize) -> Result<crate::secret::Secret> {
        let body = encode(input)?.into_secret();
        let services = self.services.clone();
        let call = Call::of_system(services, Service::SecretsManager, operation, self.account)?;
        Ok(call.row.run(&call, body.expose()).await?.into_secret())
    }

    /// The value under a label; of the version `id` if one is given. None if there is no value.
    pub(super) async fn value(&self, stage: &str, id: Option<&str>) -> Result<Option<Held>> {
        let get = Get { secret_id: self.arn, version_stage: stage, version_id: id };
        match self.ask("GetSecretValue", &get).await {
            Ok(answer) => decode(answer.expose()).map(Some),
            Err(error) if error.condition == Condition::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a value under AWSPENDING.
    pub(super) async fn put_pending(
        &self,
        token: &str,
        (text, binary): (Option<SecretText>, Option<SecretBlob>),
    ) -> Result<()> {
        let put = Put {
            secret_id: self.arn,
            client_request_token: token,
            secret_string: text,
            secret_binary: binary,
            version_stages: ["AWSPENDING"],
        };
        self.ask("PutSecretValue", &put).await.map(drop)
    }

    /// Moves AWSCURRENT to a version.
    pub(super) async fn promote(&self, token: &str, from: Option<&str>) -> Result<()> {
        let step = Move {
            secret_id: self.arn,
            version_stage: "AWSCURRENT",
            move_to_version_id: token,
            remove_from_version_id: from,
        };
        self.ask("UpdateSecretVersionStage", &step).await.map(drop)
    }

    /// A password by rules that are members of GetRandomPassword's input.
    pub(super) async fn password(&self, rules: &serde_json::Value) -> Result<SecretText> {
        let answer = self.ask("GetRandomPassword", rules).await?;
        let made: Made = decode(answer.expose())?;
        Ok(made.random_password)
    }

    /// How the secret is tagged.
    pub(super) fn tags(&self, name: &str) -> Result<Vec<Tag>> {
        let secret = self.services.records.secret(self.account, name)?;
        let secret = secret.ok_or_else(|| Error::new(Condition::NotFound, "the secret is gone"))?;
        Ok(secret.tags.clone().unwrap_or_default())
    }
}
