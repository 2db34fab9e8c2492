//! The KMS key that a ciphertext belongs to, and what has to be so before it is opened.

use super::{KeyTarget, locate};
use crate::envelope::Envelope;
use crate::envelope::context::Context;
use crate::ops::call::{Call, NO_RESOURCE, OwnPolicy, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Blob, Checks};
use crate::policy::{Request, Values};
use crate::secret::Secret;
use crate::store::keys::Key;
use std::sync::Arc;

/// A ciphertext with the KMS key that is to open it.
pub struct Source {
    target: KeyTarget,
    /// Whether the request names the key itself.
    named: bool,
    envelope: Option<Envelope>,
    /// Whether it is to be sealed under the same key again; none where it is opened.
    same: Option<bool>,
}

impl Target for Source {
    fn arn(&self) -> &str {
        self.target.arn()
    }
    fn owner(&self) -> &str {
        self.target.owner()
    }
    fn hidden(&self) -> bool {
        !self.named
    }
    fn policy(&self) -> Result<OwnPolicy> {
        self.target.policy()
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        match key {
            "kms:reencryptonsamekey" => self.same.map(Values::truth),
            _ => self.target.fact(call, key),
        }
    }
    fn granted(&self, call: &Call, request: &Request<'_>) -> Result<Option<String>> {
        self.target.granted(call, request)
    }
}

impl Source {
    /// Finds the key: the one that the request names, or else the one that the ciphertext does.
    ///
    /// # Errors
    /// Those of [`locate`]; [`Condition::InvalidCiphertext`] if there is nothing to find a key by.
    pub(super) fn locate(call: &Call, key_id: Option<&str>, blob: Option<&Blob>) -> Result<Self> {
        let envelope = blob.map(|blob| Envelope::parse(&blob.0)).and_then(std::result::Result::ok);
        if let Some(named) = key_id {
            return Ok(Self { target: locate(call, named)?, named: true, envelope, same: None });
        }
        let envelope = envelope.ok_or_else(invalid)?;
        let target = match call.records.key(&envelope.key_id)? {
            Some(key) => KeyTarget::found(&call.region, key),
            // Nobody owns it, so that no policy allows it: as AWS does, the answer is the same as
            // for a key of somebody else's.
            None => KeyTarget {
                arn: NO_RESOURCE.to_owned(),
                owner: String::new(),
                key: None,
                alias: None,
            },
        };
        Ok(Self { target, named: false, envelope: Some(envelope), same: None })
    }

    /// The same for what is to be sealed again under the key with the ARN `destination`.
    pub(super) fn bound_for(self, destination: &str) -> Self {
        Self { same: Some(self.arn() == destination), ..self }
    }

    /// Refuses a key that can't be used now, and a ciphertext of another key than the one named.
    pub(super) fn check(&self, call: &Call, ciphertext_matters: bool) -> Result<&Arc<Key>> {
        let key = self.target.key()?;
        if ciphertext_matters {
            let envelope = self.envelope.as_ref().ok_or_else(invalid)?;
            if envelope.key_id != key.id {
                return Err(Error::new(
                    Condition::IncorrectKey,
                    "The key ID in the request does not identify a CMK that can perform this \
                     operation.",
                ));
            }
        }
        self.target.usable(call)
    }

    /// Opens the ciphertext.
    pub(super) async fn open(self, call: &Call, context: &Context) -> Result<Opened> {
        let key = self.target.key()?;
        let envelope = self.envelope.ok_or_else(invalid)?;
        let backing = key.backing.iter().find(|backing| backing.id == envelope.backing);
        let material_id = backing.ok_or_else(invalid)?.material_id.clone();
        let plaintext = call.envelopes.open(key, context, envelope).await?;
        Ok(Opened { key_arn: self.target.arn_of_key(key), material_id, plaintext })
    }
}

/// An opened ciphertext.
pub(super) struct Opened {
    /// The ARN of the key that opened it.
    pub(super) key_arn: String,
    /// The id of the key material that did.
    pub(super) material_id: String,
    /// What was inside.
    pub(super) plaintext: Secret,
}

fn invalid() -> Error {
    Error::new(Condition::InvalidCiphertext, "")
}

/// DryRun with `IGNORE_CIPHERTEXT` asks for the rights alone and needs no ciphertext, but a key id.
pub(super) struct Need {
    dry_run: bool,
    ignore: bool,
}

impl Need {
    /// What the request says.
    pub(super) fn of(dry_run: Option<bool>, modifiers: Option<&[String]>) -> Self {
        let modifiers = modifiers.unwrap_or_default();
        let ignore = modifiers.iter().any(|modifier| modifier == IGNORE_CIPHERTEXT);
        Self { dry_run: dry_run == Some(true), ignore }
    }

    /// Whether the ciphertext has to be there and to be sound.
    pub(super) fn ciphertext(&self) -> bool {
        !(self.dry_run && self.ignore)
    }

    /// The bounds of the members that this is about; `key` is the name of the key id.
    pub(super) fn check(
        &self,
        checks: &mut Checks,
        modifiers: Option<&[String]>,
        blob: &Option<Blob>,
        key: (&str, &Option<String>),
    ) {
        let known = modifiers.unwrap_or_default().iter().all(|m| m == IGNORE_CIPHERTEXT);
        if !known {
            let shown = format!("'[{}]'", modifiers.unwrap_or_default().join(", "));
            let rule = "Member must satisfy constraint: [Member must satisfy enum value set: \
                        [IGNORE_CIPHERTEXT]]";
            checks.fail(&shown, "dryRunModifiers", rule);
        }
        if self.ciphertext() {
            checks.required("ciphertextBlob", blob);
        } else {
            checks.required(key.0, key.1);
        }
        checks.blob("ciphertextBlob", blob.as_ref().map(|blob| blob.0.len()), 1, 6144);
    }
}

const IGNORE_CIPHERTEXT: &str = "IGNORE_CIPHERTEXT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_is_not_needed_by_a_dry_run_that_ignores_it_and_by_nothing_else() {
        let ignore = [IGNORE_CIPHERTEXT.to_owned()];
        assert!(!Need::of(Some(true), Some(&ignore)).ciphertext());
        assert!(Need::of(Some(true), None).ciphertext());
        assert!(Need::of(Some(false), Some(&ignore)).ciphertext());
        assert!(Need::of(None, Some(&ignore)).ciphertext());
    }

    #[test]
    fn unknown_modifiers_are_refused() {
        let unknown = ["SHRUG".to_owned()];
        let mut checks = Checks::default();
        let blob = Some(Blob(vec![0]));
        Need::of(Some(true), Some(&unknown)).check(&mut checks, Some(&unknown), &blob, ("", &None));
        assert_eq!(checks.finish().expect_err("refused").condition, Condition::Validation);
    }
}
