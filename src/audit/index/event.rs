//! What a record is found by.

use crate::clock::Time;
use serde::Deserialize;
use std::borrow::Cow;

/// What LookupEvents can be asked for, and everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Every event of the account; its value is empty.
    Everything = 0,
    /// The operation.
    EventName = 1,
    /// `true` or `false`.
    ReadOnly = 2,
    /// The name of the user, of the session, or `root`.
    Username = 3,
    /// The type of a resource.
    ResourceType = 4,
    /// The ARN of a resource; it is asked for by the name at its end too.
    ResourceName = 5,
    /// The service.
    EventSource = 6,
    /// The access key that signed the request.
    AccessKeyId = 7,
}

/// A record of the log, as far as looking it up needs it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    /// Its id.
    #[serde(rename = "eventID", borrow)]
    pub id: Cow<'a, str>,
    /// The id of the request.
    #[serde(rename = "requestID", borrow, default)]
    pub request_id: Cow<'a, str>,
    #[serde(borrow)]
    event_time: Cow<'a, str>,
    /// The operation.
    #[serde(borrow)]
    pub event_name: Cow<'a, str>,
    /// The service.
    #[serde(borrow)]
    pub event_source: Cow<'a, str>,
    /// Whether it only looks.
    #[serde(default)]
    pub read_only: bool,
    #[serde(borrow, default)]
    user_identity: Identity<'a>,
    /// What it acted on.
    #[serde(borrow, default)]
    pub resources: Vec<Resource<'a>>,
    /// The account whose event it is; none for a request whose caller was not proved.
    #[serde(rename = "recipientAccountId", borrow, default)]
    pub account: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    arn: Cow<'a, str>,
    #[serde(borrow, default)]
    user_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    access_key_id: Option<Cow<'a, str>>,
}

/// A resource in a record.
#[derive(Debug, Deserialize)]
pub struct Resource<'a> {
    /// Its ARN.
    #[serde(rename = "ARN", borrow)]
    pub arn: Cow<'a, str>,
    /// Its type, where it is known.
    #[serde(rename = "type", borrow, default)]
    pub kind: Option<Cow<'a, str>>,
}

impl<'a> Event<'a> {
    /// From a line of the log; none if it is no record.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// When the request came.
    pub fn time(&self) -> Option<Time> {
        let stamp: jiff::Timestamp = self.event_time.parse().ok()?;
        Some(Time(stamp.as_millisecond()))
    }

    /// CloudTrail's `Username`: the user's name, the session's, `root`, or the service.
    pub fn user_name(&self) -> Option<&str> {
        let identity = &self.user_identity;
        match &*identity.kind {
            "Root" => Some("root"),
            "AssumedRole" => identity.arn.rsplit('/').next(),
            _ => identity.user_name.as_deref(),
        }
    }

    /// The access key that signed the request.
    pub fn access_key_id(&self) -> Option<&str> {
        self.user_identity.access_key_id.as_deref()
    }

    /// Everything that it is listed under in its account.
    pub fn listed(&self) -> Vec<(Kind, &str)> {
        let read_only = if self.read_only { "true" } else { "false" };
        let mut under = Vec::with_capacity(6 + 2 * self.resources.len());
        under.extend([
            (Kind::Everything, ""),
            (Kind::EventName, &*self.event_name),
            (Kind::EventSource, &*self.event_source),
            (Kind::ReadOnly, read_only),
        ]);
        under.extend(self.user_name().map(|name| (Kind::Username, name)));
        under.extend(self.access_key_id().map(|id| (Kind::AccessKeyId, id)));
        for resource in &self.resources {
            under.push((Kind::ResourceName, &*resource.arn));
            under.extend(resource.kind.as_deref().map(|kind| (Kind::ResourceType, kind)));
        }
        under
    }
}

/// The name that people know a resource by: a key's id, `alias/x`, a secret's name with its suffix,
/// a user's name.
pub(super) fn name_in(arn: &str) -> &str {
    let resource = arn.splitn(6, ':').nth(5).unwrap_or(arn);
    if let Some(secret) = resource.strip_prefix("secret:") {
        return secret;
    }
    if resource.starts_with("alias/") {
        return resource;
    }
    resource.rsplit('/').next().unwrap_or(resource)
}

/// How an id begins, as far as it is in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The first byte.
    pub(super) first: u8,
    /// The four bytes after it.
    pub(super) rest: [u8; 4],
}

/// The first five bytes of an id: 10 hexadecimal digits, hyphens apart.
pub(super) fn start_of(id: &str) -> Option<Start> {
    let mut digits = id.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
    let mut byte = || u8::try_from(digits.next()?? << 4 | digits.next()??).ok();
    Some(Start { first: byte()?, rest: [byte()?, byte()?, byte()?, byte()?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/a/eve","userName":"eve","accessKeyId":"AKIAX"},"eventTime":"2026-01-01T00:00:00.123Z","eventSource":"kms.amazonaws.com","eventName":"Decrypt","requestParameters":{"encryptionContext":{"a":"b"}},"requestID":"11111111-2222-4333-8444-555555555555","eventID":"aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee","readOnly":true,"resources":[{"accountId":"111122223333","type":"AWS::KMS::Key","ARN":"arn:aws:kms:eu-central-1:111122223333:key/k1"}],"recipientAccountId":"111122223333"}"#;

    #[test]
    fn a_record_is_listed_under_all_that_it_can_be_asked_for() {
        let event = Event::read(LINE.as_bytes()).expect("a record");
        assert_eq!(event.time(), Some(Time(1_767_225_600_123)));
        assert_eq!(
            event.listed(),
            [
                (Kind::Everything, ""),
                (Kind::EventName, "Decrypt"),
                (Kind::EventSource, "kms.amazonaws.com"),
                (Kind::ReadOnly, "true"),
                (Kind::Username, "eve"),
                (Kind::AccessKeyId, "AKIAX"),
                (Kind::ResourceName, "arn:aws:kms:eu-central-1:111122223333:key/k1"),
                (Kind::ResourceType, "AWS::KMS::Key"),
            ]
        );
    }

    #[test]
    fn a_session_goes_by_its_own_name_and_the_root_by_root() {
        let session =
            LINE.replace("IAMUser", "AssumedRole").replace(":user/a/", ":assumed-role/r/");
        assert_eq!(Event::read(session.as_bytes()).expect("a record").user_name(), Some("eve"));
        let root = LINE.replace("IAMUser", "Root");
        assert_eq!(Event::read(root.as_bytes()).expect("a record").user_name(), Some("root"));
    }

    #[test]
    fn names_in_arns_are_those_that_people_use() {
        for (arn, name) in [
            ("arn:aws:secretsmanager:r:1:secret:a/b-AbCdEf", "a/b-AbCdEf"),
            ("arn:aws:kms:r:1:alias/x", "alias/x"),
            ("arn:aws:iam::1:user/path/eve", "eve"),
            ("odd", "odd"),
        ] {
            assert_eq!(name_in(arn), name);
        }
    }

    #[test]
    fn an_id_begins_with_ten_digits_or_is_none() {
        let start = start_of("0102030a-ff00-4001-8000-000000000000").expect("an id");
        assert_eq!((start.first, start.rest), (1, [2, 3, 10, 255]));
        assert_eq!(start_of("0102030a-f"), None);
        assert_eq!(start_of("zzzzzzzz-0000-0001-8000-000000000000"), None);
    }
}
