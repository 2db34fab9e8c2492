//! Backing keys: made and destroyed so that a crash at any moment leaves neither a KMS key without
//! its material nor material that no KMS key names for long.
//!
//! *Make*: a durable intent, then the token, then the KMS key's row, whose transaction also takes
//! the intent away ([`adopt`]). *Destroy*: the row goes and the intent comes in one transaction,
//! then the token, then the intent goes. [`reconcile`] carries out what a crash left behind.

use crate::clock::{DAY, Time, random_bytes};
use crate::custody::tokens::Tokens;
use crate::custody::{self, Made, lane::Lane};
use crate::name::{BackingKeyId, KeyCheck, PublicKey, Scheme, Service};
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::event::Event;
use crate::secret::Key;
use crate::store::keys::{Backing, Intent, IntentKind, KeyHolder, RotationType};
use crate::store::records::Rows;
use aws_lc_rs::{digest, hmac};
use std::collections::HashSet;
use std::time::Duration;

/// How old an intent to make a key must be before the key counts as abandoned, milliseconds: well
/// beyond the longest deadline of a token's lane and any wait for the database.
const ABANDONED: i64 = DAY / 24;

/// What a material id is the digest of, besides region and backing key.
const MATERIAL_ID: &[u8] = b"strongroom key material id v1";

/// What the id of an imported backing key is the digest of, besides key id and key-check value.
const IMPORTED_ID: &[u8] = b"strongroom imported backing key v1";

/// Makes a key in the token, behind a durable intent. The caller then commits the KMS key's row
/// together with [`adopt`]; if it can't, it calls [`discard`].
///
/// # Errors
/// Those of the token, the database and the generator; and [`Condition::Internal`] if the token made
/// a key that could leave it. What may have been made is destroyed, by [`reconcile`] at last.
pub async fn make_backing_key(
    services: &Services,
    place: &Place,
    rotation: Option<RotationType>,
) -> Result<Backing> {
    for pause in PAUSES {
        match generate(services, place, rotation).await {
            Err(error) if error.condition == Condition::KeyUnavailable => {
                tokio::time::sleep(pause).await;
            }
            settled => return settled,
        }
    }
    generate(services, place, rotation).await
}

/// How long is waited before a key is made once more. SoftHSM 2.6.1 fails some generations
/// (CKR_GENERAL_ERROR) while other sessions make or use keys; a later one succeeds.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(200)];

async fn generate(
    services: &Services,
    place: &Place,
    rotation: Option<RotationType>,
) -> Result<Backing> {
    let mut backing = Backing { rotation, ..blank(services, random_id(services)?, place.scheme) };
    for token in &place.tokens {
        let first = backing.holders.is_empty();
        let id = if first { backing.id } else { random_id(services)? };
        match make_holder(services, token, (id, place.scheme)).await {
            Ok(holder) => backing.holders.push(holder),
            Err(error) => {
                discard(services, &backing.holders).await;
                return Err(error);
            }
        }
    }
    if place.scheme.has_holders() {
        backing.authenticator = Some(services.envelopes.new_authenticator(&backing)?);
    }
    Ok(backing)
}

/// A name for a key in a token.
///
/// # Errors
/// If there is no randomness.
pub fn random_id(services: &Services) -> Result<BackingKeyId> {
    Ok(BackingKeyId(random_bytes(&*services.world.random)?))
}

/// A backing key that nobody holds yet.
fn blank(services: &Services, id: BackingKeyId, scheme: Scheme) -> Backing {
    Backing {
        id,
        scheme,
        holders: Vec::new(),
        authenticator: None,
        created: services.world.clock.now(),
        material_id: material_id(&services.region, id),
        rotation: None,
        imported: false,
    }
}

