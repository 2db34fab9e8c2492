//! The pipeline of one request: decode, check, locate, authorize, run, audit, encode.
//!
//! [`Allowed`] is the proof that the policy was asked; it can be made here only.

use super::authority::standing;
use super::error::{Condition, Error, Result};
use super::event::put_record;
use super::scene::Scene;
use super::shape::{self, Body, Checks, decode};
use super::sts::decode::encoded;
use super::verdict::Verdict;
use super::{Access, Input, Operation, Row};
use crate::audit::index::Index;
use crate::audit::{self, Record, Recorder, Source};
use crate::clock::{Time, World, quick_uuid};
use crate::custody::lane::on_behalf_of;
use crate::custody::tokens::Tokens;
use crate::envelope::{
    Envelopes, access_key::Mint, cache::DataKeys, message::Messages, session::Sessions,
};
use crate::json::Object;
use crate::name::{Arn, Service, Uuid};
use crate::policy::facts::NoFacts;
use crate::policy::{
    self, Caller, Decision, Facts, OfResource, Policies, Policy, PrincipalKind, Values, Vouched,
};
use crate::store::records::{Records, Rows};
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What every operation works with; one for the whole process.
pub struct Services {
    /// The region of this appliance.
    pub region: String,
    /// Documents.
    pub records: Records,
    /// Sealing and opening.
    pub envelopes: Envelopes,
    /// Opened data keys.
    pub data_keys: DataKeys,
    /// The tokens.
    pub tokens: Tokens,
    /// Records of what was done.
    pub recorder: Recorder,
    /// Where in the log they stand; none if it is switched off.
    pub index: Option<Arc<Index>>,
    /// Reads whose day is to be noted.
    pub accesses: super::secrets::accesses::Accesses,
    /// How far data keys are sealed to the holders of now.
    pub resealing: super::secrets::reseal::Progress,
    /// Rotations of secrets.
    pub rotations: super::secrets::rotate::Rotations,
    /// How many secrets are about to expire.
    pub expiring: super::secrets::expiry::Gauge,
    /// How receivers of events get on.
    pub deliveries: Vec<Arc<super::health::Delivery>>,
    /// Page tokens.
    pub pages: super::page::Pages,
    /// Makes temporary credentials.
    pub sessions: Sessions,
    /// Seals why requests are refused.
    pub messages: Messages,
    /// Makes access keys.
    pub mint: Mint,
    /// Uses of access keys that are to be noted.
    pub uses: super::iam::uses::Uses,
    /// Clock and randomness.
    pub world: World,
    /// The AWS code of a condition, as the door names it; for audit records.
    pub code_of: fn(&Row, Condition) -> &'static str,
}

/// What the door knows of a request besides its body.
pub struct Origin {
    /// The request id.
    pub request_id: Uuid,
    /// The caller's address.
    pub source_ip: IpAddr,
    /// `User-Agent`, cut to 256 bytes.
    pub user_agent: String,
    /// What TLS agreed on; none on a plain connection.
    pub tls: Option<audit::Tls>,
}

/// One request of a proven caller.
pub struct Call {
    /// What to work with.
    pub services: Arc<Services>,
    /// Which operation.
    pub row: &'static Row,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// When it came.
    pub now: Time,
    /// Where from.
    pub origin: Origin,
    /// What somebody else says of a caller without credentials.
    pub vouched: Option<Arc<Vouched>>,
    progress: Mutex<Progress>,
}

/// What is known of a request for its audit record.
#[derive(Default)]
struct Progress {
    resources: Vec<String>,
    parameters: Vec<u8>,
    response: Vec<u8>,
    decisions: Vec<u8>,
    refusal: Option<String>,
    recorded: bool,
}

impl std::ops::Deref for Call {
    type Target = Services;
    fn deref(&self) -> &Services {
        &self.services
    }
}

/// Something that policies speak of.
pub trait Target: Send {
    /// Its ARN; `*` where an action has no resource.
    fn arn(&self) -> &str;
    /// The account that owns it.
    fn owner(&self) -> &str;
    /// Whether the request names it by a ciphertext alone. A refusal then says neither which
    /// resource it is nor whether it is there.
    fn hidden(&self) -> bool {
        false
    }
    /// Whether nobody needs a right for it and no policy can take it away (GetCallerIdentity).
    fn free(&self) -> bool {
        false
    }
    /// The policy that the resource itself has.
    ///
    /// # Errors
    /// A stored policy that can't be compiled.
    fn policy(&self) -> Result<OwnPolicy> {
        Ok(OwnPolicy::None)
    }
    /// The value of a condition key that the resource answers (`aws:ResourceTag/...`,
    /// `kms:KeySpec`); `key` is in lower case.
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        let _ = (call, key);
        None
    }
    /// The id of a grant that allows what no policy does; asked only where nothing denies.
    ///
    /// # Errors
    /// Those of the database.
    fn granted(&self, call: &Call, request: &policy::Request<'_>) -> Result<Option<String>> {
        let _ = (call, request);
        Ok(None)
    }
}

