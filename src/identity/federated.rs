//! Callers without credentials, for whom somebody vouches whom the configuration names.

use super::oidc::{self, Claims};
use super::options::Federation;
use crate::clock::Time;
use crate::name::Arn;
use crate::policy::{Caller, PrincipalKind, Vouched};
use serde::Deserialize;
use std::sync::Arc;

/// A caller, and what is said of it.
pub type Introduced = (Arc<Caller>, Option<Arc<Vouched>>);

/// What of AssumeRoleWithWebIdentity's input is proof.
#[derive(Deserialize)]
struct Proof {
    #[serde(rename = "RoleArn")]
    role_arn: String,
    #[serde(rename = "WebIdentityToken")]
    token: String,
}

impl Federation {
    /// The caller of AssumeRoleWithWebIdentity, proved by the token in its input (JSON): it calls
    /// from the role's account, which says whom it trusts. Without role or token nobody vouches for
    /// the caller, and the operation says what is missing.
    ///
    /// # Errors
    /// A token that proves nothing.
    pub async fn web_identity(&self, input: &[u8], now: Time) -> Result<Introduced, oidc::Error> {
        let proof = serde_json::from_slice::<Proof>(input).ok();
        let account = proof.as_ref().and_then(|p| Arn::parse(&p.role_arn)).map(|arn| arn.account);
        let (Some(proof), Some(account)) = (&proof, account) else {
            return Ok((Arc::new(nobody()), None));
        };
        let claims = self.issuers.verify(&proof.token, account, now).await?;
        // As the issuer is written: its name is part of ARNs and condition keys.
        let name = claims.issuer.strip_prefix("https://").unwrap_or(&claims.issuer);
        let arn = ["arn:aws:iam::", account, ":oidc-provider/", name].concat();
        let caller = Caller {
            account: account.to_owned(),
            principal_id: [&arn, ":", &claims.audience, ":", &claims.subject].concat(),
            arn,
            kind: PrincipalKind::WebIdentity,
            access_key_id: None,
            session: None,
        };
        let vouched = vouched(name, &claims);
        Ok((Arc::new(caller), Some(Arc::new(vouched))))
    }
}

/// A caller who has shown nothing.
fn nobody() -> Caller {
    Caller {
        account: String::new(),
        arn: String::new(),
        principal_id: String::new(),
        kind: PrincipalKind::WebIdentity,
        access_key_id: None,
        session: None,
    }
}

/// The condition keys of a token:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif>.
fn vouched(provider: &str, claims: &Claims) -> Vouched {
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
    }
}
