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
        Principal::Account(_) if caller.kind != PrincipalKind::Root => Some(Grant::Account),
        // Everybody who has credentials: an identity provider is trusted by its name alone.
        Principal::Everyone if has_no_identity(caller) => None,
        Principal::Everyone => Some(Grant::Limited),
        Principal::Arn(arn) if *arn != caller.arn => Some(Grant::Limited),
        _ => Some(Grant::Direct),
    }
}

/// Whether a principal is the caller, or more than it.
fn names(principal: &Principal, caller: &Caller) -> bool {
    match principal {
        Principal::Everyone => true,
        Principal::Account(account) => !has_no_identity(caller) && *account == caller.account,
        Principal::Arn(arn) => {
            !has_no_identity(caller) && (*arn == caller.arn || *arn == caller.principal_arn())
        }
        Principal::Service(name) => {
            caller.kind == PrincipalKind::Certificate && name == ROLES_ANYWHERE
        }
        Principal::Federated(provider) => {
            caller.kind == PrincipalKind::WebIdentity && *provider == caller.arn
        }
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
    let named =
        |wanted: &str| list.iter().any(|p| matches!(p, Principal::Arn(arn) if arn == wanted));
    if caller.arn == caller.principal_arn() {
        return named(&caller.arn);
    }
    // arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION
    let role = caller.arn.rsplit_once('/').map_or("", |(role, _)| role);
    let of_role = |arn: &String| arn.rsplit_once('/').is_some_and(|(before, _)| before == role);
    let sessions = list.iter().any(|p| matches!(p, Principal::Arn(arn) if of_role(arn)));
    named(caller.principal_arn()) && (!sessions || named(&caller.arn))
}
