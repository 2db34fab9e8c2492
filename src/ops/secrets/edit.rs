//! Changes to a secret that exists: PutSecretValue and UpdateSecret are the same change with more
//! or fewer parts.
//!
//! What needs the token is prepared first; the change then checks that nothing which the
//! preparation rests on has changed meanwhile, or starts over.

use super::rotate::state::note_value;
use super::seal::{self, Given};
use super::{SecretTarget, labels, marked_for_deletion, not_found};
use crate::clock::Time;
use crate::envelope::Envelope;
use crate::ops::call::{Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::store::keys::Key as KmsKey;
use crate::store::records::Rows;
use crate::store::secrets::{Secret, Version};
use std::sync::Arc;

/// How often a change starts over before it is given up as throttled.
pub(super) const ATTEMPTS: usize = 8;

/// A change.
#[derive(Default)]
pub(super) struct Edit {
    /// A new description.
    pub description: Option<String>,
    /// A new KMS key: its name, or none for the default key.
    pub kms_key_id: Option<Option<String>>,
    /// A new version.
    pub value: Option<NewValue>,
}

/// A version that is to be added.
pub(super) struct NewValue {
    /// The version id, which is the `ClientRequestToken`.
    pub token: String,
    /// The value.
    pub given: Given,
    /// The labels that are asked for.
    pub labels: Option<Vec<String>>,
}

/// What is ready for the store.
struct Prepared {
    based_on: Arc<Secret>,
    description: Option<String>,
    kms_key_id: Option<Option<String>>,
    version: Option<(Version, Option<Vec<String>>)>,
    resealed: Vec<(String, Vec<u8>)>,
    /// The KMS key of all that was sealed.
    sealed_under: Option<Arc<KmsKey>>,
    now: Time,
}

/// Starts a change over: what it was prepared on is no longer so.
pub(super) fn outdated() -> Error {
    Error::new(Condition::Conflict, "the secret has changed meanwhile")
}

/// Whether a change that failed is to start over; the last of a bounded number of attempts is not.
pub(super) fn starts_over<T>(outcome: &Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.condition == Condition::Conflict)
}

/// The answer where every attempt had to start over.
pub(super) fn never_settled() -> Error {
    Error::new(Condition::Throttled, "Rate exceeded").logged("a change that never settled")
}

/// Makes a change; answers the secret as it is then.
pub(super) async fn apply(call: &Call, target: &SecretTarget, edit: &Edit) -> Result<Arc<Secret>> {
    let found = target.live()?;
    for _ in 0..ATTEMPTS {
        let outcome = attempt(call, target.arn(), found, edit).await;
        if !starts_over(&outcome) {
            return outcome;
        }
    }
    Err(never_settled())
}

async fn attempt(call: &Call, arn: &str, found: &Secret, edit: &Edit) -> Result<Arc<Secret>> {
    let now = call.records.secret(&found.account, &found.name)?;
    let secret = now.filter(|s| s.uid == found.uid).ok_or_else(not_found)?;
    if secret.deleted.is_some() {
        return Err(marked_for_deletion());
    }
    let Some(prepared) = prepare(call, arn, &secret, edit).await? else {
        return Ok(secret);
    };
    call.commit(move |rows| write(rows, &prepared)).await.map(Arc::new)
}

/// Makes ready what needs the token; none if the change is made already.
async fn prepare(
    call: &Call,
    arn: &str,
    secret: &Arc<Secret>,
    edit: &Edit,
) -> Result<Option<Prepared>> {
    let mut version = None;
    let mut sealed_under = None;
    if let Some(new) = &edit.value
        && !is_there(call, arn, secret, new).await?
    {
        let key = sealed_under.insert(edit_key(call, secret, edit)?);
        seal::allow_key(call, key, (arn, &new.token), &["GenerateDataKey"])?;
        let sealed = seal::seal(call, key, arn, &new.token, &new.given).await?;
        version = Some((sealed, new.labels.clone()));
    }
    let mut resealed = Vec::new();
    if edit.kms_key_id.is_some() {
        let key = match sealed_under.take() {
            Some(key) => key,
            None => edit_key(call, secret, edit)?,
        };
        resealed = reseal(call, arn, secret, &key).await?;
        sealed_under = Some(key);
    }
    if version.is_none() && edit.description.is_none() && edit.kms_key_id.is_none() {
        return Ok(None);
    }
    Ok(Some(Prepared {
        based_on: secret.clone(),
        description: edit.description.clone(),
        kms_key_id: edit.kms_key_id.clone(),
        version,
        resealed,
        sealed_under,
        now: call.now,
    }))
}

/// The KMS key that seals new versions once the change is made.
fn edit_key(call: &Call, secret: &Secret, edit: &Edit) -> Result<Arc<KmsKey>> {
    match &edit.kms_key_id {
        Some(named) => seal::requested_key(call, &secret.account, named.as_deref()),
        None => seal::sealing_key(call, &secret.account, secret.kms_key_id.as_deref()),
    }
}

