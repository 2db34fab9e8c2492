//! The decision: which statements apply to a request, and what follows from them.
//!
//! The order is AWS's. An explicit denial anywhere wins
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html>).
//! Within an account one allowance is enough, of an identity policy or of the resource's own
//! policy, and boundary and session policies must allow too; what a resource's policy grants to a
//! user or session by its own ARN they do not limit. Across accounts both sides must allow
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic-cross-account.html>).

use super::compiled::{Action, Statement, service_bit};
use super::document::{Effect, Principal, Principals};
use super::{
    Caller, Decision, OfResource, Policies, Policy, PrincipalKind, Reason, Request, Source,
};
use std::sync::Arc;

/// The service that speaks for holders of certificates.
const ROLES_ANYWHERE: &str = "rolesanywhere.amazonaws.com";

/// Decides.
pub fn decide<'a>(request: &Request<'a>, policies: &Policies<'a>) -> Decision<'a> {
    match ask(request, |asked| asked.decide(policies)) {
        Ok(reason) => Decision::Allow(reason),
        Err(Refusal::Denied(reason)) => Decision::ExplicitDeny(reason),
        Err(Refusal::Lacks(source)) => Decision::ImplicitDeny(source),
    }
}

/// Whether a resource's policy forbids a request.
pub(super) fn denies(policy: &Policy, request: &Request<'_>) -> bool {
    ask(request, |asked| asked.granted(policy).is_err())
}

/// Whether a resource's policy allows a request to the caller or its account, and does not forbid it.
pub(super) fn grants(policy: &Policy, request: &Request<'_>) -> bool {
    ask(request, |asked| matches!(asked.granted(policy), Ok(Some(_))))
}

/// Makes a request ready and asks something of it.
fn ask<'a, T>(request: &Request<'a>, question: impl FnOnce(&Asked<'_, 'a>) -> T) -> T {
    let mut buffer = [0; 128];
    let lower;
    let name = match lower_case(request.action, &mut buffer) {
        Some(name) => name,
        None => {
            lower = request.action.to_ascii_lowercase();
            &lower
        }
    };
    question(&Asked { request, action: Action { name, service: service_bit(name) } })
}

/// A text in lower case, in a buffer; none if it is too long for it.
fn lower_case<'b>(text: &str, buffer: &'b mut [u8]) -> Option<&'b str> {
    let place = buffer.get_mut(..text.len())?;
    place.copy_from_slice(text.as_bytes());
    place.make_ascii_lowercase();
    std::str::from_utf8(place).ok()
}

/// Why not.
enum Refusal<'a> {
    /// This statement forbids it.
    Denied(Reason<'a>),
    /// Nothing of this kind allows it.
    Lacks(Source),
}

/// How much a resource's policy grants to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grant {
    /// To the caller's account: what that hands on to the caller.
    Account,
    /// To the caller's role, or to everybody: as far as boundary and session policies go.
    Limited,
    /// To the caller by its own ARN: all of it.
    Direct,
}

/// A request, ready to be compared.
struct Asked<'r, 'a> {
    request: &'r Request<'a>,
    action: Action<'r>,
}