/// A resource's own policy, as [`policy::OfResource`] counts it.
pub enum OwnPolicy {
    /// It can't have one.
    None,
    /// It adds to identity policies.
    Adds(Option<Arc<Policy>>),
    /// It has the last word.
    Rules(Arc<Policy>),
}

impl OwnPolicy {
    pub(super) fn counted(&self) -> OfResource<'_> {
        match self {
            Self::None => OfResource::None,
            Self::Adds(policy) => OfResource::Adds(policy.as_deref()),
            Self::Rules(policy) => OfResource::Rules(policy),
        }
    }
}

/// The ARN of a target that is none: what a policy names for actions without a resource.
pub const NO_RESOURCE: &str = "*";

/// The target of an action without a resource: the caller's own account.
pub struct OwnAccount(String);

impl OwnAccount {
    /// The account of this call's principal.
    pub fn of(call: &Call) -> Self {
        Self(call.caller.account.clone())
    }
}

impl Target for OwnAccount {
    fn arn(&self) -> &str {
        NO_RESOURCE
    }
    fn owner(&self) -> &str {
        &self.0
    }
}

/// A target that the caller may act on.
pub struct Allowed<T>(T);

impl<T> Allowed<T> {
    /// The target.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Allowed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl Call {
    /// A request that has come in.
    pub fn new(
        services: Arc<Services>,
        row: &'static Row,
        caller: Arc<Caller>,
        now: Time,
        origin: Origin,
    ) -> Self {
        Self { services, row, caller, now, origin, vouched: None, progress: Mutex::default() }
    }

    /// The same for a caller for whom somebody else vouches.
    #[must_use]
    pub fn vouched_by(self, vouched: Option<Arc<Vouched>>) -> Self {
        Self { vouched, ..self }
    }

    /// An operation that the appliance does by itself, as the account; the audit log names the
    /// service as its source, as for an [`Event`](super::event::Event).
    ///
    /// # Errors
    /// If there is no such operation, or no randomness.
    pub fn of_system(
        services: Arc<Services>,
        service: Service,
        operation: &str,
        account: &str,
    ) -> Result<Self> {
        let row = super::find(service, operation)
            .ok_or_else(|| Error::internal(format!("no operation is named {operation}")))?;
        let origin = Origin {
            request_id: quick_uuid(&*services.world.random)?,
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            user_agent: service.event_source().to_owned(),
            tls: None,
        };
        let now = services.world.clock.now();
        Ok(Self::new(services, row, Arc::new(Caller::system(account)), now, origin))
    }

    /// Asks the policies whether the caller may do `action` (without the service) to `target`: a
    /// second right besides the operation's own, in the same audit record.
    ///
    /// # Errors
    /// [`Condition::AccessDenied`], in AWS's words; those of the database.
    pub fn allow<T: Target>(&self, action: &str, target: T) -> Result<Allowed<T>> {
        self.allow_with(action, target, &NoFacts)
    }

    /// The same, where the request brings condition keys of its own.
    ///
    /// # Errors
    /// Those of [`Self::allow`].
    pub fn allow_with<T: Target>(
        &self,
        action: &str,
        target: T,
        input: &dyn Facts,
    ) -> Result<Allowed<T>> {
        if target.arn() != NO_RESOURCE {
            self.acted_on(target.arn());
        }
        if self.caller.kind == PrincipalKind::System || target.free() {
            return Ok(Allowed(target));
        }
        // A role is IAM's; what is done with it here is not.
        let service = match self.row.service {
            Service::Sts | Service::RolesAnywhere => Service::Sts.prefix(),
            own => service_of(target.arn()).unwrap_or(own.prefix()),
        };
        let action = [service, ":", action].concat();
        self.decide(&action, &target, input)?;
        Ok(Allowed(target))
    }

