//! Callers without credentials, for whom somebody vouches whom the configuration names.

use super::oidc::{self, Claims};
use super::options::Federation;
use super::sigv4::Request;
use super::x509::{self, Profile, Subject, TrustAnchor, signed};
use crate::clock::Time;
use crate::name::{Arn, Uuid, is_account};
use crate::policy::caller::Bounds;
use crate::policy::{Caller, PrincipalKind, Vouched};
use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use std::sync::Arc;

/// A caller, and what is said of it.
pub type Introduced = (Arc<Caller>, Option<Arc<Vouched>>);

/// Why nobody vouches for a caller.
#[derive(Debug, thiserror::Error)]
pub enum Unproved {
    /// Its token.
    #[error(transparent)]
    Token(#[from] oidc::Error),
    /// Its certificate, or the signature made with it.
    #[error(transparent)]
    Certificate(#[from] x509::Error),
    /// No trust anchor or profile of this ARN.
    #[error("{0} does not exist")]
    NotFound(String),
    /// A trust anchor that is another account's than the profile.
    #[error("the trust anchor and the profile are of different accounts")]
    Accounts,
    /// A role that the profile does not have.
    #[error("{0} is not a role of the profile")]
    Role(String),
}

impl Unproved {
    /// STS's or Roles Anywhere's code, and the HTTP status.
    pub fn code(&self) -> (&'static str, u16) {
        match self {
            Self::Token(error) => (error.code().as_str(), error.code().status()),
            Self::Certificate(error) => (error.code(), error.status()),
            Self::NotFound(_) => ("ResourceNotFoundException", 404),
            Self::Accounts | Self::Role(_) => ("AccessDeniedException", 403),
        }
    }
}

/// What of AssumeRoleWithWebIdentity's input is proof.
#[derive(Deserialize)]
struct Proof {
    #[serde(rename = "RoleArn")]
    role_arn: String,
    #[serde(rename = "WebIdentityToken")]
    token: String,
}

/// What of CreateSession's input says by whom and how the caller is vouched for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    profile_arn: String,
    role_arn: String,
    trust_anchor_arn: String,
}

impl Federation {
    /// The caller of AssumeRoleWithWebIdentity, proved by the token in its input (JSON): it calls
    /// from the role's account, which says whom it trusts. Without role or token nobody vouches for
    /// the caller, and the operation says what is missing.
    ///
    /// # Errors
    /// A token that proves nothing.
    pub async fn web_identity(&self, input: &[u8], now: Time) -> Result<Introduced, Unproved> {
        let proof = serde_json::from_slice::<Proof>(input).ok();
        let account = proof.as_ref().and_then(|p| Arn::parse(&p.role_arn)).map(|arn| arn.account);
        let (Some(proof), Some(account)) = (&proof, account.filter(|a| is_account(a))) else {
            return Ok((Arc::new(unproved(PrincipalKind::WebIdentity)), None));
        };
        let claims = self.issuers.verify(&proof.token, account, now).await?;
        // As the issuer is written: its name is part of ARNs and condition keys.
        let name = claims.issuer.strip_prefix("https://").unwrap_or(&claims.issuer);
        let arn = ["arn:aws:iam::", account, ":oidc-provider/", name].concat();
        let caller = Caller {
            account: account.to_owned(),
            principal_id: [&arn, ":", &claims.audience, ":", &claims.subject].concat(),
            arn,
            ..unproved(PrincipalKind::WebIdentity)
        };
        let vouched = of_token(name, &claims);
        Ok((Arc::new(caller), Some(Arc::new(vouched))))
    }