impl<'a> Asked<'_, 'a> {
    fn decide(&self, policies: &Policies<'a>) -> Result<Reason<'a>, Refusal<'a>> {
        let caller = self.request.caller;
        if caller.kind == PrincipalKind::System {
            return Ok(by_right());
        }
        let identity = self.first_of(policies.identity, Source::Identity)?;
        let boundary = policies.boundary.map(|p| self.one(p, Source::Boundary)).transpose()?;
        let sessions = caller.session.as_deref().map_or(&[][..], |session| &session.policies);
        let session = self.first_of(sessions, Source::Session)?;
        let own = match policies.resource {
            OfResource::None | OfResource::Adds(None) => None,
            OfResource::Adds(Some(policy)) | OfResource::Rules(policy) => self.granted(policy)?,
        };
        let limits = Limits {
            identity: identity.or_else(|| (caller.kind == PrincipalKind::Root).then(by_right)),
            boundary: boundary.is_none_or(|allows| allows.is_some()),
            session: sessions.is_empty() || session.is_some(),
        };
        self.weigh(policies.resource, own, &limits)
    }

    /// What follows where nothing is denied.
    fn weigh(
        &self,
        resource: OfResource<'a>,
        own: Option<(Grant, Reason<'a>)>,
        limits: &Limits<'a>,
    ) -> Result<Reason<'a>, Refusal<'a>> {
        let caller = self.request.caller;
        let at_home = !caller.account.is_empty() && caller.account == self.request.owner;
        let grant = own.as_ref().map(|(grant, _)| *grant);
        match (own, resource) {
            // Who has no identity here needs none where a trust policy names its provider.
            (Some((Grant::Direct, reason)), _) if at_home || has_no_identity(caller) => {
                Ok(limits.let_pass(limits.identity).unwrap_or(reason))
            }
            (None, OfResource::Rules(_)) => Err(Refusal::Lacks(Source::Resource)),
            (None, _) if !at_home => Err(Refusal::Lacks(Source::Resource)),
            (Some((_, reason)), _) if at_home && grant >= Some(Grant::Limited) => {
                limits.let_pass(limits.identity.or(Some(reason)))
            }
            _ => limits.let_pass(limits.identity),
        }
    }

    /// The first allowance of several policies, unless one of them denies.
    fn first_of(
        &self,
        policies: &'a [Arc<Policy>],
        source: Source,
    ) -> Result<Option<Reason<'a>>, Refusal<'a>> {
        let mut first = None;
        for policy in policies {
            let found = self.one(policy, source)?;
            first = first.or(found);
        }
        Ok(first)
    }

    /// The first allowance of a policy that names no principals, unless it denies.
    fn one(&self, policy: &'a Policy, source: Source) -> Result<Option<Reason<'a>>, Refusal<'a>> {
        let mut first = None;
        for (statement, at) in self.speaking(policy) {
            if first.is_some() && statement.effect == Effect::Allow
                || !statement.applies(self.request.facts)
            {
                continue;
            }
            let reason = Reason { source, policy: Some(policy), statement: at };
            match statement.effect {
                Effect::Deny => return Err(Refusal::Denied(reason)),
                Effect::Allow => first = Some(reason),
            }
        }
        Ok(first)
    }

    /// The widest grant of a resource's policy, unless it denies.
    fn granted(&self, policy: &'a Policy) -> Result<Option<(Grant, Reason<'a>)>, Refusal<'a>> {
        let mut widest: Option<(Grant, Reason<'a>)> = None;
        for (statement, at) in self.speaking(policy) {
            let Some(principals) = &statement.principals else { continue };
            let reason = Reason { source: Source::Resource, policy: Some(policy), statement: at };
            match statement.effect {
                Effect::Deny => {
                    if denied(principals, self.request.caller)
                        && statement.applies(self.request.facts)
                    {
                        return Err(Refusal::Denied(reason));
                    }
                }
                Effect::Allow => {
                    let grant = grant(principals, self.request.caller);
                    let known = widest.as_ref().map(|(grant, _)| *grant);
                    if let Some(grant) = grant.filter(|grant| Some(*grant) > known)
                        && statement.applies(self.request.facts)
                    {
                        widest = Some((grant, reason));
                    }
                }
            }
        }
        Ok(widest)
    }

    /// The statements of a policy that speak of this action on this resource.
    fn speaking(&self, policy: &'a Policy) -> impl Iterator<Item = (&'a Statement, usize)> {
        let may = policy.services & self.action.service != 0;
        let statements: &'a [Statement] = if may { &policy.statements } else { &[] };
        let (resource, facts) = (self.request.resource, self.request.facts);
        let speaks = move |(at, statement): (usize, &'a Statement)| {
            statement.speaks_of(&self.action, resource, facts).then_some((statement, at))
        };
        statements.iter().enumerate().filter_map(speaks)
    }
}

/// What the caller's side lets pass.
struct Limits<'a> {
    identity: Option<Reason<'a>>,
    boundary: bool,
    session: bool,
}

impl<'a> Limits<'a> {
    /// An allowance, if boundary and session policies allow too.
    fn let_pass(&self, allowed: Option<Reason<'a>>) -> Result<Reason<'a>, Refusal<'a>> {
        match allowed {
            None => Err(Refusal::Lacks(Source::Identity)),
            Some(_) if !self.boundary => Err(Refusal::Lacks(Source::Boundary)),
            Some(_) if !self.session => Err(Refusal::Lacks(Source::Session)),
            Some(reason) => Ok(reason),
        }
    }
}

/// The reason of whoever needs no policy.
fn by_right<'a>() -> Reason<'a> {
    Reason { source: Source::Identity, policy: None, statement: 0 }
}

