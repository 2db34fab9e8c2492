//! ListSecretVersionIds.

use super::{SecretTarget, facts, locate};
use crate::clock::{DAY, Time};
use crate::envelope::Envelope;
use crate::name::{Service, key_arn};
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::keys::KeyManager;
use crate::store::secrets::{Secret, VersionInfo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Versions on a page where the request doesn't say.
const PAGE: usize = 100;

/// ListSecretVersionIds:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecretVersionIds.html>.
pub struct ListSecretVersionIds;

/// What [`ListSecretVersionIds`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListSecretVersionIdsInput {
    secret_id: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
    #[serde(default)]
    include_deprecated: Option<bool>,
}

impl Input for ListSecretVersionIdsInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("secretId", &self.secret_id);
        checks.length("secretId", self.secret_id.as_deref(), 1, 2048);
        checks.range("maxResults", self.max_results, 1, 100);
        checks.length("nextToken", self.next_token.as_deref(), 1, 4096);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

/// What [`ListSecretVersionIds`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListSecretVersionIdsOutput {
    versions: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    version_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    version_stages: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_accessed_date: Option<Epoch>,
    created_date: Epoch,
    kms_key_ids: [String; 1],
}

impl Operation for ListSecretVersionIds {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "ListSecretVersionIds";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/secrets/{SecretId}/versions" };
    type Input = ListSecretVersionIdsInput;
    type Target = SecretTarget;
    type Output = ListSecretVersionIdsOutput;

    async fn locate(call: &Call, input: &ListSecretVersionIdsInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: ListSecretVersionIdsInput,
    ) -> Result<ListSecretVersionIdsOutput> {
        let secret = target.secret()?.clone();
        let all = input.include_deprecated.unwrap_or(false);
        let scope = format!("{}/ListSecretVersionIds/{}/{all}", secret.account, secret.uid);
        let after = match &input.next_token {
            Some(token) => position(&call.pages.position(&scope, token)?)?,
            None => 0,
        };
        let limit = input.max_results.and_then(|n| usize::try_from(n).ok()).unwrap_or(PAGE);
        let (mut found, of) = (page(call, &secret, after, limit, all).await?, secret.clone());
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        let next_token = last.map(|last| call.pages.token(&scope, &last.row.to_string()));
        let entries = found.into_iter().map(|version| entry(call, &of, version));
        Ok(ListSecretVersionIdsOutput {
            versions: entries.collect::<Result<_>>()?,
            next_token,
            arn: target.arn().to_owned(),
            name: secret.name.clone(),
        })
    }
}

fn position(token: &str) -> Result<i64> {
    token.parse().map_err(|_| Error::new(Condition::InvalidNextToken, "Invalid token"))
}

/// The versions after `after`, one more than a page takes: those with labels, or all.
async fn page(
    call: &Call,
    secret: &std::sync::Arc<Secret>,
    after: i64,
    limit: usize,
    all: bool,
) -> Result<Vec<VersionInfo>> {
    let secret = secret.clone();
    let found = call.records.scan(move |rows| {
        let mut found = Vec::new();
        rows.each_version(secret.uid, after, |version| {
            if all || secret.labels_of(&version.id).next().is_some() {
                found.push(version);
            }
            found.len() <= limit
        })?;
        Ok::<_, Error>(found)
    });
    found.await
}

fn entry(call: &Call, secret: &Secret, version: VersionInfo) -> Result<Entry> {
    Ok(Entry {
        version_stages: secret.labels_of(&version.id).map(str::to_owned).collect(),
        last_accessed_date: version.accessed.map(|day| Epoch(Time(day.saturating_mul(DAY)))),
        created_date: Epoch(version.created),
        kms_key_ids: [kms_key_id(call, secret, &version.data_key)?],
        version_id: version.id,
    })
}

/// The KMS key of a version, as AWS writes it: the service's own key has a name for this list.
fn kms_key_id(call: &Call, secret: &Secret, data_key: &[u8]) -> Result<String> {
    let default = || "DefaultEncryptionKey".to_owned();
    let Ok(envelope) = Envelope::parse(data_key) else { return Ok(default()) };
    let key = call.records.key(&envelope.key_id)?;
    let aws = key.as_ref().is_some_and(|key| key.manager == KeyManager::Aws);
    let account = key.as_ref().map_or(&secret.account, |key| &key.account);
    Ok(if aws { default() } else { key_arn(&call.region, account, &envelope.key_id) })
}