/// Brings given material into the token as the backing key of a KMS key; else as
/// [`make_backing_key`]. The same material under the same key id has the same [`BackingKeyId`] in
/// every appliance, so that what one sealed opens in the other. Nobody else may work on this KMS key
/// meanwhile.
///
/// # Errors
/// As [`make_backing_key`]; and [`Condition::AlreadyExists`] if the token holds this backing key for
/// no reason that the database knows: then it is left there.
pub async fn import_backing_key(
    services: &Services,
    key_id: &str,
    material: Key,
) -> Result<Backing> {
    let check = check_value(&material);
    let id = imported_id(key_id, check);
    // What a start that broke off, or the deletion of a key with this id, has left behind.
    let lane = services.tokens.main()?;
    let token = &lane.info().serial;
    if give_up(services, id).await? {
        destroy(services, id, token).await?;
    }
    match lane.inspect(id.into()).await {
        Err(custody::Error::KeyNotFound(_)) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => {
            let text = format!("the token holds backing key {id} already, and no KMS key names it");
            return Err(Error::new(Condition::AlreadyExists, text));
        }
    }
    let scheme = Scheme::HmacKdf;
    let holder = make(services, token, (id, scheme), Some((material, check))).await?;
    Ok(Backing { holders: vec![holder], imported: true, ..blank(services, id, scheme) })
}

/// Makes a key of the token's own in a token.
///
/// # Errors
/// As [`make_backing_key`].
pub async fn make_holder(
    services: &Services,
    token: &str,
    (id, scheme): (BackingKeyId, Scheme),
) -> Result<KeyHolder> {
    make(services, token, (id, scheme), None).await
}

/// Makes a key in a token: of given material with this check value, or of the token's own.
async fn make(
    services: &Services,
    token: &str,
    (id, scheme): (BackingKeyId, Scheme),
    given: Option<(Key, KeyCheck)>,
) -> Result<KeyHolder> {
    let lane = services.tokens.of(token)?;
    let token = &lane.info().serial;
    let expected = given.as_ref().map(|(_, check)| *check);
    note(services, (id, token), IntentKind::Create).await?;
    let made = match given {
        Some((material, _)) => lane.import(id, scheme, material).await,
        None => lane.generate(id, scheme).await,
    };
    match made.map_err(Error::from).and_then(|made| trusted(id, scheme, made, expected)) {
        Ok(made) => Ok(KeyHolder {
            key: id,
            token: token.clone(),
            check: made.evidence.check,
            wrapped: made.wrapped,
            public: made.public.map(|public| PublicKey(public.into())),
        }),
        Err(error) => {
            // The intent stays: a request that timed out may still take effect in the token.
            if let Err(why) = lane.destroy(id).await {
                tracing::warn!(%why, "backing key {id} is left to the next reconciliation");
            }
            Err(error)
        }
    }
}

/// Where a new backing key is made, and how it delivers message secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    scheme: Scheme,
    /// Serial numbers; more than one if the scheme has holders.
    tokens: Vec<String>,
}

impl Place {
    /// In the default token, by the scheme that its profile prefers, and in those that hold every new
    /// key, if the scheme lets several do so.
    ///
    /// # Errors
    /// Those of a token that is missing; [`Condition::Unsupported`] if one can't hold such a key.
    pub fn standard(tokens: &Tokens) -> Result<Self> {
        let mut place = Self::on(tokens.main()?)?;
        let others = tokens.all().iter().skip(1).filter(|member| member.holds_new_keys);
        for member in others.filter(|_| place.scheme.has_holders()) {
            let lane = member.lane()?;
            if !lane.described().schemes.contains(&place.scheme) {
                return Err(unable(lane, place.scheme));
            }
            place.tokens.push(member.serial().to_owned());
        }
        Ok(place)
    }

    /// In this token alone, by the scheme that its profile prefers.
    ///
    /// # Errors
    /// [`Condition::Unsupported`] if it can't hold any such key.
    pub fn on(lane: &Lane) -> Result<Self> {
        let preferred = lane.described().preferred_scheme();
        let scheme = preferred.ok_or_else(|| unable(lane, Scheme::HmacKdf))?;
        Ok(Self { scheme, tokens: vec![lane.info().serial.clone()] })
    }

