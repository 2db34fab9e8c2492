//! GetSecretProbe: whether what is stored logs in still. Strongroom's own operation.

use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::Result;
use crate::ops::secrets::{SecretTarget, check_secret_id, facts, locate};
use crate::ops::shape::{Checks, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::probes::{Found, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// GetSecretProbe.
pub struct GetSecretProbe;

/// What [`GetSecretProbe`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetSecretProbeInput {
    secret_id: Option<String>,
}

impl Input for GetSecretProbeInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

/// What [`GetSecretProbe`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetSecretProbeOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    /// How often it is probed; not there if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_seconds: Option<i64>,
    /// What was found last.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_probe: Option<LastProbe>,
    /// Since when what is stored is refused; not there if it is let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    drifted_date: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_probe_date: Option<Epoch>,
}

/// A probe.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LastProbe {
    /// `LET_IN`, `REFUSED`, `UNREACHABLE` or `UNUSABLE`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    date: Epoch,
}

impl From<&Found> for LastProbe {
    fn from(found: &Found) -> Self {
        let outcome = match found.outcome {
            Outcome::LetIn => "LET_IN",
            Outcome::Refused => "REFUSED",
            Outcome::Unreachable => "UNREACHABLE",
            Outcome::Unusable => "UNUSABLE",
        };
        Self { outcome, reason: found.why.clone(), date: Epoch(found.at) }
    }
}

impl Operation for GetSecretProbe {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "GetSecretProbe";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/secrets/{SecretId}/probe" };
    type Input = GetSecretProbeInput;
    type Target = SecretTarget;
    type Output = GetSecretProbeOutput;

    async fn locate(call: &Call, input: &GetSecretProbeInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        _: GetSecretProbeInput,
    ) -> Result<GetSecretProbeOutput> {
        let secret = target.secret()?;
        let probe = call.records.probe(secret.uid)?.filter(|_| secret.probe.is_some());
        Ok(GetSecretProbeOutput {
            arn: target.arn().to_owned(),
            name: secret.name.clone(),
            every_seconds: secret.probe.map(|every| every / 1000),
            last_probe: probe.as_ref().and_then(|probe| Some(probe.found.as_ref()?.into())),
            drifted_date: probe.as_ref().and_then(|probe| probe.drifted).map(Epoch),
            next_probe_date: probe.as_ref().map(|probe| Epoch(probe.due)),
        })
    }
}
