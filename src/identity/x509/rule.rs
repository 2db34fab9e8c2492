//! Rules for mutual TLS: which certificate gets which role.

use super::options::{OptionsError, role_account};
use super::subject::{is_attribute, is_session_name};
use super::{Error, Subject};
use crate::policy::glob::Glob;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The longest pattern and the longest template, in bytes.
const LONGEST: usize = 256;

/// A rule as it is written: `[[identity.client_certificate]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleOptions {
    /// The id of the trust anchor that must vouch for the certificate.
    pub trust_anchor: String,
    /// The attributes that the certificate must have, by their names (`x509Subject/CN`,
    /// `x509SAN/URI`, ...); values may hold `*` and `?`. One at least.
    pub r#match: BTreeMap<String, String>,
    /// The role that it gets.
    pub role_arn: String,
    /// The session's name: a text with `{x509Subject/CN}` and the like in it, or `{serial}`, which
    /// is the serial number in hex and the default.
    pub session_name: Option<String>,
}

/// A rule that was checked.
#[derive(Clone, Debug)]
pub struct Rule {
    trust_anchor: String,
    conditions: Vec<(String, Glob)>,
    role_arn: String,
    session_name: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Serial,
    Attribute(String),
}

/// What a certificate is mapped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The role.
    pub role_arn: String,
    /// The session's name: `[\w+=,.@-]{2,64}`.
    pub session_name: String,
}

impl RuleOptions {
    /// Checks what is written. `anchors` gives the account of a trust anchor.
    pub fn check(self, anchors: impl Fn(&str) -> Option<String>) -> Result<Rule, OptionsError> {
        let account = anchors(&self.trust_anchor)
            .ok_or_else(|| OptionsError::NoAnchor(self.trust_anchor.clone()))?;
        if role_account(&self.role_arn) != Some(&account) {
            return Err(OptionsError::Role { role: self.role_arn, account });
        }
        let fits = |(name, value): (&String, &String)| {
            is_attribute(name) && (1..=LONGEST).contains(&value.len())
        };
        if self.r#match.is_empty() || !self.r#match.iter().all(fits) {
            return Err(OptionsError::Match(self.role_arn));
        }
        let template = self.session_name.as_deref().unwrap_or("{serial}");
        let session_name =
            pieces(template).ok_or_else(|| OptionsError::Template(template.to_owned()))?;
        let pattern = |(name, value): (String, String)| (name, Glob::new(&value));
        Ok(Rule {
            trust_anchor: self.trust_anchor,
            conditions: self.r#match.into_iter().map(pattern).collect(),
            role_arn: self.role_arn,
            session_name,
        })
    }
}

impl Rule {
    /// Whether it speaks of what this trust anchor vouches for.
    pub(super) fn names(&self, trust_anchor: &str) -> bool {
        self.trust_anchor == trust_anchor
    }

    /// What the first of `rules` that fits makes of a certificate that `trust_anchor` vouches for;
    /// nothing if none fits.
    ///
    /// # Errors
    /// If what that rule makes of the certificate is no session name.
    pub fn apply(
        rules: &[Self],
        trust_anchor: &str,
        subject: &Subject,
    ) -> Result<Option<Mapped>, Error> {
        let fits = |rule: &&Self| rule.names(trust_anchor) && rule.fits(subject);
        rules.iter().find(fits).map(|rule| rule.map(subject)).transpose()
    }

    /// Whether every condition holds. Of a distinguished name's attribute every value must fit, so
    /// that nothing can be smuggled in beside the one that does; of alternative names, which a
    /// host may have many of, any.
    fn fits(&self, subject: &Subject) -> bool {
        self.conditions.iter().all(|(name, pattern)| {
            let mut values = subject.values(name).peekable();
            if name.starts_with("x509SAN/") {
                values.any(|value| pattern.fits(value))
            } else {
                values.peek().is_some() && values.all(|value| pattern.fits(value))
            }
        })
    }

    fn map(&self, subject: &Subject) -> Result<Mapped, Error> {
        let mut name = String::new();
        for piece in &self.session_name {
            match piece {
                Piece::Text(text) => name += text,
                Piece::Serial => name += &subject.serial_hex,
                // One that is not there leaves its place empty.
                Piece::Attribute(attribute) => {
                    name += subject.values(attribute).next().unwrap_or_default();
                }
            }
        }
        if !is_session_name(&name) {
            return Err(Error::SessionName(name));
        }
        Ok(Mapped { role_arn: self.role_arn.clone(), session_name: name })
    }
}

/// The pieces of a template, if it is one.
fn pieces(template: &str) -> Option<Vec<Piece>> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        found.push(Piece::Text(text.to_owned()));
        found.push(match name {
            "serial" => Piece::Serial,
            name if is_attribute(name) => Piece::Attribute(name.to_owned()),
            _ => return None,
        });
        rest = after;
    }
    found.push(Piece::Text(rest.to_owned()));
    let fits = !template.is_empty() && template.len() <= LONGEST && !rest.contains('}');
    fits.then_some(found)
}
