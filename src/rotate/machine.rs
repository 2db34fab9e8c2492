//! One rotation from step to step: createSecret, setSecret, testSecret, finishSecret. Each step is
//! written before it is done, and what was done before the next one.

use super::function::database::{Database, Users};
use super::function::{Event, Failure, lambda, password, program, ssh_key};
use super::inside::Inside;
use super::login::{Entry, Opens};
use crate::clock::random_uuid;
use crate::json::Object;
use crate::name::{Service, secret_arn};
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::event::Event as Noted;
use crate::ops::secrets::rotate::function_for;
use crate::ops::secrets::rotate::functions::{BuiltIn, Function};
use crate::ops::secrets::rotate::held::{self, Fate, Held};
use crate::store::records::Rows;
use crate::store::rotations::Step;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a rotation is left alone that the database could not be told of.
const FAULT: Duration = Duration::from_secs(5);
/// How long AWSCURRENT alone has to be let in, without an attempt, until AWSPENDING goes, in
/// milliseconds. Built-in functions wait 30 s for an answer; any other may go on by itself for as long
/// as Lambda lets one run.
const QUIET: (i64, i64) = (60_000, 15 * 60_000);
/// The most characters of what a function says that are passed on.
const SAYING: usize = 500;
/// Members of a database secret that are no secret, in AWS's documented structure.
const PLAIN: [&str; 8] = [
    "engine",
    "host",
    "port",
    "username",
    "dbname",
    "masterarn",
    "dbInstanceIdentifier",
    "dbClusterIdentifier",
];
/// Why a rotation that went well does not end.
const MOVED: &str = "AWSCURRENT was moved while the rotation ended";
/// Shorter texts are found anywhere.
const SHORTEST: usize = 4;

/// Works on a rotation that is due until it has ended or has to wait.
pub(super) async fn work(services: &Arc<Services>, owner: &str, uid: i64) {
    match drive(services, owner, uid).await {
        Ok(()) => {}
        // Cancelled, or the secret is gone.
        Err(error) if error.condition == Condition::Conflict => {}
        Err(error) => {
            tracing::error!(%error, "a rotation waits");
            tokio::time::sleep(FAULT).await;
        }
    }
}

async fn drive(services: &Arc<Services>, owner: &str, uid: i64) -> Result<()> {
    let Some(held) = take(services, owner, uid).await? else { return Ok(()) };
    let mut work = Work::on(services, held);
    if held::may_end(&work.held.progress, services.world.clock.now()) {
        if work.current_alone_lets_in().await {
            return if work.held.progress.settling {
                work.end().await
            } else {
                work.look_again().await
            };
        }
        work.held.progress.settling = false;
    }
    loop {
        let went_on = match work.step_held().await? {
            Ok(()) => work.done().await?,
            Err(failure) => Err(failure),
        };
        match went_on {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(failure) => return work.failed(failure).await,
        }
    }
}

/// Notes that a rotation in this process's hands broke off by a fault of ours.
pub(super) async fn broke_off(services: &Arc<Services>, owner: &str, uid: i64) -> Result<()> {
    let Some(rotation) = services.records.rotation(uid)? else { return Ok(()) };
    let ours = rotation.lease.as_ref().is_some_and(|lease| lease.owner == owner);
    let progress = rotation.progress.clone().filter(|_| ours);
    let secret = services.records.secret(&rotation.account, &rotation.name)?;
    let (Some(progress), Some(secret)) = (progress, secret) else { return Ok(()) };
    let held = Held { rotation: (*rotation).clone(), progress, suffix: secret.suffix.clone() };
    let why = "a fault of Strongroom's own, of which its log has more";
    Work::on(services, held).failed(Failure::passing(why)).await
}

/// Takes the rotation; a rotation's start stands in the audit log.
async fn take(services: &Arc<Services>, owner: &str, uid: i64) -> Result<Option<Held>> {
    let now = services.world.clock.now();
    let Some(rotation) = services.records.rotation(uid)? else { return Ok(None) };
    let token = random_uuid(&*services.world.random)?;
    let owner = owner.to_owned();
    let change = move |rows: &mut Rows<'_>| held::take(rows, uid, (&owner, &token), now);
    let begins = match &rotation.progress {
        Some(progress) => (!progress.noted).then_some(progress.trial),
        None => rotation.next.map(|_| false),
    };
    let secret = services.records.secret(&rotation.account, &rotation.name)?;
    let secret = secret.filter(|secret| secret.deleted.is_none());
    let (Some(trial), Some(secret)) = (begins, secret) else {
        return services.records.write(change).await;
    };
    let event = Noted {
        service: Service::SecretsManager,
        name: if trial { "TestRotationStarted" } else { "RotationStarted" },
        account: rotation.account.clone(),
        resources: vec![secret_arn(
            &services.region,
            &secret.account,
            &secret.name,
            &secret.suffix,
        )],
    };
    // What does not begin after all has no record.
    let over = || Error::new(Condition::Conflict, "the rotation is not due any more");
    let begin = move |rows: &mut Rows<'_>| change(rows)?.ok_or_else(over);
    services.commit_event(&event, begin).await.map(Some)
}

