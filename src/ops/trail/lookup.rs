//! LookupEvents: <https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html>.

use super::search;
use crate::audit::index::{Event, Index, Kind, Place, Query};
use crate::clock::Time;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{self, Checks, Epoch};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Events on a page at most, and by default.
const PAGE: usize = 50;
/// The longest value that can be looked for, in characters.
const VALUE: usize = 2000;

/// LookupEvents.
pub struct LookupEvents;

/// What [`LookupEvents`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LookupEventsInput {
    /// What the events must speak of; one at most.
    #[serde(default, deserialize_with = "shape::objects")]
    lookup_attributes: Option<Vec<LookupAttribute>>,
    /// Seconds since 1970-01-01T00:00:00Z; events of that second count.
    start_time: Option<f64>,
    /// Seconds since 1970-01-01T00:00:00Z; events of that second count.
    end_time: Option<f64>,
    event_category: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

/// What events must speak of.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LookupAttribute {
    attribute_key: Option<String>,
    attribute_value: Option<String>,
}

impl Input for LookupEventsInput {
    fn check(&self, checks: &mut Checks) {
        for attribute in self.lookup_attributes.iter().flatten() {
            checks.required("lookupAttributes.1.member.attributeKey", &attribute.attribute_key);
            checks.required("lookupAttributes.1.member.attributeValue", &attribute.attribute_value);
        }
        checks.length("nextToken", self.next_token.as_deref(), 1, 4096);
    }
}

/// What [`LookupEvents`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LookupEventsOutput {
    events: Vec<FoundEvent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// An event.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct FoundEvent {
    event_id: String,
    event_name: String,
    read_only: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<String>,
    event_time: Epoch,
    event_source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    resources: Vec<FoundResource>,
    /// The record itself, as JSON.
    cloud_trail_event: String,
}

/// A resource of an event.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct FoundResource {
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_type: Option<String>,
    resource_name: String,
}

impl Operation for LookupEvents {
    const SERVICE: Service = Service::CloudTrail;
    const NAME: &'static str = "LookupEvents";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/audit/events:lookup" };
    type Input = LookupEventsInput;
    type Target = OwnAccount;
    type Output = LookupEventsOutput;

    async fn locate(call: &Call, _: &LookupEventsInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: LookupEventsInput,
    ) -> Result<LookupEventsOutput> {
        let limit = limit(input.max_results)?;
        let wanted = Wanted::of(&input, call.now)?;
        let scope = wanted.scope(call);
        let before = input.next_token.as_deref().map(|t| position(call, &scope, t)).transpose()?;
        if wanted.nothing {
            return Ok(LookupEventsOutput { events: Vec::new(), next_token: None });
        }
        let account = call.caller.account.clone();
        let found = search(call, move |index| {
            let query = wanted.query(&account, before, limit + 1);
            wanted.find(index, &query)
        });
        let mut found = found.await?;
        let goes_on = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| goes_on).map(|(place, _)| *place);
        let next_token = last.map(|p| call.pages.token(&scope, &format!("{} {}", p.time.0, p.at)));
        let events = found.into_iter().filter_map(|(_, line)| told(line, call)).collect();
        Ok(LookupEventsOutput { events, next_token })
    }
}

/// What an input asks for.
struct Wanted {
    kind: Kind,
    value: String,
    /// The one event of this id.
    id: Option<String>,
    from: Time,
    until: Time,
    /// A category of which there are no events here.
    nothing: bool,
}

impl Wanted {
    fn of(input: &LookupEventsInput, now: Time) -> Result<Self> {
        let (from, until) = range(input.start_time, input.end_time, now)?;
        let mut wanted = Self {
            kind: Kind::Everything,
            value: String::new(),
            id: None,
            from,
            until,
            nothing: foreign(input.event_category.as_deref())?,
        };
        match input.lookup_attributes.as_deref().unwrap_or_default() {
            [] => {}
            [one] => wanted.narrow(one)?,
            _ => return Err(attributes("only one lookup attribute can be given")),
        }
        Ok(wanted)
    }

    fn narrow(&mut self, attribute: &LookupAttribute) -> Result<()> {
        let key = shape::given(&attribute.attribute_key, "attributeKey")?;
        let value = shape::given(&attribute.attribute_value, "attributeValue")?;
        if !(1..=VALUE).contains(&value.chars().count()) {
            return Err(attributes("the value of a lookup attribute has 1 to 2000 characters"));
        }
        self.value.clone_from(value);
        self.kind = match key.as_str() {
            "EventId" => {
                self.id = Some(value.to_ascii_lowercase());
                Kind::Everything
            }
            "EventName" => Kind::EventName,
            "ReadOnly" => Kind::ReadOnly,
            "Username" => Kind::Username,
            "ResourceType" => Kind::ResourceType,
            "ResourceName" => Kind::ResourceName,
            "EventSource" => Kind::EventSource,
            "AccessKeyId" => Kind::AccessKeyId,
            _ => return Err(attributes("there is no such lookup attribute")),
        };
        Ok(())
    }

    /// What a page token is good for: this account and this question.
    fn scope(&self, call: &Call) -> String {
        let Self { kind, value, id, from, .. } = self;
        let (account, name) = (&call.caller.account, call.row.name);
        let id = id.as_deref().unwrap_or_default();
        format!("{account}/{name}/{} {} {id} {value}", *kind as u8, from.0)
    }

    fn query<'a>(&'a self, account: &'a str, before: Option<Place>, limit: usize) -> Query<'a> {
        let Self { kind, from, until, .. } = *self;
        Query { account, kind, value: &self.value, from, until, before, limit }
    }