/// Whether the version is there already with this very value.
async fn is_there(call: &Call, arn: &str, secret: &Secret, new: &NewValue) -> Result<bool> {
    let stored = call.records.read(|rows| rows.version(secret.uid, &new.token))?;
    let Some(stored) = stored else { return Ok(false) };
    if !seal::holds(call, arn, &stored, &new.given).await? {
        return Err(seal::token_in_use(&new.token, arn));
    }
    Ok(true)
}

/// Seals the data keys of the versions in use under a new KMS key, as AWS does it: of those that
/// carry AWSCURRENT, AWSPENDING or AWSPREVIOUS. Without the right to encrypt with the new key they
/// stay under the old one.
async fn reseal(
    call: &Call,
    arn: &str,
    secret: &Secret,
    key: &Arc<KmsKey>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let of = (arn, secret.version_with(labels::CURRENT).unwrap_or_default());
    seal::allow_key(call, key, of, &["GenerateDataKey", "Decrypt"])?;
    match seal::allow_key(call, key, of, &["Encrypt"]) {
        Err(error) if error.condition == Condition::AccessDenied => return Ok(Vec::new()),
        other => other?,
    }
    let mut resealed: Vec<(String, Vec<u8>)> = Vec::new();
    for label in [labels::CURRENT, labels::PENDING, labels::PREVIOUS] {
        let Some(id) = secret.version_with(label) else { continue };
        if resealed.iter().any(|(done, _)| done == id) {
            continue;
        }
        let version = call.records.read(|rows| rows.version(secret.uid, id))?;
        // A rotation's version has its label before it has a value.
        let Some(version) = version else { continue };
        if Envelope::parse(&version.data_key).is_ok_and(|e| e.key_id == key.id) {
            continue;
        }
        let data_key = seal::data_key(call, arn, &version).await?;
        let sealed = seal::seal_data_key(call, key, arn, id, data_key.key()).await?;
        resealed.push((id.to_owned(), sealed));
    }
    Ok(resealed)
}

/// Writes a change, if what it rests on still stands.
fn write(rows: &mut Rows<'_>, prepared: &Prepared) -> Result<Secret> {
    let based_on = &prepared.based_on;
    let now = rows.secret(&based_on.account, &based_on.name)?;
    let mut secret = now.filter(|s| still_stands(s, prepared)).ok_or_else(outdated)?;
    if let Some(key) = &prepared.sealed_under {
        seal::for_its_holders(rows, key)?;
    }
    if let Some((version, labels)) = &prepared.version {
        add_version(rows, &mut secret, version, labels.as_deref())?;
    }
    for (id, data_key) in &prepared.resealed {
        rows.reseal_version(secret.uid, id, data_key)?;
    }
    if let Some(named) = &prepared.kms_key_id {
        secret.kms_key_id.clone_from(named);
    }
    if prepared.description.is_some() {
        secret.description.clone_from(&prepared.description);
    }
    save(rows, &mut secret, prepared.now)?;
    Ok(secret)
}

fn still_stands(secret: &Secret, prepared: &Prepared) -> bool {
    let based_on = &prepared.based_on;
    secret.uid == based_on.uid
        && secret.deleted.is_none()
        && secret.kms_key_id == based_on.kms_key_id
        && (prepared.kms_key_id.is_none() || secret.stages == based_on.stages)
}

fn add_version(
    rows: &mut Rows<'_>,
    secret: &mut Secret,
    version: &Version,
    labels: Option<&[String]>,
) -> Result<()> {
    if rows.has_version(secret.uid, &version.id)? {
        return Err(outdated());
    }
    labels::put_new(&mut secret.stages, labels, &version.id)?;
    if secret.version_with(labels::CURRENT) == Some(version.id.as_str()) {
        note_value(rows, secret.uid, version.created)?;
    }
    rows.add_version(secret.uid, version)?;
    secret.versions = secret.versions.saturating_add(1);
    prune(rows, secret, version.created)
}

/// Takes away old versions without labels, where there may be some.
fn prune(rows: &mut Rows<'_>, secret: &mut Secret, now: Time) -> Result<()> {
    let kept = labels::UNLABELLED_KEPT + labels::labelled(&secret.stages);
    if usize::try_from(secret.versions).unwrap_or(usize::MAX) <= kept || now < secret.prune_after {
        return Ok(());
    }
    let pruning = labels::prune(secret, &rows.versions(secret.uid)?, now);
    for id in &pruning.gone {
        rows.delete_version(secret.uid, id)?;
        secret.versions = secret.versions.saturating_sub(1);
    }
    secret.prune_after = pruning.next;
    Ok(())
}

/// Writes a secret that has changed.
pub(super) fn save(rows: &mut Rows<'_>, secret: &mut Secret, now: Time) -> Result<()> {
    secret.changed = secret.changed.max(now);
    secret.revision = secret.revision.saturating_add(1);
    Ok(rows.put_secret(secret)?)
}