    /// Where another one is, and by the same scheme.
    pub fn of(backing: &Backing) -> Self {
        let tokens = backing.holders.iter().map(|holder| holder.token.clone()).collect();
        Self { scheme: backing.scheme, tokens }
    }
}

/// The refusal of a scheme that a token hasn't.
pub(super) fn unable(lane: &Lane, scheme: Scheme) -> Error {
    let text = format!("a token of profile `{}` holds no keys of scheme {scheme}", lane.profile());
    Error::new(Condition::Unsupported, text)
}

/// Takes the intent away that [`make_backing_key`] noted: to be called in the transaction that
/// writes the KMS key's row with this backing key.
///
/// # Errors
/// [`Condition::DependencyTimeout`] if the intent is gone, because the key was given up meanwhile.
pub fn adopt<'a>(rows: &mut Rows<'_>, made: impl IntoIterator<Item = &'a KeyHolder>) -> Result<()> {
    for KeyHolder { key, .. } in made {
        match rows.intent(*key)? {
            Some(intent) if intent.what == IntentKind::Create => rows.delete_intent(*key)?,
            _ => {
                let error =
                    Error::new(Condition::DependencyTimeout, "the key took too long to make");
                return Err(error.logged(format!("backing key {key} was given up before")));
            }
        }
    }
    Ok(())
}

