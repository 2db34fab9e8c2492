//! `[[webhook]]` and `[[event_log]]`: who is told of events, and of which.

use super::event::Event;
use super::signature::Source;
use super::subscription::Way;
use super::webhook::Webhook;
use crate::ops::health::Delivery;
use crate::ops::secrets::rotate::functions::options::is_endpoint;
use crate::policy::glob::Glob;
use http::Uri;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DEADLINE_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
/// Receivers.
const MOST: usize = 64;

/// A webhook, as written in the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookOptions {
    /// What tells it from other receivers: 1 to 32 lower-case letters, digits and hyphens.
    pub name: String,
    /// `https://`, or `http://` on loopback.
    pub url: String,
    /// A file of the certificates of authorities to trust; without it the system's.
    pub ca: Option<PathBuf>,
    /// A file of mode 0600 or 0400 with the secret that signs, or two.
    pub secret_file: Option<PathBuf>,
    /// The longest that an event may take, in milliseconds; from 100 to 60,000.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
    /// Patterns of the kinds of events that it gets.
    #[serde(default = "all")]
    pub events: Vec<String>,
    /// Patterns of the names of secrets of which it is told.
    #[serde(default = "all")]
    pub secrets: Vec<String>,
    /// The accounts of which it is told; all if there is none.
    #[serde(default)]
    pub accounts: Vec<String>,
}

/// A file of events, as written in the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileOptions {
    /// What tells it from other receivers: 1 to 32 lower-case letters, digits and hyphens.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Patterns of the kinds of events that it gets.
    #[serde(default = "all")]
    pub events: Vec<String>,
    /// Patterns of the names of secrets of which it is told.
    #[serde(default = "all")]
    pub secrets: Vec<String>,
    /// The accounts of which it is told; all if there is none.
    #[serde(default)]
    pub accounts: Vec<String>,
}