    fn decide(&self, action: &str, target: &dyn Target, input: &dyn Facts) -> Result<()> {
        let standing = standing(&self.records, &self.caller)?;
        let own = target.policy()?;
        let scene = Scene { call: self, standing: &standing, input, target };
        let request = policy::Request {
            caller: &self.caller,
            action,
            resource: target.arn(),
            owner: target.owner(),
            facts: &scene,
        };
        let policies = Policies {
            identity: &standing.identity,
            boundary: standing.boundary.as_deref(),
            resource: own.counted(),
        };
        let verdict = self.weigh(&request, &policies, target)?;
        self.decided(action, target.arn(), &verdict);
        match verdict.refusal() {
            None => Ok(()),
            Some(why) => {
                let shown = if target.hidden() { NO_RESOURCE } else { target.arn() };
                let message = match &verdict {
                    Verdict::Policy(decision) => encoded(self, &request, shown, decision),
                    Verdict::Grant(_) => None,
                };
                self.progress.lock().refusal = message.filter(|_| self.vouched.is_none());
                Err(self.denied(action, target, &why))
            }
        }
    }

    /// Asks something of the caller's request for `action` (with its service) on a target, as
    /// policies would see it: whether a policy that is about to be put would let it, say.
    ///
    /// # Errors
    /// Those of the database.
    pub fn foresee<T>(
        &self,
        action: &str,
        target: &dyn Target,
        question: impl FnOnce(&policy::Request<'_>) -> T,
    ) -> Result<T> {
        let standing = standing(&self.records, &self.caller)?;
        let facts = Scene { call: self, standing: &standing, input: &NoFacts, target };
        let (caller, resource, owner) = (&*self.caller, target.arn(), target.owner());
        Ok(question(&policy::Request { caller, action, resource, owner, facts: &facts }))
    }

    /// Why the policies refused the request, sealed: DecodeAuthorizationMessage opens it.
    pub fn authorization_message(&self) -> Option<String> {
        self.progress.lock().refusal.take()
    }

    /// What policies and grants say; nothing is noted and nobody refused.
    pub(super) fn weigh<'a>(
        &self,
        request: &policy::Request<'a>,
        policies: &Policies<'a>,
        target: &dyn Target,
    ) -> Result<Verdict<'a>> {
        let decision = policy::decide(request, policies);
        // Of an account's own credentials that session policies bound none is a grantee.
        if let Decision::ImplicitDeny(source) = decision
            && !(source == policy::Source::Session && self.caller.kind == PrincipalKind::Root)
            && let Some(grant) = target.granted(self, request)?
        {
            return Ok(Verdict::Grant(grant));
        }
        Ok(Verdict::Policy(decision))
    }

    fn denied(&self, action: &str, target: &dyn Target, why: &str) -> Error {
        if self.vouched.is_some() {
            let text = format!("Not authorized to perform {action}");
            return Error::new(Condition::AccessDenied, text);
        }
        let what = if self.row.service == Service::Sts && !why.contains("explicit deny") {
            // STS does not say what is missing.
            format!("resource: {}", target.arn())
        } else if target.hidden() {
            "the resource associated with this ciphertext because the resource does not exist in \
             this Region, no resource-based policies allow access, or a resource-based policy \
             explicitly denies access"
                .to_owned()
        } else {
            let resource = target.arn();
            format!("resource: {resource} {}", why.replace("{action}", action))
        };
        let who = &self.caller.arn;
        let text = format!("User: {who} is not authorized to perform: {action} on {what}");
        Error::new(Condition::AccessDenied, text)
    }

    /// Notes a decision in the request's audit record: what decided, down to the statement.
    fn decided(&self, action: &str, resource: &str, verdict: &Verdict<'_>) {
        let decisions = &mut self.progress.lock().decisions;
        if !decisions.is_empty() {
            decisions.push(b',');
        }
        let mut object = Object::begin(decisions);
        object.text("action", action).text("resource", resource);
        verdict.write(&mut object);
        object.end();
    }

    /// Notes a resource in the request's audit record: one that was just made, say.
    pub fn acted_on(&self, arn: &str) {
        let resources = &mut self.progress.lock().resources;
        if !resources.iter().any(|known| known == arn) {
            resources.push(arn.to_owned());
        }
    }

    /// Notes the input in the request's audit record, without what is secret in it.
    fn took(&self, body: &[u8]) {
        if let Some(plan) = self.row.input_plan() {
            plan.copy(body, &mut self.progress.lock().parameters);
        }
    }

    /// Notes the answer of a change in its audit record, without what is secret in it: called
    /// before [`Self::commit`], which writes the record.
    ///
    /// # Errors
    /// An output that can't be written is a fault of ours.
    pub fn answering<O: serde::Serialize>(&self, output: &O) -> Result<()> {
        let body = shape::encode(output)?.into_secret();
        if let Some(plan) = self.row.output_plan() {
            let response = &mut self.progress.lock().response;
            response.clear();
            plan.copy(body.expose(), response);
        }
        Ok(())
    }

    /// Changes the store. The audit record of the change commits with it, so that there is no
    /// change without a record and no record without the change; the answer waits for both.
    pub async fn commit<T: Send + 'static>(
        &self,
        mut change: impl FnMut(&mut Rows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.recorder.ready()?;
        let record = self.record(&self.progress.lock(), None)?.encode();
        let region = self.region.clone();
        let done = self
            .records
            .write(move |rows| {
                let value = change(rows)?;
                put_record(rows, &region, &record)?;
                Ok::<_, Error>(value)
            })
            .await?;
        self.progress.lock().recorded = true;
        Ok(done)
    }

    /// The request's audit record.
    fn record<'a>(
        &'a self,
        progress: &'a Progress,
        error: Option<(&'a str, &'a str)>,
    ) -> Result<Record<'a>> {
        Ok(Record {
            time: self.now,
            service: Some(self.row.service),
            operation: self.row.name,
            read_only: self.row.access == Access::Read,
            region: &self.region,
            caller: Some(&self.caller),
            source: self.source(),
            user_agent: &self.origin.user_agent,
            request_id: self.origin.request_id,
            event_id: quick_uuid(&*self.world.random)?,
            tls: self.origin.tls,
            parameters: &progress.parameters,
            response: if error.is_none() { &progress.response } else { b"" },
            decisions: &progress.decisions,
            resources: &progress.resources,
            error,
        })
    }

    /// Whether the door knows who calls: not where an operation that needs no signature is asked
    /// with nothing that proves anything.
    fn is_of_somebody(&self) -> bool {
        !self.row.unsigned || self.vouched.is_some()
    }

    fn source(&self) -> Source {
        match self.caller.kind {
            PrincipalKind::System => Source::Service(Some(self.row.service)),
            PrincipalKind::Root
            | PrincipalKind::User
            | PrincipalKind::AssumedRole
            | PrincipalKind::WebIdentity
            | PrincipalKind::Certificate => Source::Address(self.origin.source_ip),
        }
    }

    /// Notes that a long-term access key was used.
    fn note_use(&self) {
        if let (Some(id), None) = (&self.caller.access_key_id, &self.caller.session) {
            self.uses.note(id, self.now, self.row.service);
        }
    }

    /// Sees to it that the request stands in the audit log, whatever became of it.
    async fn account_for(&self, outcome: &Result<Body>) -> Result<()> {
        if self.progress.lock().recorded && outcome.is_ok() {
            return Ok(());
        }
        let error = outcome.as_ref().err();
        let error = error.map(|e| ((self.code_of)(self.row, e.condition), e.message.as_ref()));
        if !self.is_of_somebody() {
            // At a stranger's rate, or nonsense could fill the disk.
            let progress = self.progress.lock();
            return Ok(self.recorder.append_now(&self.record(&progress, error)?)?);
        }
        let line = self.record(&self.progress.lock(), error)?.encode();
        Ok(self.recorder.append_line(&line).await?)
    }
}