/// A rotation in hand.
struct Work<'a> {
    services: &'a Arc<Services>,
    arn: String,
    held: Held,
}

impl<'a> Work<'a> {
    fn on(services: &'a Arc<Services>, held: Held) -> Self {
        let (rotation, suffix) = (&held.rotation, &held.suffix);
        let arn = secret_arn(&services.region, &rotation.account, &rotation.name, suffix);
        Self { services, arn, held }
    }
}

impl Work<'_> {
    fn inside(&self) -> Inside<'_> {
        Inside { services: self.services, account: &self.held.rotation.account, arn: &self.arn }
    }

    /// Has the step done that is next, and says meanwhile that somebody is at it. If the rotation
    /// goes into other hands the step is broken off.
    async fn step_held(&self) -> Result<std::result::Result<(), Failure>> {
        let mut step = Box::pin(self.step());
        loop {
            if let Ok(done) = tokio::time::timeout(held::RENEWAL, &mut step).await {
                return Ok(done);
            }
            let (held, now) = (self.held.clone(), self.services.world.clock.now());
            let renew = move |rows: &mut Rows<'_>| held::renew(rows, &held, now);
            match self.services.records.write(renew).await {
                Err(error) if error.condition == Condition::Conflict => return Err(error),
                Err(error) => tracing::warn!(%error, "a rotation's lease could not be renewed"),
                Ok(()) => {}
            }
        }
    }

    /// Has the step done that is next.
    async fn step(&self) -> std::result::Result<(), Failure> {
        let progress = &self.held.progress;
        if progress.trial {
            self.borrow_current().await?;
        }
        let rotation_token = random_uuid(&*self.services.world.random).map_err(Error::from)?;
        let event = Event {
            step: progress.step,
            secret_arn: &self.arn,
            client_request_token: &progress.token,
            rotation_token: &rotation_token,
        };
        self.invoke(&event).await?;
        if progress.step == Step::Create && !self.has_pending()? {
            return Err(Failure::passing("createSecret has ended and AWSPENDING has no value"));
        }
        Ok(())
    }

    async fn invoke(&self, event: &Event<'_>) -> std::result::Result<(), Failure> {
        let rotation = &self.held.rotation;
        match function_for(self.services, &rotation.account, &rotation.function)? {
            None => {
                let text = format!("no function is registered for `{}`", rotation.function);
                Err(Failure::passing(text))
            }
            Some(Function::BuiltIn(BuiltIn::Password)) => {
                password::invoke(&self.inside(), &rotation.name, event).await
            }
            Some(Function::BuiltIn(BuiltIn::SingleUser)) => {
                self.database(Users::Single).invoke(event).await
            }
            Some(Function::BuiltIn(BuiltIn::AlternatingUsers)) => {
                self.database(Users::Alternating).invoke(event).await
            }
            Some(Function::BuiltIn(BuiltIn::SshKey)) => {
                ssh_key::invoke(&self.inside(), event).await
            }
            Some(Function::Lambda(lambda, name, qualifier)) => {
                // It may have done its last step and not been heard.
                if event.step == Step::Finish && self.is_current()? {
                    return Ok(());
                }
                let granted = lambda.credentials.then(|| self.credentials(lambda.deadline));
                let context = granted.flatten().and_then(|all| lambda::client_context(&all));
                let place = lambda::Place { lambda: &lambda, name, qualifier };
                lambda::invoke(&place, event, context).await
            }
            Some(Function::Program(program)) => {
                let granted = program.credentials.then(|| self.credentials(program.deadline));
                let place = program::Place {
                    program: &program,
                    region: &self.services.region,
                    here: self.services.rotations.here.get().map(String::as_str),
                };
                program::invoke(&place, event, granted.flatten()).await
            }
        }
    }

    /// What lets a function touch this secret for as long as a step may take.
    fn credentials(&self, deadline: Duration) -> Option<lambda::Variables> {
        let with = (&self.services.world, &self.services.sessions);
        let rotation = &self.held.rotation;
        let of = (rotation.account.as_str(), self.arn.as_str(), rotation.master.as_deref());
        lambda::credentials(with, deadline, of)
    }

    fn database(&self, users: Users) -> Database<'_> {
        let rotation = &self.held.rotation;
        let master = rotation.master.as_deref();
        Database { inside: self.inside(), name: &rotation.name, master, users }
    }

    /// Whether a login with AWSCURRENT has just succeeded, and one with AWSPENDING has not: then
    /// nothing is lost without AWSPENDING, if no attempt is on its way to the target.
    async fn current_alone_lets_in(&self) -> bool {
        let token = Some(self.held.progress.token.as_str());
        let current = Box::pin(self.lets_in("AWSCURRENT", None));
        let pending = Box::pin(self.lets_in("AWSPENDING", token));
        let (current, pending) = tokio::join!(current, pending);
        current && !pending
    }

    async fn lets_in(&self, stage: &str, id: Option<&str>) -> bool {
        let Ok(Some(value)) = self.inside().value(stage, id).await else { return false };
        let Ok(opens) = Opens::of(&value) else { return false };
        opens.enter().await == Entry::Open
    }

    /// Looks again when nothing of the last attempt can be on its way any more: an answer that was
    /// given up, a statement that a server which stood still comes to, a replica that is behind.
    async fn look_again(&self) -> Result<()> {
        let rotation = &self.held.rotation;
        let function = function_for(self.services, &rotation.account, &rotation.function)?;
        let built_in = matches!(function, Some(Function::BuiltIn(_)));
        let quiet = if built_in { QUIET.0 } else { QUIET.1 };
        let (held, now) = (self.held.clone(), self.services.world.clock.now());
        let change = move |rows: &mut Rows<'_>| held::look_again(rows, &held, quiet, now);
        self.services.records.write(change).await
    }

    /// Ends with the last failure, AWSCURRENT untouched.
    async fn end(&mut self) -> Result<()> {
        let Some(last) = self.held.rotation.failure.clone() else { return Ok(()) };
        self.held.progress.step = last.step;
        let why = if self.held.progress.hopeless {
            last.why
        } else {
            format!("its time is over, and AWSCURRENT still logs in; {}", last.why)
        };
        self.note(Failure::lasting(why), Fate::Ended).await
    }

    /// For a trial the pending version is what is current.
    async fn borrow_current(&self) -> std::result::Result<(), Failure> {
        if self.has_pending()? {
            return Ok(());
        }
        let current = self.inside().value("AWSCURRENT", None).await?;
        let current = current.ok_or_else(|| Failure::lasting("the secret has no value"))?;
        let value = (current.secret_string, current.secret_binary);
        Ok(self.inside().put_pending(&self.held.progress.token, value).await?)
    }

    fn is_current(&self) -> Result<bool> {
        let rotation = &self.held.rotation;
        let secret = self.services.records.secret(&rotation.account, &rotation.name)?;
        let current = secret.as_ref().and_then(|secret| secret.version_with("AWSCURRENT"));
        Ok(current == Some(self.held.progress.token.as_str()))
    }

    fn has_pending(&self) -> Result<bool> {
        let (uid, token) = (self.held.rotation.secret, &self.held.progress.token);
        Ok(self.services.records.read(|rows| rows.has_version(uid, token))?)
    }

    /// Notes that the step was done; answers whether there is another.
    async fn done(&mut self) -> Result<std::result::Result<bool, Failure>> {
        let progress = &self.held.progress;
        let next = progress.step.next().filter(|_| !progress.trial);
        let (held, now) = (self.held.clone(), self.services.world.clock.now());
        if let Some(next) = next {
            let change = move |rows: &mut Rows<'_>| held::advance(rows, &held, next, now);
            self.held = self.services.records.write(change).await?;
            return Ok(Ok(true));
        }
        if !progress.trial && !self.is_current()? {
            let text = "finishSecret has ended and AWSCURRENT is not on the new version";
            return Ok(Err(Failure::passing(text)));
        }
        let name = if progress.trial { "TestRotationSucceeded" } else { "RotationSucceeded" };
        let change = move |rows: &mut Rows<'_>| match held::conclude(rows, &held, now)? {
            true => Ok(()),
            false => Err(Error::new(Condition::InvalidState, MOVED)),
        };
        match self.services.commit_event(&self.event(name), change).await {
            Err(error) if error.message == MOVED => {
                return Ok(Err(Failure::passing(MOVED)));
            }
            other => other?,
        }
        if !progress.trial {
            self.services.rotations.tally.succeeded.fetch_add(1, Relaxed);
        }
        Ok(Ok(false))
    }

    /// Notes a failure, and what follows from it.
    async fn failed(&mut self, failure: Failure) -> Result<()> {
        let lasting = !failure.again && self.held.progress.set;
        self.held.progress.hopeless = lasting && self.current_alone_lets_in().await;
        let now = self.services.world.clock.now();
        let fate = held::fate(&self.held.progress, failure.again, now);
        self.note(failure, fate).await
    }

    async fn note(&self, failure: Failure, fate: Fate) -> Result<()> {
        let now = self.services.world.clock.now();
        // Some of it may be a server's.
        let why: String = self.reason(failure).await.chars().take(2 * SAYING).collect();
        tracing::warn!(secret = self.arn, step = self.held.progress.step.name(), why, "rotation");
        if !self.held.progress.trial {
            let tally = &self.services.rotations.tally;
            tally.failed_at(self.held.progress.step, fate == Fate::Ended);
        }
        let (held, told) = (self.held.clone(), why.clone());
        let change = move |rows: &mut Rows<'_>| held::fail(rows, &held, fate, &told, now);
        if fate == Fate::Again {
            return self.services.records.write(change).await;
        }
        let trial = self.held.progress.trial;
        let name = if trial { "TestRotationFailed" } else { "RotationFailed" };
        let mut particulars = Vec::new();
        Object::begin(&mut particulars)
            .text("versionId", &self.held.progress.token)
            .text("step", self.held.progress.step.name())
            .text("reason", &why)
            .end();
        self.services.commit_event_with(&self.event(name), &particulars, change).await
    }

    fn event(&self, name: &'static str) -> Noted {
        Noted {
            service: Service::SecretsManager,
            name,
            account: self.held.rotation.account.clone(),
            resources: vec![self.arn.clone()],
        }
    }

    /// A failure in words. What a function says is left out where it quotes the secret.
    async fn reason(&self, failure: Failure) -> String {
        let Some(says) = failure.says else { return failure.why };
        // All of it is looked at: a part could have half a secret at its edge.
        if self.quotes_nothing(&says).await {
            format!("{}: {}", failure.why, last(&says))
        } else {
            format!("{}; what it says may quote the secret and is left out", failure.why)
        }
    }

    /// Whether a text has nothing in it of the values of the secret and its master, as far as they can
    /// be read.
    async fn quotes_nothing(&self, says: &str) -> bool {
        let master = self.held.rotation.master.as_deref();
        for arn in [Some(self.arn.as_str()), master].into_iter().flatten() {
            let secret = Inside { arn, ..self.inside() };
            for stage in ["AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"] {
                let Ok(value) = secret.value(stage, None).await else { return false };
                let text = value.as_ref().and_then(|value| value.secret_string.as_ref());
                let text = text.and_then(|text| text.0.expose_str());
                if text.is_some_and(|text| quotes(says, text)) {
                    return false;
                }
            }
        }
        true
    }
}

