//! ReplayPolicy: what a proposed policy would change, told by the requests of the last days.
//! Strongroom's own operation.

use super::proposal::{Place, Proposal};
use super::recorded::Recorded;
use super::rehearsal::{Judged, Rehearsal};
use super::replayed::{Group, Replayed};
use super::search;
use crate::audit::index::{Index, KEPT, Place as At, Query};
use crate::clock::Time;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{self, Checks};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records of one page at most.
const MOST: i64 = 10_000;
/// Records that are read at once.
const BATCH: usize = 500;
/// The longest that one page may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// ReplayPolicy.
pub struct ReplayPolicy;

/// What [`ReplayPolicy`] takes: a document, and what it would stand in place of.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ReplayPolicyInput {
    /// The proposed policy.
    policy_document: Option<String>,
    /// In place of this managed policy.
    policy_arn: Option<String>,
    /// In place of the inline policy PolicyName of this user.
    user_name: Option<String>,
    /// In place of the inline policy PolicyName of this group.
    group_name: Option<String>,
    /// In place of the inline policy PolicyName of this role.
    role_name: Option<String>,
    /// The inline policy's name; it may be a new one.
    policy_name: Option<String>,
    /// In place of this key's policy.
    key_id: Option<String>,
    /// In place of this secret's policy.
    secret_id: Option<String>,
    /// How many days back; 30 by default.
    days: Option<i64>,
    /// Records on a page at most; 10,000 by default.
    max_records: Option<i64>,
    /// Where the replay goes on.
    next_token: Option<String>,
}

impl Input for ReplayPolicyInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("policyDocument", &self.policy_document);
        checks.length("policyDocument", self.policy_document.as_deref(), 1, 131_072);
        checks.length("policyArn", self.policy_arn.as_deref(), 20, 2048);
        for (name, member) in [
            ("userName", &self.user_name),
            ("groupName", &self.group_name),
            ("roleName", &self.role_name),
            ("policyName", &self.policy_name),
        ] {
            checks.length(name, member.as_deref(), 1, 128);
        }
        checks.length("keyId", self.key_id.as_deref(), 1, 2048);
        checks.length("secretId", self.secret_id.as_deref(), 1, 2048);
        checks.range("days", self.days, 1, KEPT);
        checks.range("maxRecords", self.max_records, 1, MOST);
        checks.length("nextToken", self.next_token.as_deref(), 1, 4096);
    }
}

impl ReplayPolicyInput {
    /// The one thing that the document would stand in place of.
    fn place(&self) -> Result<Place<'_>> {
        let name = self.policy_name.as_deref();
        let named = |holder| Some((holder, name?));
        let given = [
            self.policy_arn.as_deref().map(Place::Managed),
            self.user_name.as_deref().and_then(named).map(|(user, name)| Place::User(user, name)),
            self.group_name.as_deref().and_then(named).map(|(group, n)| Place::Group(group, n)),
            self.role_name.as_deref().and_then(named).map(|(role, name)| Place::Role(role, name)),
            self.key_id.as_deref().map(Place::Key),
            self.secret_id.as_deref().map(Place::Secret),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(place), None) => Ok(place),
            _ => Err(Error::new(
                Condition::InvalidParameter,
                "name one thing: PolicyArn, KeyId, SecretId, or UserName, GroupName or RoleName \
                 with PolicyName",
            )),
        }
    }
}

impl Operation for ReplayPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ReplayPolicy";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/audit/requests:replay" };
    type Input = ReplayPolicyInput;
    type Target = OwnAccount;
    type Output = Replayed;

    async fn locate(call: &Call, _: &ReplayPolicyInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: ReplayPolicyInput,
    ) -> Result<Replayed> {
        let text = shape::given(&input.policy_document, "policyDocument")?;
        let proposal = Proposal::new(call, &input.place()?, text)?;
        let days = input.days.unwrap_or(30);
        let scope =
            format!("{}/{}/{} {days} {text}", call.caller.account, call.row.name, proposal.name());
        let before = input.next_token.as_deref();
        let before = before.map(|token| position(call, &scope, token)).transpose()?;
        let window = Window {
            account: call.caller.account.clone(),
            from: call.now.plus_days(-days),
            until: call.now,
            most: usize::try_from(input.max_records.unwrap_or(MOST)).unwrap_or(BATCH),
        };
        let services = call.services.clone();
        let replay = move |index: &Index| window.replay(index, &services, &proposal, before);
        let (mut page, last) = search(call, replay).await?;
        page.next_token =
            last.map(|at| call.pages.token(&scope, &format!("{} {}", at.time.0, at.at)));
        Ok(page)
    }
}

