//! Judges recorded decisions again: with the policies as they are now, and with a proposed one in
//! place of one of them. Nothing is run and nothing recorded.
//!
//! What a request depended on and its record does not hold makes the judgement void, so every
//! condition key that is asked for is looked at first.

use super::explanation::Decided;
use super::proposal::Proposal;
use super::recorded::Recorded;
use crate::name::{Arn, Service};
use crate::ops::authority::{Standing, compile, last_part, standing, standing_with};
use crate::ops::call::{Call, NO_RESOURCE, OwnPolicy, Services, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene::{Scene, tag};
use crate::ops::{keys, secrets};
use crate::policy::document::Kind;
use crate::policy::{self, Caller, Facts, Policies, PrincipalKind, Values};
use crate::store::principals::Role;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What became of a decision under the proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// The proposal has nothing to do with it.
    Untouched,
    /// Decided; why it is denied, today and under the proposal.
    Decided {
        /// Today.
        now: Option<String>,
        /// Under the proposal.
        then: Option<String>,
    },
    /// The record does not tell enough.
    Unknown(String),
}

/// Judges records one after the other.
pub(super) struct Rehearsal<'a> {
    services: &'a Arc<Services>,
    proposal: &'a Proposal,
    standings: HashMap<String, Both>,
    /// Decisions that asked for no condition key: the same for each request.
    known: HashMap<[String; 4], Judged>,
}

/// A caller's standing today and under the proposal; none if the caller is gone.
type Both = Option<Arc<Standings>>;

struct Standings {
    now: Arc<Standing>,
    then: Arc<Standing>,
    /// They have the same policies.
    same: bool,
}

/// Callers and decisions that are remembered.
const REMEMBERED: usize = 65_536;

impl<'a> Rehearsal<'a> {
    pub(super) fn new(services: &'a Arc<Services>, proposal: &'a Proposal) -> Self {
        Self { services, proposal, standings: HashMap::new(), known: HashMap::new() }
    }

    /// Judges decision `at` of a record.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn judge(&mut self, recorded: &Recorded, at: usize) -> Result<Judged> {
        let Some(decided) = recorded.told.decisions.get(at) else { return Ok(Judged::Untouched) };
        // A session policy that denied then denies whatever this policy says.
        if decided.kind.as_deref() == Some("session policy") {
            return Ok(Judged::Untouched);
        }
        if let Proposal::Resource { arn, .. } = self.proposal
            && decided.resource != *arn
        {
            return Ok(Judged::Untouched);
        }
        let Some(standings) = self.standings(&recorded.caller)? else {
            return Ok(Judged::Unknown("the caller is no longer there".to_owned()));
        };
        if matches!(self.proposal, Proposal::Identity(_)) && standings.same {
            return Ok(Judged::Untouched);
        }
        let key = [
            recorded.caller.arn.clone(),
            decided.action.clone(),
            decided.resource.clone(),
            decided.effect.clone(),
        ];
        if let Some(judged) = self.known.get(&key) {
            return Ok(judged.clone());
        }
        let (judged, plain) =
            self.weigh(recorded, at, decided, [&standings.now, &standings.then])?;
        if plain && self.known.len() < REMEMBERED {
            self.known.insert(key, judged.clone());
        }
        Ok(judged)
    }

    /// The judgement, and whether it is good for every such request.
    fn weigh(
        &self,
        recorded: &Recorded,
        at: usize,
        decided: &Decided,
        [now, then]: [&Standing; 2],
    ) -> Result<(Judged, bool)> {
        let call = recorded.call(self.services);
        let Some(found) = find(&call, recorded, at, decided)? else {
            return Ok((Judged::Unknown("the resource is no longer there".to_owned()), false));
        };
        let target = &*found.target;
        let bringing = Bringing::of(recorded, at, decided);
        let own = target.policy()?;
        let proposed = self.proposal.own(target, target.policy()?);
        let heard = Heard::default();
        let refusal = |standing: &Standing, own: &OwnPolicy| {
            let scene = Scene { call: &call, standing, input: &bringing, target };
            let facts = Listening { scene, bringing: &bringing, bare: found.bare, heard: &heard };
            let request = policy::Request {
                caller: &call.caller,
                action: &decided.action,
                resource: target.arn(),
                owner: target.owner(),
                facts: &facts,
            };
            let policies = Policies {
                identity: &standing.identity,
                boundary: standing.boundary.as_deref(),
                resource: own.counted(),
            };
            Ok::<_, Error>(call.weigh(&request, &policies, target)?.refusal())
        };
        let (now, then) = (refusal(now, &own)?, refusal(then, &proposed)?);
        if let Some(missing) = heard.missing() {
            return Ok((Judged::Unknown(missing), false));
        }
        let limited = of_role(&recorded.caller) && decided.effect != "Allow";
        if limited && now.is_some() && then.is_none() {
            let text = "the session's own policies are not on record".to_owned();
            return Ok((Judged::Unknown(text), !heard.asked.get()));
        }
        let fill = |why: String| why.replace("{action}", &decided.action);
        let judged = Judged::Decided { now: now.map(fill), then: then.map(fill) };
        Ok((judged, !heard.asked.get() && found.lasting))
    }

    fn standings(&mut self, caller: &Caller) -> Result<Both> {
        let id = format!("{} {}", caller.principal_arn(), caller.principal_id);
        if let Some(both) = self.standings.get(&id) {
            return Ok(both.clone());
        }
        let records = &self.services.records;
        let both = match standing(records, caller) {
            Ok(now) => {
                let then = match self.proposal {
                    Proposal::Identity(instead) => {
                        Arc::new(standing_with(records, caller, instead)?)
                    }
                    Proposal::Resource { .. } => now.clone(),
                };
                let same = same(&now, &then);
                Some(Arc::new(Standings { now, then, same }))
            }
            Err(error) if error.condition == Condition::AccessDenied => None,
            Err(error) => return Err(error),
        };
        if self.standings.len() >= REMEMBERED {
            self.standings.clear();
        }
        self.standings.insert(id, both.clone());
        Ok(both)
    }
}

