//! Sealing and opening the versions of secrets: which KMS key, which rights to it, the data key.
//!
//! A version's data key is an envelope under the secret's KMS key with the encryption context
//! {SecretARN, SecretVersionId}; its value is sealed under the data key.

use super::edit::outdated;
use super::facts::Through;
use crate::clock::random_key;
use crate::custody::tokens::Tokens;
use crate::envelope::cache::Hit;
use crate::envelope::context::Context;
use crate::envelope::value::{self, Kind};
use crate::envelope::{self, Envelope};
use crate::name::{Arn, DEFAULT_SECRETS_ALIAS};
use crate::ops::call::{Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::keys::stores::state;
use crate::ops::keys::{self, KeyTarget};
use crate::ops::shape::{Checks, SecretBlob, SecretText};
use crate::secret::{Key, Secret};
use crate::store::keys::{Key as KmsKey, KeyManager, KeyState};
use crate::store::records::Rows;
use crate::store::secrets::Version;
use std::sync::Arc;

/// The largest value of a secret, in bytes.
pub(super) const MAX_VALUE: usize = 65_536;

/// A value that a request brings.
pub(super) struct Given {
    kind: Kind,
    value: Secret,
}

impl Given {
    /// The value of a request, if it brings one.
    ///
    /// # Errors
    /// [`Condition::InvalidParameter`] where it brings two.
    pub(super) fn of(text: Option<SecretText>, binary: Option<SecretBlob>) -> Result<Option<Self>> {
        match (text, binary) {
            (Some(_), Some(_)) => Err(Error::new(
                Condition::InvalidParameter,
                "You can\u{2019}t specify both a binary secret value and a string secret value in \
                 the same secret.",
            )),
            (Some(SecretText(value)), None) => Ok(Some(Self { kind: Kind::Text, value })),
            (None, Some(SecretBlob(value))) => Ok(Some(Self { kind: Kind::Binary, value })),
            (None, None) => Ok(None),
        }
    }
}

/// Checks the two members that bring a value; both are sensitive, so no finding shows them.
pub(super) fn check_value(
    checks: &mut Checks,
    text: Option<&SecretText>,
    binary: Option<&SecretBlob>,
) {
    checks.blob("secretString", text.map(|t| t.0.len()), 1, MAX_VALUE);
    checks.blob("secretBinary", binary.map(|b| b.0.len()), 1, MAX_VALUE);
}

/// Checks the form of a `ClientRequestToken`.
pub(super) fn check_token(checks: &mut Checks, token: Option<&str>) {
    checks.length("clientRequestToken", token, 32, 64);
}

/// The `ClientRequestToken`, which SDKs fill in and which must be there.
pub(super) fn token(member: Option<&String>) -> Result<&String> {
    member.ok_or_else(|| {
        Error::new(
            Condition::InvalidRequest,
            "You must provide a ClientRequestToken value. We recommend a UUID-type value.",
        )
    })
}

/// Refuses a secret whose value a third party would manage: nobody here rotates it.
pub(super) fn refuse_managed(kind: Option<&str>) -> Result<()> {
    match kind {
        Some(kind) if !kind.is_empty() => Err(Error::new(
            Condition::InvalidParameter,
            "Managed external secrets are not available on this appliance.",
        )),
        _ => Ok(()),
    }
}

/// What a request's `KmsKeyId` means for a secret: the default key is the absence of a name.
pub(super) fn key_name(named: &str) -> Option<&str> {
    let resource = Arn::parse(named).map_or(named, |arn| arn.resource);
    (!named.is_empty() && resource != DEFAULT_SECRETS_ALIAS).then_some(named)
}

/// The ARN of the KMS key that a request names for a secret of this account
/// (`secretsmanager:KmsKeyArn`); none where it names none, or what can be none.
///
/// # Errors
/// Those of the database.
pub(super) fn named_key_arn(
    call: &Call,
    account: &str,
    named: Option<&str>,
) -> Result<Option<String>> {
    let Some(named) = named.filter(|named| !named.is_empty()) else { return Ok(None) };
    match keys::locate_for(call, account, named) {
        Ok(target) => Ok(Some(target.arn().to_owned())),
        Err(error) if is_no_key(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_no_key(error: &Error) -> bool {
    matches!(error.condition, Condition::NotFound | Condition::InvalidArn)
}

/// The KMS key that a request names for a secret of this account.
///
/// # Errors
/// [`Condition::InvalidParameter`] where there is no such key.
pub(super) fn requested_key(
    call: &Call,
    account: &str,
    named: Option<&str>,
) -> Result<Arc<KmsKey>> {
    let Some(named) = named else { return default_key(call, account) };
    // A name without an account is the secret's account's, also where another account's caller
    // writes: else it would be sealed under that one's key.
    let found = keys::locate_for(call, account, named).and_then(|target| target.key().cloned());
    found.map_err(|error| match is_no_key(&error) {
        true => Error::new(
            Condition::InvalidParameter,
            format!("The operation failed because of an invalid KMS key: {}", error.message),
        ),
        false => error,
    })
}

/// The KMS key that seals new versions of a secret.
///
/// # Errors
/// [`Condition::EncryptionFailure`] where the key is gone.
pub(super) fn sealing_key(call: &Call, account: &str, named: Option<&str>) -> Result<Arc<KmsKey>> {
    requested_key(call, account, named).map_err(|error| match error.condition {
        Condition::InvalidParameter => unsealable(error.message),
        _ => error,
    })
}

fn default_key(call: &Call, account: &str) -> Result<Arc<KmsKey>> {
    let alias = call.records.alias(account, DEFAULT_SECRETS_ALIAS)?;
    let key = match alias {
        Some(alias) => call.records.key(&alias.target)?,
        None => None,
    };
    key.ok_or_else(|| unsealable("the account has no default key"))
}

/// Asks for the rights to a KMS key that go with a use of a secret. Everybody who may use a secret
/// may use the service's own key for it, but only from the account that owns both.
pub(super) fn allow_key(
    call: &Call,
    key: &Arc<KmsKey>,
    (arn, version): (&str, &str),
    actions: &[&str],
) -> Result<()> {
    if key.manager == KeyManager::Aws {
        if key.account == call.caller.account {
            return Ok(());
        }
        return Err(Error::new(
            Condition::InvalidRequest,
            "You can't access a secret from a different AWS account if you encrypt the secret with \
             the default KMS service key.",
        ));
    }
    let through = Through { region: &call.region, arn, version };
    for action in actions {
        let target = KeyTarget::found(&call.region, key.clone());
        let asked = call.allow_with(action, target, &through);
        asked.map_err(|error| match error.condition {
            Condition::AccessDenied => {
                Error::new(Condition::AccessDenied, "Access to KMS is not allowed")
                    .logged(error.message)
            }
            _ => error,
        })?;
    }
    Ok(())
}

/// Seals a value as a version, under a data key of its own.
pub(super) async fn seal(
    call: &Call,
    key: &KmsKey,
    arn: &str,
    id: &str,
    given: &Given,
) -> Result<Version> {
    let data_key = random_key(&*call.world.random)?;
    Ok(Version {
        id: id.to_owned(),
        created: call.now,
        accessed: None,
        data_key: seal_data_key(call, key, arn, id, &data_key).await?,
        value: value::seal(&data_key, arn, id, given.kind, &given.value)?,
    })
}

/// Seals a version's data key under a KMS key.
pub(super) async fn seal_data_key(
    call: &Call,
    key: &KmsKey,
    arn: &str,
    id: &str,
    data_key: &Key,
) -> Result<Vec<u8>> {
    if state(&call.records, key)? != KeyState::Enabled {
        return Err(unsealable("the KMS key is disabled, unavailable or pending deletion"));
    }
    Ok(call.envelopes.seal(key, &version_context(arn, id), data_key.expose()).await?)
}

/// Has a change start over that was sealed under a KMS key if other tokens hold that one now: the pass
/// that seals stored data keys to the holders of now may be through (`reseal.rs`). To be called in the
/// transaction that writes what was sealed.
///
/// # Errors
/// [`Condition::Conflict`] then; those of the database.
pub(super) fn for_its_holders(rows: &mut Rows<'_>, sealed_under: &KmsKey) -> Result<()> {
    // Others have one holder for good.
    let Some(backing) = sealed_under.current().filter(|backing| backing.scheme.has_holders())
    else {
        return Ok(());
    };
    let now = rows.key(&sealed_under.id)?;
    let mut now = now.iter().flat_map(|key| &key.backing);
    match now.find(|now| now.id == backing.id) {
        Some(now) if now.holders == backing.holders => Ok(()),
        _ => Err(outdated()),
    }
}

/// Opens a version's value: the data key from the cache or with the token, then the value.
pub(super) async fn open(call: &Call, arn: &str, version: &Version) -> Result<(Kind, Secret)> {
    let data_key = data_key(call, arn, version).await?;
    value::open(data_key.key(), arn, &version.id, &version.value).map_err(unopenable)
}

/// Whether a version holds this value; compares in constant time.
pub(super) async fn holds(
    call: &Call,
    arn: &str,
    version: &Version,
    given: &Given,
) -> Result<bool> {
    let (kind, value) = open(call, arn, version).await?;
    Ok(value == given.value && kind == given.kind)
}

/// Opens a version's data key. The KMS key's state and the caller's right to it are asked each
/// time, whatever the cache knows.
pub(super) async fn data_key(call: &Call, arn: &str, version: &Version) -> Result<Hit> {
    let envelope = Envelope::parse(&version.data_key).map_err(unopenable)?;
    let key = call.records.key(&envelope.key_id)?.ok_or_else(|| unopenable("no such KMS key"))?;
    allow_key(call, &key, (arn, &version.id), &["Decrypt"])?;
    if state(&call.records, &key)? != KeyState::Enabled {
        return Err(unopenable("the KMS key is disabled, unavailable or pending deletion"));
    }
    let opened = async {
        let context = version_context(arn, &version.id);
        let opened = call.envelopes.open(&key, &context, envelope).await.map_err(|e| match e {
            envelope::Error::Invalid => unopenable(e),
            other => other.into(),
        })?;
        Key::from_secret(&opened).ok_or_else(|| unopenable("not 32 bytes"))
    };
    let proposed = || proposed_seconds(&call.tokens, &key);
    call.data_keys.find_or_open(&key.id, &version.data_key, proposed, opened).await
}

/// How long the profiles of the tokens that hold a KMS key propose to keep its data keys: the shortest
/// of them, in seconds.
fn proposed_seconds(tokens: &Tokens, key: &KmsKey) -> Option<u32> {
    let lanes = key.holders().filter_map(|(_, holder)| tokens.of(&holder.token).ok());
    lanes.filter_map(|lane| lane.described().cache_seconds).min()
}

/// The encryption context of a version's data key, as AWS sets it.
pub(super) fn version_context(arn: &str, version_id: &str) -> Context {
    Context::from([
        ("SecretARN".to_owned(), arn.to_owned()),
        ("SecretVersionId".to_owned(), version_id.to_owned()),
    ])
}

fn unopenable(why: impl ToString) -> Error {
    Error::new(
        Condition::DecryptionFailure,
        "Secrets Manager can't decrypt the protected secret text using the provided KMS key.",
    )
    .logged(why.to_string())
}

fn unsealable(why: impl ToString) -> Error {
    Error::new(
        Condition::EncryptionFailure,
        "Secrets Manager can't encrypt the protected secret text using the provided KMS key. Check \
         that the KMS key is available, enabled, and not in an invalid state.",
    )
    .logged(why.to_string())
}

/// The answer to a `ClientRequestToken` that stands for another value already.
pub(super) fn token_in_use(token: &str, arn: &str) -> Error {
    let text = format!(
        "You can't use ClientRequestToken {token} because that value is already in use for a \
         version of secret {arn}."
    );
    Error::new(Condition::AlreadyExists, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::records::{Records, RowMac};
    use crate::store::sqlite::{Options, Sqlite};

    #[test]
    fn the_default_key_is_no_name_however_it_is_written() {
        assert_eq!(key_name(""), None);
        assert_eq!(key_name("alias/aws/secretsmanager"), None);
        assert_eq!(key_name("arn:aws:kms:eu-west-1:111111111111:alias/aws/secretsmanager"), None);
        assert_eq!(key_name("alias/mine"), Some("alias/mine"));
    }

    #[test]
    fn a_request_brings_text_or_bytes_but_not_both() {
        let text = || Some(SecretText(Secret::copy_of(b"a")));
        let bytes = || Some(SecretBlob(Secret::copy_of(b"a")));
        assert!(Given::of(None, None).is_ok_and(|g| g.is_none()));
        assert!(Given::of(text(), None).is_ok_and(|g| g.is_some_and(|g| g.kind == Kind::Text)));
        assert!(Given::of(None, bytes()).is_ok_and(|g| g.is_some_and(|g| g.kind == Kind::Binary)));
        let error = Given::of(text(), bytes()).err().expect("two values");
        assert_eq!(error.condition, Condition::InvalidParameter);
    }

    /// A KMS key whose generations are held so, by the numbers of their tokens.
    fn kms_key(scheme: &str, generations: &[&[u8]]) -> KmsKey {
        let holder = |generation: usize, token: &u8| {
            let (key, check) = (format!("{generation:030x}{token:02x}"), [*token; 8]);
            serde_json::json!({ "key": key, "token": token.to_string(), "check": check })
        };
        let backing = |(n, tokens): (usize, &&[u8])| {
            let holders: Vec<_> = tokens.iter().map(|token| holder(n, token)).collect();
            serde_json::json!({
                "id": format!("{n:032x}"), "scheme": scheme, "holders": holders, "created": n,
                "material_id": n.to_string(), "rotation": null,
            })
        };
        serde_json::from_value(serde_json::json!({
            "id": "k", "account": "111122223333", "description": "", "state": "Enabled",
            "manager": "CUSTOMER", "created": 0, "due": null, "window_days": null, "policy": "",
            "tags": [], "rotation": null, "revision": 1,
            "backing": generations.iter().enumerate().map(backing).collect::<Vec<_>>(),
        }))
        .expect("a KMS key")
    }

    /// Whether what was sealed under `sealed_under` is written when the KMS key is `now`.
    async fn is_written(sealed_under: KmsKey, now: Option<KmsKey>) -> bool {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Sqlite::open(Options::new(dir.path().join("data"))).expect("a database");
        let records = Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10);
        let written = records.write(move |rows| {
            now.as_ref().map_or(Ok(()), |key| rows.put_key(key))?;
            for_its_holders(rows, &sealed_under)
        });
        match written.await {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.condition, Condition::Conflict);
                false
            }
        }
    }

    /// Such a data key was once written behind the back of the pass that seals stored ones anew.
    #[tokio::test]
    async fn what_was_sealed_for_holders_of_before_is_not_written() {
        let ecdh = |generations: &[&[u8]]| kms_key("ecdh", generations);
        assert!(is_written(ecdh(&[&[1]]), Some(ecdh(&[&[1]]))).await);
        assert!(!is_written(ecdh(&[&[1]]), Some(ecdh(&[&[1, 2]]))).await, "one was added");
        assert!(!is_written(ecdh(&[&[1, 2]]), Some(ecdh(&[&[2]]))).await, "one was removed");
        assert!(!is_written(ecdh(&[&[1]]), None).await, "the key is gone");
        assert!(is_written(ecdh(&[&[1]]), Some(ecdh(&[&[1], &[1]]))).await, "it was rotated");
        assert!(!is_written(ecdh(&[&[1]]), Some(ecdh(&[&[1, 2], &[1, 2]]))).await, "both");
        let alone = kms_key("hmac-kdf", &[&[1]]);
        assert!(is_written(alone, None).await, "a key of one holder for good is not asked for");
    }
}
