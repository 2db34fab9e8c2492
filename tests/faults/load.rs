//! Clients that change secrets and keys at random, know what must come of it, and check it.

use crate::appliance::{Appliance, Lots};
use crate::client::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

/// Secrets of one worker that exist at the same time.
const SECRETS: usize = 4;
/// Versions after which a secret is rather deleted than given another.
const VERSIONS: usize = 8;

/// What a secret must look like; all empty if there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Secret {
    name: String,
    /// Value by version id.
    versions: BTreeMap<String, String>,
    /// Version id by label.
    labels: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
}

/// A request, and what is to be once it has been done.
struct Step {
    operation: &'static str,
    input: Value,
    /// Which secret becomes what; none for keys and reads.
    after: Option<(usize, Secret)>,
}

/// One client with its own secrets and keys.
pub(crate) struct Worker {
    number: usize,
    client: Client,
    lots: Lots,
    steps: u64,
    secrets: Vec<Secret>,
    /// Keys that were acknowledged.
    pub(crate) keys: Vec<String>,
    /// The `User-Agent`s of acknowledged requests since the last check, and whether each was a
    /// change.
    pub(crate) acknowledged: Vec<String>,
    /// The request whose answer never came.
    in_flight: Option<(String, Option<(usize, Secret)>)>,
    /// What broke the connection.
    pub(crate) broke: Option<std::io::Error>,
}

impl Secret {
    fn current(&self) -> Option<&String> {
        self.labels.get("AWSCURRENT")
    }

    /// Moves a label as Secrets Manager does: who loses AWSCURRENT gets AWSPREVIOUS.
    fn label(&mut self, label: &str, version: &str) {
        let before = self.labels.insert(label.to_owned(), version.to_owned());
        if let Some(before) = before.filter(|_| label == "AWSCURRENT") {
            self.labels.insert("AWSPREVIOUS".to_owned(), before);
        }
    }

