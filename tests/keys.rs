//! The life of backing keys, with a SoftHSM token, a database and a clock that can be put forward.
//!
//! The PKCS#11 module reads its configuration when it is loaded and keeps one state per process, so
//! each scenario runs in a process of its own: a test starts this same binary again.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod alone;

use alone::{ACCOUNT, Ahead, alone};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strongroom::clock::{Clock, DAY};
use strongroom::config::Config;
use strongroom::custody;
use strongroom::name::{BackingKeyId, DEFAULT_SECRETS_ALIAS, Service};
use strongroom::ops::call::{Call, Origin, Services};
use strongroom::ops::error::{Condition, Error};
use strongroom::ops::keys::create::create_service_key;
use strongroom::ops::keys::material::{
    Place, adopt, import_backing_key, make_backing_key, reconcile,
};
use strongroom::ops::keys::purge::purge_due;
use strongroom::ops::keys::rotate::rotate_due;
use strongroom::ops::keys::seed;
use strongroom::policy::Caller;
use strongroom::secret;
use strongroom::store::keys::{Backing, Intent, Key, RotationType};

const HOUR: i64 = DAY / 24;
const SEEDED: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

/// An appliance inside this process.
struct World {
    services: Arc<Services>,
    clock: Arc<Ahead>,
    log: PathBuf,
}

impl World {
    /// Runs a scenario on a fresh appliance.
    fn with<F: Future<Output = ()>>(scenario: impl FnOnce(Self) -> F) {
        alone::founded(
            |configuration| async move { scenario(Self::open(&configuration).await).await },
        );
    }

    async fn open(configuration: &Path) -> Self {
        let log = Config::read(configuration).expect("sound").audit.path;
        let (services, clock) = alone::open(configuration).await;
        Self { services, clock, log }
    }

    fn put_forward(&self, by: i64) {
        self.clock.step(by);
    }

    /// Calls a KMS operation as the account's root.
    async fn kms(&self, operation: &str, body: &str) -> Result<String, Error> {
        let origin = Origin {
            request_id: strongroom::name::Uuid::NIL,
            source_ip: std::net::Ipv4Addr::LOCALHOST.into(),
            user_agent: String::new(),
            tls: None,
        };
        let row = strongroom::ops::find(Service::Kms, operation).expect("in the table");
        let caller = Caller::system(ACCOUNT);
        let now = self.clock.now();
        let call = Call::new(self.services.clone(), row, caller.into(), now, origin);
        let body = row.run(&call, body.as_bytes()).await?;
        Ok(String::from_utf8_lossy(body.into_secret().expose()).into_owned())
    }