/// Whether it is the session of a role, which may have policies and tags of its own that are not on
/// record.
fn of_role(caller: &Caller) -> bool {
    caller.kind == PrincipalKind::AssumedRole
}

/// Whether two standings have the same policies.
fn same(now: &Standing, then: &Standing) -> bool {
    let policies = |standing: &Standing| {
        let all = standing.identity.iter().chain(&standing.boundary);
        all.map(|policy| (policy.name.clone(), policy.document().clone())).collect::<Vec<_>>()
    };
    policies(now) == policies(then)
}

/// The target of a decision.
struct Found {
    target: Box<dyn Target>,
    /// It stands for something of which no more than the ARN is known.
    bare: bool,
    /// It was there at the time of every request that may have meant it.
    lasting: bool,
}

/// Finds what a decision was about; none if it was there and is no longer.
fn find(call: &Call, recorded: &Recorded, at: usize, decided: &Decided) -> Result<Option<Found>> {
    let resource = decided.resource.as_str();
    let bare = |owner: &str, adds| Found {
        target: Box::new(Bare { arn: resource.to_owned(), owner: owner.to_owned(), adds }),
        bare: resource != NO_RESOURCE,
        lasting: true,
    };
    let Some(arn) = Arn::parse(resource).filter(|_| resource != NO_RESOURCE) else {
        return Ok(Some(bare(&call.caller.account, false)));
    };
    // What was not there when it was asked for had no policy.
    let missed = recorded.told.error_code.as_deref().is_some_and(|code| code.contains("NotFound"));
    if arn.service == "kms" && arn.resource.starts_with("key/") {
        let named = recorded.named("KeyId").filter(|_| at == 0);
        let by_name = named.and_then(|named| keys::locate(call, named).ok());
        let by_name = by_name.filter(|target| target.arn() == resource);
        let target = by_name.map_or_else(|| keys::locate(call, resource), Ok)?;
        let there = target.key().is_ok();
        let found = Found { target: Box::new(target), bare: false, lasting: there };
        return Ok((there || missed).then_some(found));
    }
    if arn.service == "secretsmanager" {
        let nothing = || Found { bare: false, lasting: !missed, ..bare(arn.account, true) };
        if resource.ends_with("-??????") {
            return Ok(Some(Found { lasting: true, ..nothing() }));
        }
        let target = secrets::locate(call, resource)?;
        let Ok(secret) = target.secret() else { return Ok(missed.then(nothing)) };
        // What the request itself made had neither policy nor tags when it was decided.
        if secret.created >= recorded.time {
            return Ok(Some(Found { lasting: true, ..nothing() }));
        }
        return Ok(Some(Found { target: Box::new(target), bare: false, lasting: true }));
    }
    if arn.service == "iam" && arn.resource.starts_with("role/") {
        let role = call.records.named::<Role>(arn.account, last_part(resource))?;
        let role = role.filter(|role| role.arn() == resource);
        let trusted = |role| Found { target: Box::new(Trusted(role)), bare: false, lasting: true };
        let assumed = call.row.service == Service::Sts;
        return Ok(match role {
            Some(role) if assumed => Some(trusted(RoleTarget { arn: resource.to_owned(), role })),
            None if assumed && !missed => None,
            _ => Some(bare(arn.account, false)),
        });
    }
    Ok(Some(bare(arn.account, false)))
}

