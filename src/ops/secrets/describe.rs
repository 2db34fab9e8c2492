//! DescribeSecret, and how a secret is described.

use super::rotate::state::{next_date, schedule};
use super::schedule::RotationRules;
use super::{SecretTarget, check_secret_id, facts, locate};
use crate::clock::{DAY, Time};
use crate::name::{Service, secret_arn};
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::{Checks, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::keys::Tag;
use crate::store::rotations::Rotation;
use crate::store::secrets::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// DescribeSecret:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DescribeSecret.html>.
pub struct DescribeSecret;

/// What [`DescribeSecret`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSecretInput {
    secret_id: Option<String>,
}

impl Input for DescribeSecretInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

/// A secret without its values, as [`DescribeSecret`] and ListSecrets answer it. A member that says
/// nothing is left out.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Description {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_enabled: Option<bool>,
    #[serde(rename = "RotationLambdaARN", skip_serializing_if = "Option::is_none")]
    rotation_lambda_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_rules: Option<RotationRules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_rotated_date: Option<Epoch>,
    last_changed_date: Epoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_date: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_accessed_date: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_date: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<TagEntry>>,
    /// By its name in DescribeSecret.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    version_ids_to_stages: Stages,
    /// By its name in ListSecrets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secret_versions_to_stages: Stages,
    created_date: Epoch,
}

/// The labels of each version that has any.
type Stages = BTreeMap<String, Vec<String>>;

/// A tag in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagEntry {
    key: String,
    value: String,
}

impl Description {
    /// As DescribeSecret answers it. `accessed` is the day of the last read, days since 1970.
    fn of(region: &str, secret: &Secret, accessed: Option<i64>) -> Self {
        let tag = |tag: &Tag| TagEntry { key: tag.key.clone(), value: tag.value.clone() };
        Self {
            arn: secret_arn(region, &secret.account, &secret.name, &secret.suffix),
            name: secret.name.clone(),
            description: secret.description.clone(),
            kms_key_id: secret.kms_key_id.clone(),
            rotation_enabled: None,
            rotation_lambda_arn: None,
            rotation_rules: None,
            last_rotated_date: None,
            last_changed_date: Epoch(secret.changed),
            next_rotation_date: None,
            last_accessed_date: accessed.map(|day| Epoch(Time(day.saturating_mul(DAY)))),
            deleted_date: secret.deleted.map(Epoch),
            tags: secret.tags.as_ref().map(|tags| tags.iter().map(tag).collect()),
            version_ids_to_stages: stages(secret),
            secret_versions_to_stages: Stages::new(),
            created_date: Epoch(secret.created),
        }
    }

    /// Adds how it rotates. What was turned off still shows, without dates.
    pub(super) fn add_rotation(&mut self, rotation: Option<&Rotation>) {
        let Some(rotation) = rotation else { return };
        // Functions in AWS's style do nothing where rotation is off, and what an earlier rotation left
        // behind may be rolled forward after it was turned off.
        self.rotation_enabled = Some(rotation.enabled || rotation.progress.is_some());
        self.rotation_lambda_arn = Some(rotation.function.clone());
        self.rotation_rules = schedule(rotation).map(|schedule| RotationRules {
            automatically_after_days: schedule.days_between(rotation.last),
            ..rotation.rules.as_ref().map(RotationRules::from).unwrap_or_default()
        });
        self.last_rotated_date = rotation.last.filter(|_| rotation.enabled).map(Epoch);
        self.next_rotation_date = next_date(rotation).map(Epoch);
    }

    /// As ListSecrets answers it.
    pub(super) fn listed(region: &str, secret: &Secret, accessed: Option<i64>) -> Self {
        let mut described = Self::of(region, secret, accessed);
        described.secret_versions_to_stages = std::mem::take(&mut described.version_ids_to_stages);
        described
    }
}

fn stages(secret: &Secret) -> Stages {
    let mut all = Stages::new();
    for stage in &secret.stages {
        all.entry(stage.version.clone()).or_default().push(stage.label.clone());
    }
    all
}

impl Operation for DescribeSecret {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "DescribeSecret";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/secrets/{SecretId}" };
    type Input = DescribeSecretInput;
    type Target = SecretTarget;
    type Output = Description;

    async fn locate(call: &Call, input: &DescribeSecretInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        _: DescribeSecretInput,
    ) -> Result<Description> {
        let secret = target.secret()?;
        let accessed = call.records.read(|rows| rows.accessed(secret))?;
        let rotation = call.records.rotation(secret.uid)?;
        let mut described = Description::of(&call.region, secret, accessed);
        described.add_rotation(rotation.as_deref());
        Ok(described)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::secrets::Stage;

    fn bare() -> Secret {
        serde_json::from_value(serde_json::json!({
            "uid": 1, "account": "111122223333", "name": "db", "suffix": "AbCdEf",
            "created": 1500, "changed": 2500, "stages": [], "versions": 0, "prune_after": 0, "revision": 1,
        }))
        .expect("a secret")
    }

    fn json(described: &Description) -> serde_json::Value {
        serde_json::to_value(described).expect("JSON")
    }

    #[test]
    fn what_there_is_nothing_to_say_of_is_left_out() {
        assert_eq!(
            json(&Description::of("eu-central-1", &bare(), None)),
            serde_json::json!({
                "ARN": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:db-AbCdEf",
                "Name": "db", "CreatedDate": 1.5, "LastChangedDate": 2.5,
            })
        );
    }

    #[test]
    fn tags_once_there_stay_as_an_empty_list() {
        let emptied = Secret { tags: Some(vec![]), ..bare() };
        assert_eq!(json(&Description::of("r", &emptied, None))["Tags"], serde_json::json!([]));
    }

    #[test]
    fn a_read_shows_as_the_midnight_of_its_day() {
        let described = json(&Description::of("r", &bare(), Some(20_000)));
        assert_eq!(described["LastAccessedDate"], 20_000.0 * 86_400.0);
    }

    #[test]
    fn labels_stand_under_another_name_in_a_list() {
        let stage = |label: &str| Stage { label: label.into(), version: "v1".into() };
        let secret = Secret { stages: vec![stage("AWSCURRENT"), stage("blue")], ..bare() };
        let labels = serde_json::json!({"v1": ["AWSCURRENT", "blue"]});
        let described = json(&Description::of("r", &secret, None));
        assert_eq!(described["VersionIdsToStages"], labels);
        assert_eq!(described.get("SecretVersionsToStages"), None);
        let listed = json(&Description::listed("r", &secret, None));
        assert_eq!(listed["SecretVersionsToStages"], labels);
        assert_eq!(listed.get("VersionIdsToStages"), None);
    }
}