/// Whether a caller has proved who it is and is no principal of an account yet.
fn has_no_identity(caller: &Caller) -> bool {
    matches!(caller.kind, PrincipalKind::WebIdentity | PrincipalKind::Certificate)
}

/// What a statement that allows grants to a caller by naming it.
pub(super) fn grant(principals: &Principals, caller: &Caller) -> Option<Grant> {
    if principals.negated {
        let named = principals.list.iter().any(|principal| names(principal, caller));
        return (!named && !has_no_identity(caller)).then_some(Grant::Limited);
    }
    principals.list.iter().filter_map(|principal| grant_of_one(principal, caller)).max()
}

fn grant_of_one(principal: &Principal, caller: &Caller) -> Option<Grant> {
    if !names(principal, caller) {
        return None;
    }
    match principal {
        Principal::Account(_) if !is_whole_account(caller) => Some(Grant::Account),
        // Everybody who has credentials: an identity provider is trusted by its name alone.
        Principal::Everyone if has_no_identity(caller) => None,
        Principal::Everyone => Some(Grant::Limited),
        Principal::Arn(_) | Principal::Unique(_) if !is_itself(principal, caller) => {
            Some(Grant::Limited)
        }
        _ => Some(Grant::Direct),
    }
}

/// Whether a caller is the account itself. With session policies it is a part of it alone: what is
/// granted to the account is bounded by them.
fn is_whole_account(caller: &Caller) -> bool {
    let bounded = caller.session.as_ref().is_some_and(|session| !session.policies.is_empty());
    caller.kind == PrincipalKind::Root && !bounded
}

/// Whether a principal is the caller, or more than it.
fn names(principal: &Principal, caller: &Caller) -> bool {
    match principal {
        Principal::Everyone => true,
        Principal::Account(account) => !has_no_identity(caller) && *account == caller.account,
        Principal::Arn(_) | Principal::Unique(_) => {
            !has_no_identity(caller)
                && (is_itself(principal, caller) || is_issuer(principal, caller))
        }
        Principal::Service(name) => {
            caller.kind == PrincipalKind::Certificate && name == ROLES_ANYWHERE
        }
        Principal::Federated(provider) => {
            caller.kind == PrincipalKind::WebIdentity && *provider == caller.arn
        }
    }
}

/// Whether a principal is the user or the session that calls.
fn is_itself(principal: &Principal, caller: &Caller) -> bool {
    is(principal, &caller.arn, &caller.principal_id)
}

/// Whether a principal is the user or the role whose policies count for the caller.
fn is_issuer(principal: &Principal, caller: &Caller) -> bool {
    is(principal, caller.principal_arn(), caller.unique_id())
}

fn is(principal: &Principal, arn: &str, id: &str) -> bool {
    match principal {
        Principal::Arn(named) => named == arn,
        Principal::Unique(named) => named == id,
        _ => false,
    }
}

/// Whether a statement that denies means a caller.
///
/// `NotPrincipal` lets pass whom it names at every level: the account, then the user or role, then
/// the session if one of that role's is named
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notprincipal.html>).
pub(super) fn denied(principals: &Principals, caller: &Caller) -> bool {
    let list = &principals.list;
    if !principals.negated || has_no_identity(caller) {
        return principals.negated != list.iter().any(|principal| names(principal, caller));
    }
    if list.contains(&Principal::Everyone) {
        return false;
    }
    let account = list.iter().any(|p| matches!(p, Principal::Account(a) if *a == caller.account));
    !account || caller.kind != PrincipalKind::Root && !spared(list, caller)
}

