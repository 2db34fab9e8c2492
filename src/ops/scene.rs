//! The condition keys of one request: what the caller, the connection, the input and the target
//! say. Nothing is made until a condition asks for it.
//!
//! Global keys:
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html>.

use super::authority::{Standing, last_part};
use super::call::{Call, Target};
use crate::clock::Time;
use crate::policy::facts::Values;
use crate::policy::{Caller, Facts, PrincipalKind};
use crate::store::keys::Tag;
use std::borrow::Cow;

/// Everything that a condition may ask of a request.
pub(super) struct Scene<'a> {
    pub(super) call: &'a Call,
    pub(super) standing: &'a Standing,
    pub(super) input: &'a dyn Facts,
    pub(super) target: &'a dyn Target,
}

impl Facts for Scene<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        if key == "kms:calleraccount" {
            return Some(Values::one(&self.call.caller.account));
        }
        let global = key.strip_prefix("aws:").and_then(|name| self.global(name));
        global.or_else(|| self.input.fact(key)).or_else(|| self.target.fact(self.call, key))
    }
}

impl Scene<'_> {
    fn global(&self, name: &str) -> Option<Values<'_>> {
        let caller = &*self.call.caller;
        if let Some(key) = name.strip_prefix("principaltag/") {
            return principal_tag(caller, self.standing, key);
        }
        match name {
            "currenttime" => Some(Values::made(iso(self.call.now))),
            "epochtime" => Some(Values::made(self.call.now.seconds().to_string())),
            "sourceip" => Some(Values::made(self.call.origin.source_ip.to_string())),
            "securetransport" => Some(Values::truth(self.call.origin.tls.is_some())),
            "requestedregion" => Some(Values::one(&self.call.services.region)),
            "useragent" => Some(Values::one(&self.call.origin.user_agent)),
            // What a service does in the caller's name says so itself.
            "resourceaccount" => {
                Some(self.target.owner()).filter(|owner| !owner.is_empty()).map(Values::one)
            }
            "viaawsservice" => {
                let via = self.input.fact("aws:viaawsservice");
                via.or_else(|| Some(Values::truth(false)))
            }
            _ => principal(caller, name),
        }
    }
}

/// What the caller says by itself.
fn principal<'a>(caller: &'a Caller, name: &str) -> Option<Values<'a>> {
    let session = caller.session.as_deref();
    match name {
        "principalarn" => Some(Values::one(caller.principal_arn())),
        "principalaccount" => Some(Values::one(&caller.account)),
        "principaltype" => Some(Values::one(match caller.kind {
            PrincipalKind::Root => "Account",
            PrincipalKind::User => "User",
            PrincipalKind::AssumedRole => "AssumedRole",
            PrincipalKind::WebIdentity => "FederatedUser",
            PrincipalKind::Certificate | PrincipalKind::System => "Service",
        })),
        "principalisawsservice" => Some(Values::truth(caller.kind == PrincipalKind::System)),
        "userid" => Some(Values::one(&caller.principal_id)),
        "username" if caller.kind == PrincipalKind::User => {
            Some(Values::one(last_part(caller.principal_arn())))
        }
        // There is no second factor here: requests with temporary credentials say so, as in AWS.
        "multifactorauthpresent" => session.map(|_| Values::truth(false)),
        "tokenissuetime" => session.map(|s| Values::made(iso(s.issued))),
        "sourceidentity" => session?.source_identity.as_deref().map(Values::one),
        "federatedprovider" => session?.provider.as_deref().map(Values::one),
        _ => None,
    }
}

/// A tag of the caller's: the session's goes before the role's or user's.
fn principal_tag<'a>(caller: &'a Caller, standing: &'a Standing, key: &str) -> Option<Values<'a>> {
    let session = caller.session.as_deref().map(|s| s.tags.as_slice()).unwrap_or_default();
    let of_session = session.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
    of_session.map(|(_, value)| Values::one(value)).or_else(|| tag(&standing.tags, key))
}

/// The value of a tag; keys of condition keys differ by more than letter case.
pub fn tag<'a>(tags: &'a [Tag], key: &str) -> Option<Values<'a>> {
    let found = tags.iter().find(|tag| tag.key.eq_ignore_ascii_case(key));
    found.map(|tag| Values::one(&tag.value))
}

/// `aws:RequestTag/KEY` and `aws:TagKeys` of the tags that a request brings, as key and value.
pub fn request_tags<'a>(
    key: &str,
    tags: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<Values<'a>> {
    let mut tags = tags.into_iter();
    if let Some(wanted) = key.strip_prefix("aws:requesttag/") {
        let found = tags.find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        return found.map(|(_, value)| Values::one(value));
    }
    tag_keys(key, tags.map(|(key, _)| key))
}

/// `aws:TagKeys` of the keys that a request names.
pub fn tag_keys<'a>(key: &str, keys: impl IntoIterator<Item = &'a str>) -> Option<Values<'a>> {
    if key != "aws:tagkeys" {
        return None;
    }
    let all: Vec<_> = keys.into_iter().map(Cow::Borrowed).collect();
    (!all.is_empty()).then_some(Values::Many(all))
}

/// A moment as `2026-01-31T12:00:00Z`.
pub fn iso(time: Time) -> String {
    let stamp = jiff::Timestamp::from_second(time.seconds()).unwrap_or(jiff::Timestamp::MAX);
    stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