/// A resource of which no more than its ARN is known.
struct Bare {
    arn: String,
    owner: String,
    /// It is of a kind that can have a policy which adds to identity policies.
    adds: bool,
}

impl Target for Bare {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.owner
    }
    fn policy(&self) -> Result<OwnPolicy> {
        Ok(if self.adds { OwnPolicy::Adds(None) } else { OwnPolicy::None })
    }
}

/// A role that somebody assumes.
struct RoleTarget {
    arn: String,
    role: Arc<Role>,
}

struct Trusted(RoleTarget);

impl Target for Trusted {
    fn arn(&self) -> &str {
        &self.0.arn
    }
    fn owner(&self) -> &str {
        &self.0.role.account
    }
    fn policy(&self) -> Result<OwnPolicy> {
        let Self(RoleTarget { arn, role }) = self;
        let compile = || compile(arn, &role.trust, Kind::Trust, &role.trust_holders);
        Ok(OwnPolicy::Rules(role.made.get_or(compile)?))
    }
    fn fact<'a>(&'a self, _: &'a Call, key: &str) -> Option<Values<'a>> {
        tag(&self.0.role.tags, key.strip_prefix("aws:resourcetag/")?)
    }
}

/// What a request brought to a decision.
enum Bringing {
    /// All that its input answers.
    Input(Box<dyn Facts>),
    /// What Secrets Manager says when it uses a key for a secret.
    Through {
        /// `secretsmanager.REGION.amazonaws.com`.
        via: String,
        /// The secret.
        secret: String,
    },
    /// It is not known.
    Nothing,
}

impl Bringing {
    fn of(recorded: &Recorded, at: usize, decided: &Decided) -> Self {
        let (row, decisions) = (recorded.row, &recorded.told.decisions);
        let own = decided.action.split_once(':').is_some_and(|(_, name)| name == row.action);
        if at == 0 && own {
            return recorded.facts().map_or(Self::Nothing, Self::Input);
        }
        let before = decisions.iter().take(at).rev().map(|decided| &decided.resource);
        let secret = before.into_iter().find(|resource| resource.contains(":secret:"));
        match secret {
            Some(secret) if decided.action.starts_with("kms:") => {
                let region = Arn::parse(secret).map_or("", |arn| arn.region);
                let via = format!("{}.{region}.amazonaws.com", Service::SecretsManager.prefix());
                Self::Through { via, secret: secret.clone() }
            }
            _ => Self::Nothing,
        }
    }
}

impl Facts for Bringing {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        match self {
            Self::Input(facts) => facts.fact(key),
            Self::Through { via, secret } => match key {
                "kms:viaservice" => Some(Values::one(via)),
                "kms:encryptioncontext:secretarn" => Some(Values::one(secret)),
                "aws:viaawsservice" => Some(Values::truth(true)),
                "kms:encryptioncontextkeys" => {
                    Some(Values::Many(vec!["SecretARN".into(), "SecretVersionId".into()]))
                }
                _ => None,
            },
            Self::Nothing => None,
        }
    }
}

/// Which condition keys were asked for.
#[derive(Default)]
struct Heard {
    asked: Cell<bool>,
    missing: RefCell<BTreeSet<String>>,
}

impl Heard {
    fn missing(&self) -> Option<String> {
        let missing = self.missing.borrow();
        let names: Vec<&str> = missing.iter().map(|key| key.trim_end_matches('\0')).collect();
        (!names.is_empty()).then(|| format!("the record does not hold {}", names.join(", ")))
    }
}

/// A scene that remembers what it was asked for.
struct Listening<'a> {
    scene: Scene<'a>,
    bringing: &'a Bringing,
    /// No more is known of the target than its ARN.
    bare: bool,
    heard: &'a Heard,
}

impl Facts for Listening<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        self.heard.asked.set(true);
        let value = self.scene.fact(key);
        if value.is_none() && !self.tells_of(key)
            || key.starts_with("aws:principaltag/") && of_role(&self.scene.call.caller)
        {
            self.heard.missing.borrow_mut().insert(key.to_owned());
        }
        value
    }
}

impl Listening<'_> {
    /// Whether a key that is not answered was not there in the request either.
    fn tells_of(&self, key: &str) -> bool {
        let of_request = key.starts_with("aws:requesttag/") || key == "aws:tagkeys";
        let of_resource = key.contains(":resourcetag/");
        if of_resource {
            return !self.bare;
        }
        // What was made of a key's name is not recorded.
        if matches!(key, "secretsmanager:kmskeyarn" | "kms:reencryptonsamekey") {
            return false;
        }
        key.starts_with("aws:") && !of_request || matches!(self.bringing, Bringing::Input(_))
    }
}
