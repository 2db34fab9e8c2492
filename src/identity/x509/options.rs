//! Anchors, profiles and rules together, checked against one another.

use super::{
    AnchorOptions, Error, Mapped, Profile, ProfileOptions, Rule, RuleOptions, Subject, TrustAnchor,
};
use crate::clock::Time;
use crate::name::{Arn, is_key_id};
use std::path::Path;

/// The most trust anchors, profiles and rules.
const MOST: usize = 250;

/// Everything that the configuration says of certificates as identities.
pub struct Trust {
    /// The trust anchors; ids are distinct.
    pub anchors: Vec<TrustAnchor>,
    /// The profiles; ids are distinct.
    pub profiles: Vec<Profile>,
    /// The rules for mutual TLS; the first that fits counts.
    pub rules: Vec<Rule>,
}

/// Whom mutual TLS has proved, and what the rules make of it.
pub struct Client<'t> {
    /// The trust anchor that vouches for the certificate.
    pub anchor: &'t TrustAnchor,
    /// What the certificate says.
    pub subject: Subject,
    /// The role that it gets.
    pub mapped: Mapped,
}

/// What is wrong with an anchor, a profile or a rule.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// An id.
    #[error("`{0}` is no UUID in lower case")]
    Id(String),
    /// An id that is there twice.
    #[error("the id `{0}` is there twice")]
    Twice(String),
    /// More than are looked through.
    #[error("more than {MOST} trust anchors, profiles or rules")]
    TooMany,
    /// An account.
    #[error("`{0}` is no account")]
    Account(String),
    /// A role.
    #[error("`{role}` is no role of the account {account}")]
    Role {
        /// What is written there.
        role: String,
        /// The account that it should be of.
        account: String,
    },
    /// A file of certificates or revocation lists.
    #[error("`{path}`: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something of a profile.
    #[error("profile `{id}`: {why}")]
    Profile {
        /// Its id.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// A rule's trust anchor.
    #[error("a rule names the trust anchor `{0}`, which is not there")]
    NoAnchor(String),
    /// A rule's conditions.
    #[error(
        "the rule for `{0}` needs conditions: names like `x509Subject/CN` or `x509SAN/URI`, values \
         of 1 to 256 bytes"
    )]
    Match(String),
    /// A rule's template.
    #[error(
        "`{0}` is no session name: a text of at most 256 bytes with `{{serial}}`, \
         `{{x509Subject/CN}}` and the like in it is needed"
    )]
    Template(String),
}

impl OptionsError {
    pub(super) fn file(path: &Path, why: impl ToString) -> Self {
        Self::File { path: path.display().to_string(), why: why.to_string() }
    }
}

impl Trust {
    /// Checks what is written; reads the anchors' files.
    pub fn check(
        anchors: Vec<AnchorOptions>,
        profiles: Vec<ProfileOptions>,
        rules: Vec<RuleOptions>,
    ) -> Result<Self, OptionsError> {
        if [anchors.len(), profiles.len(), rules.len()].iter().any(|count| *count > MOST) {
            return Err(OptionsError::TooMany);
        }
        let anchors: Vec<TrustAnchor> =
            anchors.into_iter().map(AnchorOptions::check).collect::<Result<_, _>>()?;
        distinct(anchors.iter().map(|anchor| &anchor.id))?;
        let profiles: Vec<Profile> =
            profiles.into_iter().map(ProfileOptions::check).collect::<Result<_, _>>()?;
        distinct(profiles.iter().map(|profile| &profile.id))?;
        let account = |id: &str| {
            anchors.iter().find(|anchor| anchor.id == id).map(|anchor| anchor.account.clone())
        };
        let rules = rules.into_iter().map(|rule| rule.check(account)).collect::<Result<_, _>>()?;
        Ok(Self { anchors, profiles, rules })
    }

    /// What the rules make of the certificate of a TLS client, whose key the handshake has proved:
    /// nothing if an anchor vouches for it and no rule fits.
    ///
    /// # Errors
    /// If no anchor that a rule names vouches for it: the refusal that says most.
    pub fn client(
        &self,
        leaf: &[u8],
        intermediates: &[&[u8]],
        now: Time,
    ) -> Result<Option<Client<'_>>, Error> {
        let (mut vouched, mut refusal) = (false, None);
        let named = |anchor: &&TrustAnchor| self.rules.iter().any(|rule| rule.names(&anchor.id));
        for anchor in self.anchors.iter().filter(named) {
            match anchor.verify_chain(leaf, intermediates, now) {
                Ok(subject) => {
                    vouched = true;
                    if let Some(mapped) = Rule::apply(&self.rules, &anchor.id, &subject)? {
                        return Ok(Some(Client { anchor, subject, mapped }));
                    }
                }
                // That another anchor does not know it at all says the least.
                Err(Error::Untrusted(_)) if refusal.is_some() => {}
                Err(error) => refusal = Some(error),
            }
        }
        let untrusted = || Error::Untrusted("no rule names a trust anchor".into());
        if vouched { Ok(None) } else { Err(refusal.unwrap_or_else(untrusted)) }
    }

    /// Reads revocation lists again whose files have changed. Blocks. What can't be read is logged,
    /// and what was read before stays in use.
    pub fn refresh(&self) {
        for anchor in &self.anchors {
            if let Err(error) = anchor.refresh() {
                tracing::error!(anchor = anchor.name, %error, "the old revocation lists stay");
            }
        }
    }
}

fn distinct<'i>(ids: impl Iterator<Item = &'i String>) -> Result<(), OptionsError> {
    let mut ids: Vec<&String> = ids.collect();
    ids.sort();
    let twice = ids.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some((*one).clone()),
        _ => None,
    });
    twice.map_or(Ok(()), |id| Err(OptionsError::Twice(id)))
}

pub(super) fn is_uuid(text: &str) -> bool {
    is_key_id(text) && !text.starts_with("mrk-")
}

/// The account of a role's ARN.
pub(super) fn role_account(text: &str) -> Option<&str> {
    let arn = Arn::parse(text)?;
    let name = arn.resource.strip_prefix("role/")?;
    let fits = arn.partition == "aws" && arn.service == "iam" && arn.region.is_empty();
    (fits && !name.is_empty() && !name.ends_with('/')).then_some(arn.account)
}