/// The service in an ARN.
fn service_of(arn: &str) -> Option<&str> {
    Arn::parse(arn).map(|a| a.service)
}

/// Runs an operation from its JSON body to its JSON answer.
pub(super) async fn run<O: Operation>(call: &Call, body: &[u8]) -> Result<Body> {
    // Sessions of one role are one caller to the tokens.
    let session = call.caller.session.as_ref();
    let caller = session.map_or(&call.caller.arn, |session| &session.issuer_arn);
    let outcome = on_behalf_of(caller, steps::<O>(call, body)).await;
    call.note_use();
    call.account_for(&outcome).await?;
    outcome
}

async fn steps<O: Operation>(call: &Call, body: &[u8]) -> Result<Body> {
    let input: O::Input = decode(body)?;
    call.took(body);
    let mut checks = Checks::default();
    input.check(&mut checks);
    checks.finish()?;
    let target = O::locate(call, &input).await?;
    let target = call.allow_with(O::ACTION, target, &Brought(&input))?;
    let output = O::run(call, target, input).await?;
    O::encode(&output)
}

/// The condition keys that an input answers.
pub(super) struct Brought<'a, I>(pub(super) &'a I);

impl<I: Input> Facts for Brought<'_, I> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        self.0.fact(key)
    }
}

/// The condition keys that the input in a JSON body answers.
pub(super) fn facts<O: Operation>(body: &[u8]) -> Result<Box<dyn Facts>> {
    struct Held<I>(I);
    impl<I: Input> Facts for Held<I> {
        fn fact(&self, key: &str) -> Option<Values<'_>> {
            self.0.fact(key)
        }
    }
    let input: O::Input = decode(body)?;
    Ok(Box::new(Held(input)))
}