    /// Makes a KMS key with an alias.
    async fn key(&self, alias: &str) -> Arc<Key> {
        self.kms("CreateKey", "{}").await.expect("made");
        let keys = self.services.records.read(|rows| rows.keys(ACCOUNT, "", 100));
        let newest = keys.expect("listed").into_iter().max_by_key(|key| key.created.0);
        let id = newest.expect("one").id;
        let body = format!(r#"{{"AliasName": "{alias}", "TargetKeyId": "{id}"}}"#);
        self.kms("CreateAlias", &body).await.expect("named");
        self.services.records.key(&id).expect("read").expect("there")
    }

    fn reread(&self, key: &Key) -> Arc<Key> {
        self.services.records.key(&key.id).expect("read").expect("there")
    }

    /// Rotates what is due; answers how many keys that were.
    async fn rotate(&self) -> usize {
        rotate_due(&self.services).await.expect("looked")
    }

    /// Plants a key with the id [`SEEDED`] of material that is all sevens; answers whether it was
    /// made.
    async fn plant(&self) -> Result<bool, Error> {
        let hex = "07".repeat(32);
        let text = format!(r#"{{"KeyId": "{SEEDED}", "KeyMaterial": "{hex}"}}"#);
        let seed = serde_json::from_str(&text).expect("a seed");
        Ok(seed::plant(&self.services, ACCOUNT, seed).await?.made)
    }

    fn seeded(&self) -> Arc<Key> {
        self.services.records.key(SEEDED).expect("read").expect("there")
    }

    /// A ciphertext of `hunter2`, in base64.
    async fn sealed(&self, key: &Key) -> String {
        let body = format!(r#"{{"KeyId": "{}", "Plaintext": "aHVudGVyMg=="}}"#, key.id);
        let answer = self.kms("Encrypt", &body).await.expect("seals");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let ciphertext = answer.get("CiphertextBlob").and_then(|blob| blob.as_str());
        ciphertext.expect("a ciphertext").to_owned()
    }

    fn intents(&self) -> Vec<Intent> {
        self.services.records.read(|rows| rows.intents()).expect("read")
    }

    /// Key material that no KMS key has yet.
    async fn material(&self) -> Backing {
        let place = Place::standard(&self.services.tokens).expect("able");
        make_backing_key(&self.services, &place, None).await.expect("made")
    }

    async fn in_token(&self, id: BackingKeyId) -> bool {
        match self.services.tokens.main().expect("there").inspect(id.into()).await {
            Ok(_) => true,
            Err(error) => {
                assert!(matches!(error, custody::Error::KeyNotFound(_)), "{error}");
                false
            }
        }
    }
}

#[test]
fn a_key_goes_with_its_aliases_and_material_when_its_window_ends() {
    alone("window_ends");
}

#[test]
fn material_that_no_key_names_goes_when_it_counts_as_abandoned() {
    alone("abandoned");
}

#[test]
fn material_that_was_given_up_can_not_be_adopted_any_more() {
    alone("given_up");
}

#[test]
fn the_service_key_is_made_once() {
    alone("service_key");
}

#[test]
fn a_key_is_rotated_when_its_date_comes_and_what_it_sealed_still_opens() {
    alone("rotation_comes");
}

#[test]
fn a_disabled_key_is_rotated_once_it_is_enabled_again() {
    alone("rotation_waits");
}

#[test]
fn of_two_rotations_at_once_one_leaves_nothing_behind() {
    alone("rotation_twice");
}

#[test]
fn a_service_s_key_rotates_by_itself() {
    alone("service_key_rotates");
}

#[test]
fn a_seeded_key_may_be_deleted_and_planted_again_and_opens_what_it_sealed() {
    alone("seeded_again");
}

#[test]
fn what_a_start_that_broke_off_has_imported_is_no_hindrance() {
    alone("seed_broke_off");
}

#[test]
fn an_imported_key_that_no_row_names_is_neither_taken_nor_destroyed() {
    alone("seed_unnamed");
}

/// What the tests above run, each in a process of its own.
mod scenarios {
    use super::*;

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn window_ends() {
        World::with(|world| async move {
            let (doomed, spared) =
                (world.key("alias/doomed").await, world.key("alias/spared").await);
            let material = doomed.current().expect("one").id;
            for key in [&doomed, &spared] {
                let body = format!(r#"{{"KeyId": "{}", "PendingWindowInDays": 7}}"#, key.id);
                world.kms("ScheduleKeyDeletion", &body).await.expect("scheduled");
            }
            let body = format!(r#"{{"KeyId": "{}"}}"#, spared.id);
            world.kms("CancelKeyDeletion", &body).await.expect("cancelled");

            world.put_forward(7 * DAY - HOUR);
            assert_eq!(purge_due(&world.services).await.expect("looked"), 0);
            assert!(world.in_token(material).await);

            world.put_forward(2 * HOUR);
            assert_eq!(purge_due(&world.services).await.expect("purged"), 1);
            assert!(world.services.records.key(&doomed.id).expect("read").is_none());
            let alias = world.services.records.alias(ACCOUNT, "alias/doomed");
            assert!(alias.expect("read").is_none());
            assert!(!world.in_token(material).await);
            assert!(world.in_token(spared.current().expect("one").id).await);
            assert!(world.intents().is_empty());
            assert_eq!(purge_due(&world.services).await.expect("looked"), 0);

            // The mover of records to the log looks every 50 ms.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let log = std::fs::read_to_string(&world.log).expect("a log");
            let line = log.lines().find(|line| line.contains(r#""eventName":"DeleteKey""#));
            let line = line.expect("the deletion is in the audit log");
            assert!(line.contains(&doomed.id) && line.contains(r#""eventType":"AwsServiceEvent""#));
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn abandoned() {
        World::with(|world| async move {
            let kept = world.key("alias/kept").await.current().expect("one").id;
            let made = world.material().await;
            assert_eq!(reconcile(&world.services).await.expect("reconciled"), 0);
            assert!(world.in_token(made.id).await, "it may still be adopted");

            world.put_forward(2 * HOUR);
            assert_eq!(reconcile(&world.services).await.expect("reconciled"), 1);
            assert!(!world.in_token(made.id).await);
            assert!(world.in_token(kept).await);
            assert!(world.intents().is_empty());
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn given_up() {
        World::with(|world| async move {
            let made = world.material().await;
            world.put_forward(2 * HOUR);
            reconcile(&world.services).await.expect("reconciled");
            let late = world.services.records.write(move |rows| adopt(rows, &made.holders)).await;
            assert_eq!(late.expect_err("too late").condition, Condition::DependencyTimeout);
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn service_key() {
        World::with(|world| async move {
            let alias = world.services.records.alias(ACCOUNT, DEFAULT_SECRETS_ALIAS);
            let made = alias.expect("read").expect("made when the appliance was").target.clone();
            for _ in 0..2 {
                let again = create_service_key(&world.services, ACCOUNT).await.expect("there");
                assert_eq!(again, made);
            }
            let other = "444455556666";
            let (a, b) = tokio::join!(
                create_service_key(&world.services, other),
                create_service_key(&world.services, other)
            );
            assert_eq!(a.expect("made"), b.expect("found"), "two at once make one");
            assert!(world.intents().is_empty(), "and leave nothing behind");
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn rotation_comes() {
        World::with(|world| async move {
            let first = world.key("alias/rotated").await;
            let body = format!(r#"{{"KeyId": "{}", "RotationPeriodInDays": 90}}"#, first.id);
            world.kms("EnableKeyRotation", &body).await.expect("on");
            let due = world.reread(&first).rotates().expect("a date");
            let old = world.sealed(&first).await;

            world.put_forward(90 * DAY - HOUR);
            assert_eq!(world.rotate().await, 0);
            world.put_forward(2 * HOUR);
            assert_eq!(world.rotate().await, 1);
            assert_eq!(world.rotate().await, 0);

            let key = world.reread(&first);
            let [before, after] = key.backing.as_slice() else { panic!("two backing keys") };
            assert_eq!(before.id, first.current().expect("one").id);
            assert_eq!(after.rotation, Some(RotationType::Automatic));
            assert!(world.in_token(before.id).await && world.in_token(after.id).await);
            assert_eq!(key.rotates(), Some(due.plus_days(90)), "a period after the date due");
            assert!(world.intents().is_empty());

            let new = world.sealed(&key).await;
            for (ciphertext, material) in [(old, before), (new, after)] {
                let body = format!(r#"{{"CiphertextBlob": "{ciphertext}"}}"#);
                let opened = world.kms("Decrypt", &body).await.expect("opens");
                assert!(opened.contains(r#""Plaintext":"aHVudGVyMg==""#));
                assert!(opened.contains(&material.material_id), "{opened}");
            }

            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let log = std::fs::read_to_string(&world.log).expect("a log");
            let line = log.lines().find(|line| line.contains(r#""eventName":"RotateKey""#));
            let line = line.expect("the rotation is in the audit log");
            assert!(line.contains(&key.id) && line.contains(r#""eventType":"AwsServiceEvent""#));
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn rotation_waits() {
        World::with(|world| async move {
            let key = world.key("alias/rotated").await;
            let body = format!(r#"{{"KeyId": "{}"}}"#, key.id);
            world.kms("EnableKeyRotation", &body).await.expect("on");
            world.kms("DisableKey", &body).await.expect("disabled");
            world.put_forward(800 * DAY);
            world.rotate().await;
            assert_eq!(world.reread(&key).backing.len(), 1, "not while it is disabled");

            world.kms("EnableKey", &body).await.expect("enabled");
            assert_eq!(world.rotate().await, 1);
            let key = world.reread(&key);
            assert_eq!(key.backing.len(), 2);
            let next = key.rotates().expect("a date");
            let expected = world.clock.now().plus_days(365);
            assert!((expected.0 - next.0).abs() < HOUR, "a period from now, not from long ago");
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn rotation_twice() {
        World::with(|world| async move {
            let key = world.key("alias/rotated").await;
            let body = format!(r#"{{"KeyId": "{}"}}"#, key.id);
            let (a, b) = tokio::join!(
                world.kms("RotateKeyOnDemand", &body),
                world.kms("RotateKeyOnDemand", &body)
            );
            let refused: Vec<_> = [a, b].into_iter().filter_map(Result::err).collect();
            assert!(refused.iter().all(|error| error.condition == Condition::Conflict));
            let rotated = world.reread(&key);
            assert_eq!(rotated.backing.len(), 3 - refused.len());
            assert!(world.intents().is_empty());

            world.kms("EnableKeyRotation", &body).await.expect("on");
            let backing = rotated.backing.len();
            world.put_forward(366 * DAY);
            tokio::join!(world.rotate(), world.rotate());
            assert_eq!(world.reread(&key).backing.len(), backing + 1);
            assert!(world.intents().is_empty());
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn seeded_again() {
        World::with(|world| async move {
            assert!(world.plant().await.expect("planted"));
            assert!(!world.plant().await.expect("looked"), "the second time it is there");
            let key = world.seeded();
            let backing = key.current().expect("one").clone();
            assert!(backing.imported);
            let lane = world.services.tokens.main().expect("there");
            let evidence = lane.inspect(backing.id.into()).await.expect("there");
            assert!(evidence.sensitive && !evidence.extractable && !evidence.local);
            let old = world.sealed(&key).await;

            let body = format!(r#"{{"KeyId": "{SEEDED}", "PendingWindowInDays": 7}}"#);
            world.kms("ScheduleKeyDeletion", &body).await.expect("scheduled");
            assert!(!world.plant().await.expect("looked"), "it waits, and is left alone");
            world.put_forward(8 * DAY);
            assert_eq!(purge_due(&world.services).await.expect("purged"), 1);
            assert!(!world.in_token(backing.id).await);

            assert!(world.plant().await.expect("planted again"));
            assert_eq!(world.seeded().current().expect("one").id, backing.id);
            let body = format!(r#"{{"CiphertextBlob": "{old}"}}"#);
            let opened = world.kms("Decrypt", &body).await.expect("opens");
            assert!(opened.contains(r#""Plaintext":"aHVudGVyMg==""#));
            assert!(world.intents().is_empty());
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn seed_broke_off() {
        World::with(|world| async move {
            let material = secret::Key::take(&mut [7; 32]);
            let imported = import_backing_key(&world.services, SEEDED, material).await;
            let imported = imported.expect("imported").id;
            assert_eq!(world.intents().len(), 1, "nobody has adopted it");

            assert!(world.plant().await.expect("planted"));
            assert_eq!(world.seeded().current().expect("one").id, imported);
            assert!(world.in_token(imported).await);
            assert!(world.intents().is_empty());
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn seed_unnamed() {
        World::with(|world| async move {
            world.plant().await.expect("planted");
            let key = world.seeded();
            let backing = key.current().expect("one").id;
            let row = Key::clone(&key);
            let lost = world.services.records.write(move |rows| rows.delete_key(&row)).await;
            lost.expect("the row is gone, as after a restore of an old backup");

            let refused = world.plant().await.expect_err("refused");
            assert_eq!(refused.condition, Condition::AlreadyExists);
            assert!(world.in_token(backing).await);
            assert!(world.intents().is_empty());
        });
    }

    #[test]
    #[ignore = "run by a test in a process of its own"]
    fn service_key_rotates() {
        World::with(|world| async move {
            let alias = world.services.records.alias(ACCOUNT, DEFAULT_SECRETS_ALIAS);
            let id = alias.expect("read").expect("there").target.clone();
            world.put_forward(366 * DAY);
            assert_eq!(world.rotate().await, 1);
            let key = world.services.records.key(&id).expect("read").expect("there");
            assert_eq!(key.backing.len(), 2);
        });
    }
}