    /// What the server says of it.
    fn fetch(client: &mut Client, name: &str) -> Self {
        let described = client.ask("secretsmanager:DescribeSecret", &json!({"SecretId": name}));
        if described.code() == "ResourceNotFoundException" {
            return Self { name: name.to_owned(), ..Self::default() };
        }
        let described = described.output();
        let mut found = Self { name: name.to_owned(), ..Self::default() };
        for tag in described["Tags"].as_array().into_iter().flatten() {
            found.tags.insert(text(&tag["Key"]), text(&tag["Value"]));
        }
        for (version, labels) in described["VersionIdsToStages"].as_object().expect("labels") {
            for label in labels.as_array().expect("labels") {
                let twice = found.labels.insert(text(label), version.clone());
                assert_eq!(twice, None, "{name}: {label} is on two versions");
            }
        }
        let input = json!({"SecretId": name, "IncludeDeprecated": true});
        let listed = client.ask("secretsmanager:ListSecretVersionIds", &input).output();
        for version in listed["Versions"].as_array().expect("versions") {
            let id = text(&version["VersionId"]);
            let input = json!({"SecretId": name, "VersionId": id});
            let value = client.ask("secretsmanager:GetSecretValue", &input).member("SecretString");
            found.versions.insert(id, value);
        }
        found
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

impl Worker {
    pub(crate) fn new(number: usize, appliance: &Appliance, lots: Lots) -> Self {
        Self {
            number,
            client: appliance.client(),
            lots,
            steps: 0,
            secrets: Vec::new(),
            keys: Vec::new(),
            acknowledged: Vec::new(),
            in_flight: None,
            broke: None,
        }
    }

    /// Works until `stop` or until the connection breaks.
    pub(crate) fn work(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) && self.broke.is_none() {
            let step = self.next();
            self.take(step);
        }
    }

    fn take(&mut self, step: Step) {
        self.steps += 1;
        let agent = format!("worker-{}-{}", self.number, self.steps);
        self.client.agent.clone_from(&agent);
        match self.client.call(step.operation, &step.input) {
            Ok(reply) => {
                assert_eq!(
                    reply.status,
                    200,
                    "{} {}: {}",
                    step.operation,
                    step.input,
                    reply.text()
                );
                self.acknowledged.push(agent);
                if step.operation == "kms:CreateKey" {
                    self.keys.push(text(&reply.json()["KeyMetadata"]["KeyId"]));
                } else if let Some((index, after)) = step.after {
                    self.secrets[index] = after;
                } else {
                    let (output, name) = (reply.json(), &step.input["SecretId"]);
                    let secret = self.secrets.iter().find(|s| s.name == *name).expect("known");
                    let current = secret.current().expect("a current version");
                    assert_eq!(output["VersionId"], **current, "{name}");
                    assert_eq!(output["SecretString"], secret.versions[current], "{name}");
                }
            }
            Err(error) => {
                self.in_flight = Some((agent, step.after));
                self.broke = Some(error);
            }
        }
    }

    fn next(&mut self) -> Step {
        let living: Vec<usize> =
            (0..self.secrets.len()).filter(|i| self.secrets[*i].current().is_some()).collect();
        if living.len() < SECRETS && self.lots.below(3) == 0 || living.is_empty() {
            return self.create();
        }
        let index = living[usize::try_from(self.lots.below(living.len() as u64)).expect("small")];
        let (id, value) = (self.lots.uuid(), format!("value {:x}", self.lots.draw()));
        let mut after = self.secrets[index].clone();
        let name = after.name.clone();
        let lot = if after.versions.len() >= VERSIONS { 0 } else { self.lots.below(20) };
        let (operation, input) = match lot {
            0 => {
                after = Secret { name: name.clone(), ..Secret::default() };
                let input = json!({"SecretId": name, "ForceDeleteWithoutRecovery": true});
                ("secretsmanager:DeleteSecret", input)
            }
            1..=6 => {
                after.versions.insert(id.clone(), value.clone());
                after.label("AWSCURRENT", &id);
                let input =
                    json!({"SecretId": name, "ClientRequestToken": id, "SecretString": value});
                ("secretsmanager:PutSecretValue", input)
            }
            7..=9 => {
                after.versions.insert(id.clone(), value.clone());
                after.label("AWSPENDING", &id);
                let input = json!({"SecretId": name, "ClientRequestToken": id,
                    "SecretString": value, "VersionStages": ["AWSPENDING"]});
                ("secretsmanager:PutSecretValue", input)
            }
            10..=12 => return self.promote(index),
            13..=15 => {
                after.tags.insert(format!("tag{}", lot), value.clone());
                let tags = json!([{"Key": format!("tag{}", lot), "Value": value}]);
                ("secretsmanager:TagResource", json!({"SecretId": name, "Tags": tags}))
            }
            16 => return Step { operation: "kms:CreateKey", input: json!({}), after: None },
            _ => return self.read(name),
        };
        Step { operation, input, after: Some((index, after)) }
    }

    fn create(&mut self) -> Step {
        let (id, value) = (self.lots.uuid(), format!("value {:x}", self.lots.draw()));
        let name = format!("load/{}/{}", self.number, self.steps);
        self.secrets.push(Secret { name: name.clone(), ..Secret::default() });
        let mut after = Secret { name: name.clone(), ..Secret::default() };
        after.versions.insert(id.clone(), value.clone());
        after.label("AWSCURRENT", &id);
        let input = json!({"Name": name, "ClientRequestToken": id, "SecretString": value});
        let after = Some((self.secrets.len() - 1, after));
        Step { operation: "secretsmanager:CreateSecret", input, after }
    }

    /// Moves AWSCURRENT to a version that does not have it, as a rotation's last step does.
    fn promote(&mut self, index: usize) -> Step {
        let mut after = self.secrets[index].clone();
        let name = after.name.clone();
        let current = after.current().expect("living").clone();
        let Some(other) = after.versions.keys().find(|id| **id != current).cloned() else {
            return self.read(name);
        };
        after.label("AWSCURRENT", &other);
        let input = json!({"SecretId": name, "VersionStage": "AWSCURRENT",
            "MoveToVersionId": other, "RemoveFromVersionId": current});
        let operation = "secretsmanager:UpdateSecretVersionStage";
        Step { operation, input, after: Some((index, after)) }
    }

    fn read(&self, name: String) -> Step {
        let operation = "secretsmanager:GetSecretValue";
        Step { operation, input: json!({"SecretId": name}), after: None }
    }

    /// Compares every secret with the server; `records` (successes in the audit log, by
    /// `User-Agent`) must say the same. The request that was not answered has been done or not,
    /// wholly; after an orderly end (`killed` is false) it has not been done.
    pub(crate) fn check(
        &mut self,
        appliance: &Appliance,
        records: &HashMap<String, usize>,
        killed: bool,
    ) {
        self.client = appliance.client();
        self.broke = None;
        let (agent, mut after) = self.in_flight.take().unwrap_or_default();
        if !killed {
            assert_eq!(records.get(&agent), None, "{agent} was done and not answered");
        }
        for (index, expected) in self.secrets.iter_mut().enumerate() {
            let found = Secret::fetch(&mut self.client, &expected.name);
            match after.take_if(|(i, _)| *i == index) {
                Some((_, after)) if found != *expected => {
                    assert_eq!(found, after, "neither as before nor as after {agent}");
                    assert_eq!(records.get(&agent), Some(&1), "{agent} was done: its record");
                    *expected = found;
                }
                Some(_) => assert_eq!(records.get(&agent), None, "{agent} was not done"),
                None => assert_eq!(found, *expected),
            }
        }
        for agent in self.acknowledged.drain(..) {
            assert_eq!(records.get(&agent), Some(&1), "{agent} was acknowledged: its record");
        }
        // What is gone need not be looked at again.
        self.secrets.retain(|s| s.current().is_some());
    }
}