    /// The caller of CreateSession, proved by the certificate that signed the request: it calls from
    /// the account of the trust anchor and the profile that its input (JSON) names.
    ///
    /// # Errors
    /// A certificate or a signature that proves nothing; a trust anchor, profile or role that does
    /// not fit.
    pub fn certificate(
        &self,
        request: &Request<'_>,
        input: &[u8],
        region: &str,
        now: Time,
    ) -> Result<Introduced, Unproved> {
        let proven = signed::verify(request, region, now)?;
        let Ok(named) = serde_json::from_slice::<Named>(input) else {
            return Ok((Arc::new(unproved(PrincipalKind::Certificate)), None));
        };
        let missing = |arn: &String| Unproved::NotFound(arn.clone());
        let (anchor_arn, profile_arn) = (&named.trust_anchor_arn, &named.profile_arn);
        let anchor = self.trust.anchors.iter().find(|anchor| anchor.arn(region) == *anchor_arn);
        let anchor = anchor.ok_or_else(|| missing(anchor_arn))?;
        let subject = anchor.verify_chain(&proven.leaf, &proven.intermediates(), now)?;
        let profile = self.trust.profiles.iter().find(|known| known.arn(region) == *profile_arn);
        let profile = profile.ok_or_else(|| missing(profile_arn))?;
        if anchor.account != profile.account {
            return Err(Unproved::Accounts);
        }
        if !profile.role_arns.contains(&named.role_arn) {
            return Err(Unproved::Role(named.role_arn));
        }
        let vouched = of_certificate(anchor, profile, &subject, region);
        let caller = Caller {
            account: anchor.account.clone(),
            principal_id: subject.serial.clone(),
            arn: vouched.provider.clone(),
            ..unproved(PrincipalKind::Certificate)
        };
        Ok((Arc::new(caller), Some(Arc::new(vouched))))
    }
}

/// A caller who has shown nothing.
fn unproved(kind: PrincipalKind) -> Caller {
    Caller {
        account: String::new(),
        arn: String::new(),
        principal_id: String::new(),
        kind,
        access_key_id: None,
        session: None,
    }
}

/// What a token says, as condition keys:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif>.
fn of_token(provider: &str, claims: &Claims) -> Vouched {
    let key = |name: &str| [&provider.to_lowercase(), ":", name].concat();
    let one = |value: &String| vec![value.clone()];
    let mut facts = vec![
        (key("sub"), one(&claims.subject)),
        (key("aud"), one(&claims.audience)),
        (key("oaud"), claims.audiences.clone()),
    ];
    if let Some(party) = &claims.authorized_party {
        facts.push((key("azp"), one(party)));
    }
    if !claims.methods.is_empty() {
        facts.push((key("amr"), claims.methods.clone()));
    }
    for tag in &claims.tags {
        facts.push((["aws:requesttag/", &tag.key.to_lowercase()].concat(), one(&tag.value)));
    }
    let keys: Vec<String> = claims.tags.iter().map(|tag| tag.key.clone()).collect();
    let transitive: Vec<String> =
        claims.tags.iter().filter(|tag| tag.transitive).map(|tag| tag.key.clone()).collect();
    let many = [("aws:tagkeys", &keys), ("sts:transitivetagkeys", &transitive)];
    for (name, values) in many.into_iter().filter(|(_, values)| !values.is_empty()) {
        facts.push((name.to_owned(), values.clone()));
    }
    if let Some(identity) = &claims.source_identity {
        facts.push(("sts:sourceidentity".to_owned(), one(identity)));
    }
    Vouched {
        facts,
        tags: claims.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
        transitive,
        source_identity: claims.source_identity.clone(),
        provider: claims.issuer.clone(),
        audience: Some(claims.audience.clone()),
        subject: claims.subject.clone(),
        bounds: None,
    }
}

/// What a certificate says, as condition keys, and what its profile allows. Source: "Trust policy"
/// in "Roles" of the IAM Roles Anywhere User Guide.
fn of_certificate(
    anchor: &TrustAnchor,
    profile: &Profile,
    subject: &Subject,
    region: &str,
) -> Vouched {
    let (tags, source_identity) = (subject.tags(), subject.source_identity());
    let arn = anchor.arn(region);
    let mut facts = vec![
        ("aws:sourcearn".to_owned(), vec![arn.clone()]),
        ("aws:sourceaccount".to_owned(), vec![anchor.account.clone()]),
    ];
    for (key, value) in &tags {
        for prefix in ["aws:principaltag/", "aws:requesttag/"] {
            facts.push(([prefix, &key.to_lowercase()].concat(), vec![value.clone()]));
        }
    }
    facts.extend(source_identity.iter().map(|id| ("sts:sourceidentity".into(), vec![id.clone()])));
    Vouched {
        facts,
        tags,
        transitive: Vec::new(),
        source_identity,
        provider: arn,
        audience: None,
        subject: subject_arn(&anchor.account, subject, region),
        bounds: Some(Bounds {
            policy: profile.session_policy.clone(),
            policy_arns: profile.managed_policy_arns.clone(),
            seconds: profile.duration_seconds.into(),
            name: subject.session_name().to_owned(),
            names: profile.accept_role_session_name,
        }),
    }
}

/// The ARN of whomever a certificate names: the same for every certificate of one name.
fn subject_arn(account: &str, subject: &Subject, region: &str) -> String {
    let hash = digest(&SHA256, subject.name.as_bytes());
    let id = hash.as_ref().first_chunk().map_or(Uuid::NIL, |bytes| Uuid::from_random(*bytes));
    format!("arn:aws:rolesanywhere:{region}:{account}:subject/{id}")
}