/// Whether a list of exceptions names a user, or a role and not only others of its sessions.
fn spared(list: &[Principal], caller: &Caller) -> bool {
    let itself = list.iter().any(|principal| is_itself(principal, caller));
    if caller.arn == caller.principal_arn() {
        return itself;
    }
    // arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION, AROA...:SESSION
    let role = caller.arn.rsplit_once('/').map_or("", |(role, _)| role);
    let is_session = |principal: &Principal| match principal {
        Principal::Arn(arn) => arn.rsplit_once('/').is_some_and(|(before, _)| before == role),
        Principal::Unique(id) => {
            id.split_once(':').is_some_and(|(before, _)| before == caller.unique_id())
        }
        _ => false,
    };
    let issuer = list.iter().any(|principal| is_issuer(principal, caller));
    issuer && (itself || !list.iter().any(is_session))
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, Kind, parse};
    use super::*;
    use crate::policy::Session;

    const USER: &str = "arn:aws:iam::111122223333:user/ada";
    const ROLE: &str = "arn:aws:iam::111122223333:role/app";
    const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/app/one";

    /// A statement about these principals, tied to those who have the ARNs first.
    fn tied(element: &str, arns: &[&str]) -> Principals {
        let text = serde_json::json!({"Statement": {
            "Effect": "Deny", element: {"AWS": arns}, "Action": "*", "Resource": "*",
        }});
        let document = parse(&text.to_string(), Kind::Resource);
        let mut document: Document = document.expect("a policy");
        let ids = [(USER, "AIDA1"), (ROLE, "AROA1"), (SESSION, "AROA1:one")];
        document.tie(|arn| ids.iter().find(|(known, _)| *known == arn).map(|(_, id)| *id));
        document.statements.remove(0).principals.expect("principals")
    }

    fn session(role_id: &str) -> Caller {
        let session = Session {
            issuer_arn: ROLE.to_owned(),
            issuer_id: role_id.to_owned(),
            name: "one".to_owned(),
            policies: Vec::new(),
            tags: Vec::new(),
            transitive: Vec::new(),
            issued: crate::clock::Time(0),
            expires: crate::clock::Time(1),
            source_identity: None,
            provider: None,
            chained: false,
        };
        Caller {
            kind: PrincipalKind::AssumedRole,
            session: Some(Arc::new(session)),
            ..Caller::user("111122223333", SESSION, &format!("{role_id}:one"))
        }
    }

    #[test]
    fn an_account_that_session_policies_bound_gets_no_more_than_they_allow() {
        let root = "arn:aws:iam::111122223333:root";
        let account = tied("Principal", &[root]);
        let text = r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
        let document = parse(text, Kind::Session).expect("a policy");
        let policy = Arc::new(Policy::compile("p".to_owned(), document));
        let whole = Session {
            policies: Vec::new(),
            ..(**session("A").session.as_ref().expect("one")).clone()
        };
        let bounded = Session { policies: vec![policy], ..whole.clone() };
        let of = |session: Session| Caller {
            kind: PrincipalKind::Root,
            session: Some(Arc::new(session)),
            ..Caller::user("111122223333", root, "111122223333")
        };
        assert_eq!(grant(&account, &of(whole)), Some(Grant::Direct));
        assert_eq!(grant(&account, &of(bounded)), Some(Grant::Account));
    }

    #[test]
    fn who_was_named_is_meant_and_not_who_has_the_name_after_it() {
        let named = |arn: &str| tied("Principal", &[arn]);
        let user = |id: &str| Caller::user("111122223333", USER, id);
        assert_eq!(grant(&named(USER), &user("AIDA1")), Some(Grant::Direct));
        assert_eq!(grant(&named(USER), &user("AIDA2")), None);
        assert!(denied(&named(USER), &user("AIDA1")) && !denied(&named(USER), &user("AIDA2")));
        let renamed = Caller::user("111122223333", "arn:aws:iam::111122223333:user/eve", "AIDA1");
        assert_eq!(grant(&named(USER), &renamed), Some(Grant::Direct));
        assert_eq!(grant(&named(ROLE), &session("AROA1")), Some(Grant::Limited));
        assert_eq!(grant(&named(SESSION), &session("AROA1")), Some(Grant::Direct));
        for arn in [ROLE, SESSION] {
            assert_eq!(grant(&named(arn), &session("AROA2")), None);
        }
    }

    #[test]
    fn exceptions_are_for_who_was_named_too() {
        let account = "111122223333";
        let spared = |arns: &[&str], caller: &Caller| {
            let all: Vec<&str> = arns.iter().copied().chain([account]).collect();
            !denied(&tied("NotPrincipal", &all), caller)
        };
        assert!(spared(&[USER], &Caller::user(account, USER, "AIDA1")));
        assert!(!spared(&[USER], &Caller::user(account, USER, "AIDA2")));
        assert!(spared(&[ROLE], &session("AROA1")) && !spared(&[ROLE], &session("AROA2")));
        assert!(spared(&[ROLE, SESSION], &session("AROA1")));
        assert!(!spared(&[ROLE, SESSION], &session("AROA2")));
        let mut other = session("AROA1");
        (other.arn, other.principal_id) = (SESSION.replace("one", "two"), "AROA1:two".to_owned());
        assert!(spared(&[ROLE], &other) && !spared(&[ROLE, SESSION], &other));
    }
}