/// Gives up a backing key after the commit that should have adopted it failed. If it was adopted
/// all the same (a commit whose outcome got lost), it stays.
pub async fn discard(services: &Services, made: &[KeyHolder]) {
    for KeyHolder { key, token, .. } in made {
        let gone = async {
            if give_up(services, *key).await? {
                destroy(services, *key, token).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = gone.await {
            tracing::warn!(%error, "backing key {key} is left to the next reconciliation");
        }
    }
}

/// Destroys a key in the token for which an intent to destroy it stands, then drops the intent.
/// That the key is not there is a success, here alone.
///
/// # Errors
/// Those of the token and the database; the intent stands then.
pub(super) async fn destroy(services: &Services, backing: BackingKeyId, token: &str) -> Result<()> {
    match services.tokens.of(token)?.destroy(backing).await {
        Ok(()) | Err(custody::Error::KeyNotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    services.records.write(move |rows| Ok::<_, Error>(rows.delete_intent(backing)?)).await
}

/// Carries out what a crash or a fault of the token left behind; answers how many keys it dealt
/// with. To be called at the start and every few minutes.
///
/// # Errors
/// Those of the database. A key that the token doesn't destroy now is logged, and tried again the
/// next time.
pub async fn reconcile(services: &Services) -> Result<usize> {
    let intents = services.records.scan(|rows| Ok::<_, Error>(rows.intents()?)).await?;
    let due = due(intents, services.world.clock.now());
    if due.is_empty() {
        return Ok(0);
    }
    let in_use = services.records.scan(|rows| Ok::<_, Error>(rows.backing_keys_in_use()?)).await?;
    let mut settled = 0;
    for intent in due {
        let id = intent.backing_key;
        match settle(services, &intent, &in_use).await {
            Ok(()) => settled += 1,
            Err(error) => tracing::warn!(%error, "backing key {id} could not be dealt with"),
        }
    }
    Ok(settled)
}

/// The intents that nobody works on any more.
fn due(intents: Vec<Intent>, now: Time) -> Vec<Intent> {
    let abandoned = |intent: &Intent| match intent.what {
        IntentKind::Create => now.0.saturating_sub(intent.noted.0) >= ABANDONED,
        IntentKind::Destroy => true,
    };
    intents.into_iter().filter(abandoned).collect()
}

async fn settle(
    services: &Services,
    intent: &Intent,
    in_use: &HashSet<BackingKeyId>,
) -> Result<()> {
    let id = intent.backing_key;
    if in_use.contains(&id) {
        // Rows and intents change in one transaction, so that this can't be; it is never a reason
        // to destroy what a KMS key needs.
        let text = format!("backing key {id} is in use, and an intent says {:?}", intent.what);
        return Err(Error::internal(text));
    }
    if intent.what == IntentKind::Create && !give_up(services, id).await? {
        return Ok(());
    }
    destroy(services, id, &intent.token).await
}

/// Turns an intent to make a key into one to destroy it, unless the key was adopted meanwhile.
async fn give_up(services: &Services, id: BackingKeyId) -> Result<bool> {
    let now = services.world.clock.now();
    services
        .records
        .write(move |rows| {
            let Some(intent) = rows.intent(id)? else { return Ok::<_, Error>(false) };
            rows.put_intent(&Intent { what: IntentKind::Destroy, noted: now, ..intent })?;
            Ok(true)
        })
        .await
}

async fn note(
    services: &Services,
    (backing_key, token): (BackingKeyId, &str),
    what: IntentKind,
) -> Result<()> {
    let (token, noted) = (token.to_owned(), services.world.clock.now());
    let intent = Intent { backing_key, token, what, noted };
    services.records.write(move |rows| Ok::<_, Error>(rows.put_intent(&intent)?)).await
}

/// Refuses a key that could leave the token, and one that is not what was asked for: made in the
/// token, or of the material with the check value `imported`.
fn trusted(
    id: BackingKeyId,
    scheme: Scheme,
    made: Made,
    imported: Option<KeyCheck>,
) -> Result<Made> {
    let Made { evidence, public, .. } = &made;
    let stays = evidence.sensitive && !evidence.extractable;
    let of_its_kind = match public {
        Some(public) => scheme.has_holders() && KeyCheck::of_public(public) == evidence.check,
        None => !scheme.has_holders(),
    };
    let as_asked = match imported {
        Some(check) => evidence.check == check,
        None => evidence.always_sensitive && evidence.never_extractable && evidence.local,
    };
    if stays && as_asked && of_its_kind {
        return Ok(made);
    }
    let why = format!("the token made it with other attributes than asked for: {evidence:?}");
    Err(Error::internal(custody::Error::KeyRejected { id, why }.to_string()))
}

/// AWS's id of key material, 64 hex digits:
/// `SHA-256("strongroom key material id v1" || region || 0x00 || backing key id)`.
fn material_id(region: &str, backing: BackingKeyId) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(MATERIAL_ID);
    hash.update(region.as_bytes());
    hash.update(&[0]);
    hash.update(&backing.0);
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key-check value of material that is not in a token yet: see [`KeyCheck`].
pub(super) fn check_value(material: &Key) -> KeyCheck {
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, material.expose()), KeyCheck::LABEL);
    let mut check = [0; 8];
    check.iter_mut().zip(mac.as_ref()).for_each(|(to, from)| *to = *from);
    KeyCheck(check)
}

/// The first 16 bytes of
/// `SHA-256("strongroom imported backing key v1" || key id || 0x00 || key-check value)`.
fn imported_id(key_id: &str, check: KeyCheck) -> BackingKeyId {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(IMPORTED_ID);
    hash.update(key_id.as_bytes());
    hash.update(&[0]);
    hash.update(&check.0);
    let mut id = [0; 16];
    id.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    BackingKeyId(id)
}

/// An event of KMS's own in an account, for the audit log.
pub(super) fn event(name: &'static str, account: &str, arn: String) -> Event {
    Event { service: Service::Kms, name, account: account.to_owned(), resources: vec![arn] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::Evidence;

    fn evidence() -> Evidence {
        Evidence {
            sensitive: true,
            extractable: false,
            never_extractable: true,
            always_sensitive: true,
            local: true,
            mechanisms: vec!["CKM_SHA256_HMAC".into()],
            check: KeyCheck([0; 8]),
        }
    }

    fn judged(evidence: Evidence, imported: Option<KeyCheck>) -> Result<Made> {
        let made = Made { evidence, wrapped: None, public: None };
        trusted(BackingKeyId([7; 16]), Scheme::HmacKdf, made, imported)
    }

    #[test]
    fn a_pair_has_a_public_key_of_its_check_value_and_a_symmetric_key_has_none() {
        let id = BackingKeyId([7; 16]);
        let judged = |scheme, public: Option<&[u8]>, check| {
            let evidence = Evidence { check, ..evidence() };
            let made = Made { evidence, wrapped: None, public: public.map(<[u8]>::to_vec) };
            trusted(id, scheme, made, None).is_ok()
        };
        let check = KeyCheck::of_public(b"point");
        assert!(judged(Scheme::Ecdh, Some(b"point"), check));
        assert!(!judged(Scheme::Ecdh, Some(b"other"), check));
        assert!(!judged(Scheme::Ecdh, None, check));
        assert!(!judged(Scheme::HmacKdf, Some(b"point"), check));
    }

    #[test]
    fn a_key_that_could_leave_the_token_is_refused() {
        assert!(judged(evidence(), None).is_ok());
        let loosened: [fn(&mut Evidence); 5] = [
            |e| e.sensitive = false,
            |e| e.extractable = true,
            |e| e.never_extractable = false,
            |e| e.always_sensitive = false,
            |e| e.local = false,
        ];
        for loosen in loosened {
            let mut evidence = evidence();
            loosen(&mut evidence);
            let refused = judged(evidence, None).expect_err("not to be trusted");
            assert_eq!(refused.condition, Condition::Internal);
        }
    }

    #[test]
    fn imported_material_need_not_be_local_but_must_be_the_same_and_stay() {
        let given = KeyCheck([9; 8]);
        let imported = || Evidence {
            never_extractable: false,
            always_sensitive: false,
            local: false,
            check: given,
            ..evidence()
        };
        assert!(judged(imported(), Some(given)).is_ok());
        assert!(judged(imported(), None).is_err());
        assert!(judged(imported(), Some(KeyCheck([8; 8]))).is_err());
        assert!(judged(Evidence { extractable: true, ..imported() }, Some(given)).is_err());
        assert!(judged(Evidence { sensitive: false, ..imported() }, Some(given)).is_err());
    }

    /// The expected values come from another implementation (Python's `hmac` and `hashlib`).
    #[test]
    fn an_imported_key_is_named_by_key_id_and_check_value() {
        let check = check_value(&Key::take(&mut [0x0b; 32]));
        assert_eq!(check, KeyCheck([0x33, 0x0d, 0x6b, 0x2d, 0xfe, 0x22, 0xdf, 0x49]));
        let id = imported_id("1234abcd-12ab-34cd-56ef-1234567890ab", check);
        assert_eq!(id.to_string(), "ba48e03275b069b4e0956031fbe6e596");
        assert_ne!(id, imported_id("1234abcd-12ab-34cd-56ef-1234567890ac", check));
        assert_ne!(id, imported_id("1234abcd-12ab-34cd-56ef-1234567890ab", KeyCheck([0; 8])));
    }

    #[test]
    fn a_key_in_the_making_is_left_alone_until_it_counts_as_abandoned() {
        let intent = |what, noted| {
            let (backing_key, token) = (BackingKeyId([1; 16]), String::new());
            Intent { backing_key, token, what, noted: Time(noted) }
        };
        let now = Time(ABANDONED * 2);
        let due = due(
            vec![
                intent(IntentKind::Create, ABANDONED + 1),
                intent(IntentKind::Create, ABANDONED),
                intent(IntentKind::Destroy, ABANDONED * 2),
            ],
            now,
        );
        let found: Vec<_> = due.iter().map(|i| (i.what, i.noted.0)).collect();
        assert_eq!(found, [(IntentKind::Create, ABANDONED), (IntentKind::Destroy, ABANDONED * 2)]);
    }

    #[test]
    fn a_material_id_depends_on_region_and_backing_key() {
        let id = material_id("eu-central-1", BackingKeyId([1; 16]));
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_ne!(id, material_id("eu-central-2", BackingKeyId([1; 16])));
        assert_ne!(id, material_id("eu-central-1", BackingKeyId([2; 16])));
    }
}
