//! ExplainRequest: which statement of which policy decided a request. Strongroom's own operation.

use super::changes::last_change;
use super::explanation::{Asked, Decided, Explanation, Standing, State};
use super::holders::{self, Held, Names};
use super::search;
use crate::audit::index::{Event, Index};
use crate::clock::Time;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{self, Checks};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// How long a look-up waits for records that were just written.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the record of a change may be on its way from the database to the log.
const MOVING: Duration = Duration::from_millis(300);

/// ExplainRequest.
pub struct ExplainRequest;

/// What [`ExplainRequest`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainRequestInput {
    /// The id of a request, as its caller was told it, or of an event.
    request_id: Option<String>,
}

impl Input for ExplainRequestInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("requestId", &self.request_id);
        checks.length("requestId", self.request_id.as_deref(), 36, 36);
    }
}

impl Operation for ExplainRequest {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ExplainRequest";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/audit/requests/{RequestId}" };
    type Input = ExplainRequestInput;
    type Target = OwnAccount;
    type Output = Explanation;

    async fn locate(call: &Call, _: &ExplainRequestInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: ExplainRequestInput,
    ) -> Result<Explanation> {
        let id = shape::given(&input.request_id, "requestId")?.to_ascii_lowercase();
        let (time, mut explanation) = match find(call, &id).await {
            Err(error) if error.condition == Condition::NotFound => {
                tokio::time::sleep(MOVING).await;
                find(call, &id).await?
            }
            found => found?,
        };
        let (account, region) = (call.caller.account.clone(), call.region.clone());
        let records = call.records.clone();
        search(call, move |index| {
            let held = records.read(|rows| {
                let names = Names::of(rows, &account, &explanation.principal)?;
                let held = explanation.decisions.iter().map(|decided| {
                    let held = holders::of(rows, &region, &account, decided, &names)?;
                    let own = holders::of_resource(rows, &region, &account, &decided.resource)?;
                    Ok((held, asked(decided, &names, own)))
                });
                held.collect::<Result<Vec<_>>>()
            })?;
            for (decided, (held, asked)) in explanation.decisions.iter_mut().zip(held) {
                let number = decided.statement_number.unwrap_or(0);
                let now = held.into_iter().map(|h| standing(index, &account, h, number, time));
                decided.now = now.collect::<Result<_>>()?;
                decided.asked = asked;
            }
            Ok(explanation)
        })
        .await
    }
}

/// The request's record, of this account or of nobody's.
async fn find(call: &Call, id: &str) -> Result<(Time, Explanation)> {
    if let Some(index) = &call.index {
        index.caught_up(PATIENCE).await;
    }
    let (account, id) = (call.caller.account.clone(), id.to_owned());
    let found = search(call, move |index| {
        let found = index.of_id(&id)?.into_iter().find_map(|line| {
            let event = Event::read(&line)?;
            let ours = event.account.as_deref().is_none_or(|owner| owner == account);
            let told = Explanation::of_record(&line).filter(|told| ours && told.is_of(&id))?;
            Some((event.time()?, told))
        });
        Ok(found)
    });
    let text = "no request of the last 90 days has this id";
    found.await?.ok_or_else(|| Error::new(Condition::NotFound, text))
}

/// What a policy is now, and whether it was changed since.
fn standing(
    index: &Index,
    account: &str,
    held: Held,
    number: usize,
    since: Time,
) -> Result<Standing> {
    let (more, last_change) = last_change(index, account, &held, since)?;
    let statement = held.document.as_deref().and_then(|text| statement(text, number));
    let state = match (&statement, &last_change) {
        (None, _) => State::Gone,
        (Some(_), _) if !held.attached => State::Detached,
        (Some(_), Some(_)) => State::Changed,
        (Some(_), None) if more => State::Unknown,
        (Some(_), None) => State::Unchanged,
    };
    Ok(Standing { holder: held.holder, state, statement, last_change })
}

/// A statement of a policy document as it was written; `number` counts from 1.
fn statement(document: &str, number: usize) -> Option<serde_json::Value> {
    let mut document: serde_json::Value = serde_json::from_str(document).ok()?;
    match document.get_mut("Statement")? {
        serde_json::Value::Array(all) => all.get_mut(number.checked_sub(1)?).map(|one| one.take()),
        one if number == 1 => Some(one.take()),
        _ => None,
    }
}

/// The policies that a denial had to do with, kind by kind, as they are now.
fn asked(decided: &Decided, names: &Names, own: Option<String>) -> Vec<Asked> {
    if decided.effect != "ImplicitDeny" {
        return Vec::new();
    }
    let kinds = [
        ("identity-based policy", Some(names.identity.clone())),
        ("permissions boundary", names.boundary.clone().map(|name| vec![name])),
        ("session policy", (decided.kind.as_deref() == Some("session policy")).then(Vec::new)),
        ("resource-based policy", own.map(|name| vec![name])),
    ];
    let lacks = |kind| decided.kind.as_deref() == Some(kind);
    let kinds = kinds.into_iter().filter_map(|(kind, policies)| {
        let policies = policies.or_else(|| lacks(kind).then(Vec::new))?;
        Some(Asked { kind: kind.to_owned(), lacking: lacks(kind), policies })
    });
    kinds.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_stands_alone_or_in_a_list() {
        let one = r#"{"Statement": {"Sid": "A"}}"#;
        assert_eq!(statement(one, 1).expect("there")["Sid"], "A");
        assert!(statement(one, 2).is_none());
        let two = r#"{"Statement": [{"Sid": "A"}, {"Sid": "B"}]}"#;
        assert_eq!(statement(two, 2).expect("there")["Sid"], "B");
        assert!(statement(two, 3).is_none());
        assert!(statement(two, 0).is_none());
        assert!(statement("{}", 1).is_none());
    }

    #[test]
    fn an_implicit_denial_names_the_kinds_that_were_asked_and_the_one_that_lacked() {
        let names =
            Names { identity: vec!["a".into()], boundary: Some("b".into()), ..Names::default() };
        let decided = Decided {
            effect: "ImplicitDeny".into(),
            kind: Some("permissions boundary".into()),
            ..Decided::default()
        };
        let asked = asked(&decided, &names, None);
        let told: Vec<_> = asked.iter().map(|a| (a.kind.as_str(), a.lacking)).collect();
        assert_eq!(told, [("identity-based policy", false), ("permissions boundary", true)]);
        let allowed = Decided { effect: "Allow".into(), ..Decided::default() };
        assert!(super::asked(&allowed, &names, None).is_empty());
    }
}