/// The end of what a function says: there stands what went wrong.
fn last(says: &str) -> &str {
    let begin = says.char_indices().rev().nth(SAYING - 1).map_or(0, |(at, _)| at);
    says.get(begin..).unwrap_or_default()
}

/// Whether a text has a secret's value in it: all of it or, of a JSON object, a member that is not
/// known to be no secret.
fn quotes(says: &str, value: &str) -> bool {
    let found = |part: &str| part.len() >= SHORTEST && says.contains(part);
    let Ok(Value::Object(members)) = serde_json::from_str(value) else { return found(value) };
    let mut secret = members.iter().filter(|(name, _)| !PLAIN.contains(&name.as_str()));
    found(value) || secret.any(|(_, member)| quotes_member(says, member))
}

/// The same of a member, however deep in it.
fn quotes_member(says: &str, member: &Value) -> bool {
    let found = |part: &str| part.len() >= SHORTEST && says.contains(part);
    match member {
        Value::String(text) => found(text),
        Value::Number(number) => found(&number.to_string()),
        Value::Array(list) => list.iter().any(|one| quotes_member(says, one)),
        Value::Object(members) => members.values().any(|one| quotes_member(says, one)),
        Value::Null | Value::Bool(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_saying_the_end_is_passed_on() {
        assert_eq!(last("\u{e9}short"), "\u{e9}short");
        let long = format!("{}\u{e9}{}", "a".repeat(SAYING), "b".repeat(SAYING - 1));
        assert_eq!(last(&long), format!("\u{e9}{}", "b".repeat(SAYING - 1)));
    }

    #[test]
    fn what_a_function_says_is_passed_on_unless_it_quotes_the_secret() {
        let secret = r#"{"host": "db.example.com", "username": "app", "password": "hunter22"}"#;
        assert!(!quotes("ValueError: no login at db.example.com as app", secret));
        assert!(quotes("password 'hunter22' was refused", secret));
        assert!(quotes("it was hunter2", "hunter2"));
        let nested = r#"{"port": 5432, "pin": 90210, "all": [{"key": "hunter33"}]}"#;
        assert!(quotes("bad key hunter33", nested) && quotes("bad pin 90210", nested));
        assert!(!quotes("nobody at 5432", nested));
        assert!(!quotes("it was a", "a"));
    }
}