fn deadline_ms() -> u64 {
    10_000
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// What is wrong with a receiver: one sentence.
#[derive(Debug, thiserror::Error)]
#[error("the receiver of events `{name}`: {why}")]
pub struct OptionsError {
    name: String,
    why: String,
}

/// Which events are wanted.
pub(super) struct Filter {
    kinds: Vec<Glob>,
    secrets: Vec<Glob>,
    accounts: Vec<String>,
}

impl Filter {
    fn new(kinds: &[String], secrets: &[String], accounts: Vec<String>) -> Self {
        let globs = |patterns: &[String]| patterns.iter().map(|p| Glob::new(p)).collect();
        Self { kinds: globs(kinds), secrets: globs(secrets), accounts }
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        let fits = |globs: &[Glob], text: &str| globs.iter().any(|glob| glob.fits(text));
        fits(&self.kinds, &event.kind)
            && fits(&self.secrets, event.secret())
            && (self.accounts.is_empty() || self.accounts.contains(&event.account))
    }
}

/// Somebody who is told of events.
pub struct Receiver {
    pub(super) filter: Filter,
    pub(super) way: Way,
    /// How it gets on.
    pub delivery: Arc<Delivery>,
}

impl WebhookOptions {
    /// Makes relative paths count from `base`.
    pub fn resolve(&mut self, base: &Path) {
        for path in [&mut self.ca, &mut self.secret_file].into_iter().flatten() {
            *path = base.join(&*path);
        }
    }

    fn way(&self) -> Result<Way, String> {
        if !DEADLINE_MS.contains(&self.deadline_ms) {
            return Err("deadline_ms is from 100 to 60000".into());
        }
        let plain = |url: &Uri| url.authority().is_some_and(|at| !at.as_str().contains('@'));
        let url: Option<Uri> = self.url.parse().ok();
        let url = url.filter(|url| is_endpoint(url) && plain(url));
        let url = url.ok_or("its URL begins with `https://`, or with `http://` on loopback")?;
        let secrets = Source::of(&self.name, self.secret_file.as_deref()).ok_or_else(|| {
            format!(
                "no secret: set `secret_file`, the systemd credential `webhook-{0}`, or \
                 STRONGROOM_WEBHOOK_{1} in the environment",
                self.name,
                self.name.to_ascii_uppercase().replace('-', "_")
            )
        })?;
        // What is missing or wrong now is the configuration's fault.
        secrets.keys()?;
        Ok(Way::Webhook(Webhook {
            url,
            ca: self.ca.clone(),
            deadline: Duration::from_millis(self.deadline_ms),
            secrets: Arc::new(secrets),
            connection: None,
        }))
    }
}

impl FileOptions {
    /// Makes a relative path count from `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }
}

/// Who is told of events by a configuration. Reads files.
///
/// # Errors
/// What is wrong with one of them.
pub fn receivers(
    webhooks: &[WebhookOptions],
    files: &[FileOptions],
) -> Result<Vec<Receiver>, OptionsError> {
    let mut found: Vec<Receiver> = Vec::with_capacity(webhooks.len() + files.len());
    let mut add = |name: &String, way: Result<Way, String>, filter| {
        let wrong = |why: &str| OptionsError { name: name.clone(), why: why.to_owned() };
        if !is_name(name) {
            return Err(wrong("a name has 1 to 32 lower-case letters, digits and hyphens"));
        }
        if found.iter().any(|other| other.delivery.name == *name) {
            return Err(wrong("two have this name"));
        }
        if found.len() == MOST {
            return Err(wrong("there are at most 64"));
        }
        let delivery = Arc::new(Delivery { name: name.clone(), ..Delivery::default() });
        found.push(Receiver { filter, way: way.map_err(|why| wrong(&why))?, delivery });
        Ok(())
    };
    for of in webhooks {
        let filter = Filter::new(&of.events, &of.secrets, of.accounts.clone());
        add(&of.name, of.way(), filter)?;
    }
    for of in files {
        let filter = Filter::new(&of.events, &of.secrets, of.accounts.clone());
        add(&of.name, Ok(Way::File(of.path.clone())), filter)?;
    }
    Ok(found)
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=32).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn event(kind: &str, secret: &str, account: &str) -> Event {
        let record = serde_json::json!({
            "eventTime": "2026-01-01T00:00:00.000Z", "eventSource": "secretsmanager.amazonaws.com",
            "eventName": kind, "awsRegion": "eu-central-1", "eventID": "e",
            "eventType": "AwsServiceEvent", "resources": [{"ARN":
                format!("arn:aws:secretsmanager:eu-central-1:{account}:secret:{secret}-AbCdEf")}],
        });
        Event::of(record.to_string().as_bytes()).expect("an event")
    }

    #[test]
    fn a_receiver_gets_the_kinds_secrets_and_accounts_that_it_names() {
        let text = "name = 'a'\npath = 'b'\nevents = ['Rotation*', 'SecretDrifted']\n\
                    secrets = ['prod/*']\naccounts = ['111122223333']";
        let options: FileOptions = toml::from_str(text).expect("TOML");
        let receiver = receivers(&[], &[options]).expect("one").remove(0);
        let wants = |kind, secret, account| receiver.filter.wants(&event(kind, secret, account));
        assert!(wants("RotationFailed", "prod/db", "111122223333"));
        assert!(wants("SecretDrifted", "prod/", "111122223333"));
        assert!(!wants("SecretExpired", "prod/db", "111122223333"));
        assert!(!wants("RotationFailed", "test/db", "111122223333"));
        assert!(!wants("RotationFailed", "prod/db", "444455556666"));
    }

    #[test]
    fn what_a_configuration_may_not_say_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("secret");
        std::fs::write(&file, format!("whsec_{}", "A".repeat(32))).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let sound = WebhookOptions {
            name: "ops".into(),
            url: "https://example.com/in".into(),
            ca: None,
            secret_file: Some(file.clone()),
            deadline_ms: 10_000,
            events: all(),
            secrets: all(),
            accounts: Vec::new(),
        };
        let told = |options: &[WebhookOptions]| match receivers(options, &[]) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let with = |change: &dyn Fn(&mut WebhookOptions)| {
            let mut options = sound.clone();
            change(&mut options);
            told(&[options])
        };
        assert_eq!(told(std::slice::from_ref(&sound)), "");
        assert!(told(&[sound.clone(), sound.clone()]).contains("two have this name"));
        assert!(with(&|o| o.name = "A b".into()).contains("a name has"));
        for url in ["http://example.com", "ftp://127.0.0.1", "https://a:b@example.com", "/x", ""] {
            assert!(with(&|o| o.url = url.into()).contains("on loopback"), "{url}");
        }
        assert!(with(&|o| o.deadline_ms = 99).contains("100 to 60000"));
        assert!(with(&|o| o.secret_file = None).contains("STRONGROOM_WEBHOOK_OPS"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(told(std::slice::from_ref(&sound)).contains("read by others"));
    }
}