    /// The records, each with its place, newest first.
    fn find(&self, index: &Index, query: &Query<'_>) -> Result<Vec<(Place, Vec<u8>)>> {
        let Some(id) = &self.id else {
            let places = index.places(query)?;
            let lines = index.records(places.iter().map(|place| place.at))?;
            return Ok(places.into_iter().zip(lines).collect());
        };
        let mut found = index.of_id(id)?;
        found.retain(|line| {
            Event::read(line).is_some_and(|event| {
                let within = |time| query.from <= time && time < query.until;
                event.id == *id && event.time().is_some_and(within)
            })
        });
        let here = Place { time: query.from, at: 0 };
        Ok(found.into_iter().take(1).map(|line| (here, line)).collect())
    }
}

/// The event in a line of the log, if it is this account's.
fn told(line: Vec<u8>, call: &Call) -> Option<FoundEvent> {
    let line = String::from_utf8(line).ok()?;
    let event = Event::read(line.as_bytes())?;
    if event.account.as_deref() != Some(&call.caller.account) {
        return None;
    }
    let resource = |resource: &crate::audit::index::Resource<'_>| FoundResource {
        resource_type: resource.kind.as_deref().map(str::to_owned),
        resource_name: resource.arn.to_string(),
    };
    Some(FoundEvent {
        event_id: event.id.to_string(),
        event_name: event.event_name.to_string(),
        read_only: if event.read_only { "true" } else { "false" },
        access_key_id: event.access_key_id().map(str::to_owned),
        event_time: Epoch(event.time()?),
        event_source: event.event_source.to_string(),
        username: event.user_name().map(str::to_owned),
        resources: event.resources.iter().map(resource).collect(),
        cloud_trail_event: line.clone(),
    })
}

fn limit(max_results: Option<i64>) -> Result<usize> {
    let limit = usize::try_from(max_results.unwrap_or(50)).ok();
    limit.filter(|limit| (1..=PAGE).contains(limit)).ok_or_else(|| {
        Error::new(Condition::InvalidMaxResults, "MaxResults must be between 1 and 50")
    })
}

/// The first moment that counts and the first that does not any more. Clients send whole seconds.
fn range(start: Option<f64>, end: Option<f64>, now: Time) -> Result<(Time, Time)> {
    let refuse = |text| Error::new(Condition::InvalidTimeRange, text);
    let from = match start {
        Some(seconds) => second(seconds).ok_or_else(|| refuse("StartTime is no time"))?,
        None => now.plus_days(-crate::audit::index::KEPT),
    };
    let until = match end {
        Some(seconds) => second(seconds).ok_or_else(|| refuse("EndTime is no time"))?,
        None => Time(now.0.max(from.0)),
    };
    if from > until {
        return Err(refuse("StartTime must not be after EndTime"));
    }
    Ok((from, Time(until.0.saturating_add(1000))))
}

/// The beginning of a second between the years 1970 and 9999.
fn second(seconds: f64) -> Option<Time> {
    const LAST: f64 = 253_402_300_799.0;
    #[expect(clippy::cast_possible_truncation, reason = "within the range that was checked")]
    (0.0..=LAST).contains(&seconds).then(|| Time(seconds.floor() as i64 * 1000))
}

/// Whether a category is one of which there are no events here.
fn foreign(category: Option<&str>) -> Result<bool> {
    match category {
        None => Ok(false),
        Some("insight") => Ok(true),
        Some(_) => Err(Error::new(
            Condition::InvalidEventCategory,
            "the only event category that can be named is insight",
        )),
    }
}

fn attributes(text: &'static str) -> Error {
    Error::new(Condition::InvalidParameter, text)
}

/// The place in a page token.
fn position(call: &Call, scope: &str, token: &str) -> Result<Place> {
    let position = call.pages.position(scope, token)?;
    let parts = position.split_once(' ');
    let place = parts.and_then(|(time, at)| {
        Some(Place { time: Time(time.parse().ok()?), at: at.parse().ok()? })
    });
    place.ok_or_else(|| Error::new(Condition::InvalidNextToken, "Invalid token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_counts_whole_seconds_at_both_ends() {
        let now = Time(1_767_225_600_500);
        let (from, until) = range(Some(1_767_225_600.9), Some(1_767_225_601.0), now).expect("fine");
        assert_eq!((from.0, until.0), (1_767_225_600_000, 1_767_225_602_000));
        let (from, until) = range(None, None, now).expect("fine");
        assert_eq!((now.0 - from.0, until.0 - now.0), (90 * 86_400_000, 1000));
    }

    #[test]
    fn a_range_that_ends_before_it_starts_or_is_no_time_is_refused() {
        let now = Time(1_767_225_600_500);
        for (start, end) in [
            (Some(2.0), Some(1.0)),
            (Some(-1.0), None),
            (Some(f64::NAN), None),
            (None, Some(1e300)),
            (None, Some(1.0)),
        ] {
            let error = range(start, end, now).expect_err("refused");
            assert_eq!(error.condition, Condition::InvalidTimeRange, "{start:?} {end:?}");
        }
        assert!(range(Some(1e11), None, now).is_ok(), "nothing has happened yet");
    }

    #[test]
    fn a_page_has_one_to_fifty_events() {
        assert_eq!(limit(None).ok(), Some(50));
        assert_eq!(limit(Some(1)).ok(), Some(1));
        for wrong in [0, 51, -1, i64::MIN] {
            assert_eq!(limit(Some(wrong)).expect_err("no").condition, Condition::InvalidMaxResults);
        }
    }
}