/// Which records are replayed.
struct Window {
    account: String,
    from: Time,
    until: Time,
    most: usize,
}

impl Window {
    /// Replays a page; answers where the next one begins, if there is more.
    fn replay(
        &self,
        index: &Index,
        services: &Arc<Services>,
        proposal: &Proposal,
        mut before: Option<At>,
    ) -> Result<(Replayed, Option<At>)> {
        let begun = Instant::now();
        let (kind, value) = proposal.list();
        let mut tally = Tally::default();
        let mut rehearsal = Rehearsal::new(services, proposal);
        loop {
            let left = self.most.saturating_sub(tally.records);
            if left == 0 || begun.elapsed() > PATIENCE {
                break;
            }
            let limit = left.min(BATCH);
            let (account, from, until) = (self.account.as_str(), self.from, self.until);
            let query = Query { account, kind, value: &value, from, until, before, limit };
            let places = index.places(&query)?;
            for line in index.records(places.iter().map(|place| place.at))? {
                tally.add(&line, &mut rehearsal, &self.account)?;
            }
            before = places.last().copied().or(before);
            if places.len() < limit {
                before = None;
                break;
            }
        }
        Ok((tally.page(proposal), before))
    }
}

/// What was found, by kind of change and group.
#[derive(Default)]
struct Tally {
    records: usize,
    decisions: u64,
    otherwise: u64,
    back_to: Option<String>,
    groups: HashMap<(Change, [String; 4]), (u64, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Change {
    Denied,
    Allowed,
    NotJudged,
}

impl Tally {
    fn add(&mut self, line: &[u8], rehearsal: &mut Rehearsal<'_>, account: &str) -> Result<()> {
        self.records += 1;
        let Some(recorded) = Recorded::read(line).filter(|r| r.caller.account == account) else {
            return Ok(());
        };
        for (at, decided) in recorded.told.decisions.iter().enumerate() {
            let (change, reason) = match rehearsal.judge(&recorded, at)? {
                Judged::Untouched => continue,
                Judged::Unknown(why) => (Some(Change::NotJudged), why),
                Judged::Decided { now, then } => {
                    self.otherwise += u64::from(now.is_none() != (decided.effect == "Allow"));
                    match (now, then) {
                        (None, Some(why)) => (Some(Change::Denied), why),
                        (Some(why), None) => (Some(Change::Allowed), why),
                        _ => (None, String::new()),
                    }
                }
            };
            self.decisions += 1;
            let Some(change) = change else { continue };
            let principal = recorded.caller.principal_arn().to_owned();
            let group = [principal, decided.action.clone(), decided.resource.clone(), reason];
            let known = self.groups.entry((change, group));
            known.or_insert_with(|| (0, recorded.told.request_id.clone())).0 += 1;
        }
        self.back_to = Some(recorded.told.event_time);
        Ok(())
    }

    fn page(self, proposal: &Proposal) -> Replayed {
        let mut page = Replayed {
            policy: proposal.name(),
            records: self.records as u64,
            decisions: self.decisions,
            decided_otherwise_today: self.otherwise,
            back_to: self.back_to,
            ..Replayed::default()
        };
        for ((change, group), (count, example_request_id)) in self.groups {
            let [principal_arn, action, resource, reason] = group;
            let group =
                Group { principal_arn, action, resource, reason, count, example_request_id };
            match change {
                Change::Denied => page.newly_denied.push(group),
                Change::Allowed => page.newly_allowed.push(group),
                Change::NotJudged => page.not_judged.push(group),
            }
        }
        for groups in [&mut page.newly_denied, &mut page.newly_allowed, &mut page.not_judged] {
            groups.sort_by(|a, b| {
                let names =
                    |g: &Group| (g.principal_arn.clone(), g.action.clone(), g.resource.clone());
                b.count.cmp(&a.count).then_with(|| names(a).cmp(&names(b)))
            });
        }
        page
    }
}

/// The place in a page token.
fn position(call: &Call, scope: &str, token: &str) -> Result<At> {
    let position = call.pages.position(scope, token)?;
    let parts = position.split_once(' ');
    let place = parts
        .and_then(|(time, at)| Some(At { time: Time(time.parse().ok()?), at: at.parse().ok()? }));
    place.ok_or_else(|| Error::new(Condition::InvalidNextToken, "Invalid token"))
}
