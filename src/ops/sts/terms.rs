//! What sessions may be asked for: their bounds, tags, policies.

use super::too_long;
use crate::ops::authority::last_part;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene;
use crate::ops::shape::{Checks, given, is_tag};
use crate::policy::document::{self, Kind};
use crate::policy::{Session, Values, Vouched, managed};
use crate::store::principals::ManagedPolicy;
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::Deserialize;
use std::borrow::Cow;

/// Most characters of session policies, inline and managed ones together; AWS's limit.
const POLICIES: usize = 2048;
/// Most managed policies of a session.
const MANAGED: usize = 10;
/// Most tags of a session, inherited ones included.
const TAGS: usize = 50;
/// How many bytes session policies and tags may have together: what PackedPolicySize is a
/// percentage of. With it a token stays well below the longest that is opened.
const PACKED: usize = 4096;
/// The shortest session, in seconds.
pub(super) const SHORTEST: i64 = 900;

/// A session tag in a request.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagInput {
    key: Option<String>,
    value: Option<String>,
}

/// A managed policy in a request.
#[derive(Clone, Deserialize, JsonSchema)]
pub struct PolicyInput {
    arn: Option<String>,
}

impl PolicyInput {
    pub(super) fn of(arn: &str) -> Self {
        Self { arn: Some(arn.to_owned()) }
    }
}

/// Session policies and tags in a request.
#[derive(Default)]
pub(super) struct Asked<'a> {
    pub(super) policy: Option<&'a str>,
    pub(super) arns: &'a [PolicyInput],
    pub(super) tags: &'a [TagInput],
    pub(super) transitive: &'a [String],
}

/// What a session carries besides who it is.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) policies: Vec<(String, String)>,
    pub(super) tags: Vec<(String, String)>,
    pub(super) transitive: Vec<String>,
    /// How much of what is allowed they need, in per cent; none if there are none.
    pub(super) packed: Option<i64>,
}

/// Whether every character may stand in a name of a session or a source identity: `[\w+=,.@-]*`.
pub(super) fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

/// The pattern of [`is_name`] as the service model writes it.
pub(super) const NAME: &str = "[\\w+=,.@-]*";

/// The bounds of policies and tags in the service model.
pub(super) fn check(checks: &mut Checks, asked: &Asked<'_>) {
    checks.length("policy", asked.policy, 1, 131_072);
    checks.items("policyArns", Some(asked.arns.len()), 0, MANAGED);
    for (n, policy) in (1..).zip(asked.arns) {
        let name = format!("policyArns.{n}.member.arn");
        checks.length(&name, policy.arn.as_deref(), 20, 2048);
    }
    checks.items("tags", Some(asked.tags.len()), 0, TAGS);
    for (n, tag) in (1..).zip(asked.tags) {
        let key = format!("tags.{n}.member.key");
        checks.required(&key, &tag.key);
        checks.length(&key, tag.key.as_deref(), 1, 128);
        checks.pattern(&key, tag.key.as_deref(), TAG, is_tag);
        let value = format!("tags.{n}.member.value");
        checks.required(&value, &tag.value);
        checks.length(&value, tag.value.as_deref(), 0, 256);
        checks.pattern(&value, tag.value.as_deref(), TAG, is_tag);
    }
    checks.items("transitiveTagKeys", Some(asked.transitive.len()), 0, TAGS);
    for (n, key) in (1..).zip(asked.transitive) {
        checks.length(&format!("transitiveTagKeys.{n}.member"), Some(key), 1, 128);
    }
}

/// What a tag may be made of, as the service model writes it.
const TAG: &str = "[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*";

/// `aws:RequestTag/...`, `aws:TagKeys` and `sts:TransitiveTagKeys`.
pub(super) fn fact<'a>(
    tags: &'a [TagInput],
    transitive: &'a [String],
    key: &str,
) -> Option<Values<'a>> {
    if key == "sts:transitivetagkeys" {
        let keys: Vec<_> = transitive.iter().map(|k| Cow::Borrowed(k.as_str())).collect();
        return (!keys.is_empty()).then_some(Values::Many(keys));
    }
    let whole = |tag: &'a TagInput| Some((tag.key.as_deref()?, tag.value.as_deref()?));
    scene::request_tags(key, tags.iter().filter_map(whole))
}

/// What a session of `account` carries: what was asked for, and what the session it is asked with
/// hands on.
pub(super) fn carried(
    rows: &mut Rows<'_>,
    account: &str,
    asked: &Asked<'_>,
    from: Option<&Session>,
) -> Result<Carried> {
    let policies = policies(rows, account, asked)?;
    let tags = tags(asked, from)?;
    let transitive = transitive(asked, &tags, from)?;
    weighed(policies, tags, transitive)
}

/// The same with the tags that somebody vouches for.
pub(super) fn vouched_for(
    rows: &mut Rows<'_>,
    account: &str,
    asked: &Asked<'_>,
    vouched: &Vouched,
) -> Result<Carried> {
    let policies = policies(rows, account, asked)?;
    let tag = |(key, value): &(String, String)| TagInput {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    let given: Vec<TagInput> = vouched.tags.iter().map(tag).collect();
    let asked = Asked { tags: &given, transitive: &vouched.transitive, ..Asked::default() };
    let mut checks = Checks::default();
    check(&mut checks, &asked);
    checks.finish()?;
    let tags = tags(&asked, None)?;
    let transitive = transitive(&asked, &tags, None)?;
    weighed(policies, tags, transitive)
}

/// Refuses more than a token takes.
fn weighed(
    policies: Vec<(String, String)>,
    tags: Vec<(String, String)>,
    transitive: Vec<String>,
) -> Result<Carried> {
    let size =
        |pairs: &[(String, String)]| pairs.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>();
    let packed = size(&policies) + size(&tags);
    if packed > PACKED {
        return Err(too_long());
    }
    let per_cent = i64::try_from((packed * 100).div_ceil(PACKED)).unwrap_or(100);
    let packed = (packed > 0).then_some(per_cent);
    Ok(Carried { policies, tags, transitive, packed })
}

fn policies(
    rows: &mut Rows<'_>,
    account: &str,
    asked: &Asked<'_>,
) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    if let Some(text) = asked.policy {
        found.push(("session policy".to_owned(), text.to_owned()));
    }
    for policy in asked.arns {
        let arn = given(&policy.arn, "policyArns.member.arn")?;
        found.push((arn.clone(), managed_text(rows, account, arn)?));
    }
    if found.iter().map(|(_, text)| text.chars().count()).sum::<usize>() > POLICIES {
        return Err(Error::new(
            Condition::PackedPolicyTooLarge,
            format!("session policies have more than {POLICIES} characters together"),
        ));
    }
    for (_, text) in &found {
        document::parse(text, Kind::Session).map_err(malformed)?;
    }
    Ok(found)
}

fn malformed(error: document::Malformed) -> Error {
    Error::new(Condition::MalformedPolicy, error.aws_text(Kind::Session))
}

/// The document of a managed policy of the account's or of ours.
fn managed_text(rows: &mut Rows<'_>, account: &str, arn: &str) -> Result<String> {
    if let Some(ours) = managed::find(arn) {
        return Ok(ours.document.to_owned());
    }
    let policy = rows.named::<ManagedPolicy>(account, last_part(arn))?;
    let policy = policy.filter(|policy| policy.arn() == arn);
    let text = policy.as_ref().and_then(ManagedPolicy::document).map(str::to_owned);
    text.ok_or_else(|| {
        let text = format!("The policy {arn} does not exist or is not attachable.");
        Error::new(Condition::Validation, text)
    })
}

fn tags(asked: &Asked<'_>, from: Option<&Session>) -> Result<Vec<(String, String)>> {
    let invalid = |text: &str| Error::new(Condition::Validation, text.to_owned());
    let inherited = from.into_iter().flat_map(|session| {
        let passes_on = |key: &str| session.transitive.iter().any(|k| k.eq_ignore_ascii_case(key));
        session.tags.iter().filter(move |(key, _)| passes_on(key)).cloned()
    });
    let mut all: Vec<(String, String)> = inherited.collect();
    let handed_on = all.len();
    for tag in asked.tags {
        let (key, value) = (given(&tag.key, "key")?, given(&tag.value, "value")?);
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(invalid("Tag keys that start with aws: are reserved"));
        }
        let same = all.iter().position(|(known, _)| known.eq_ignore_ascii_case(key));
        match same {
            Some(at) if at < handed_on => {
                return Err(invalid("A session tag that was handed on can't be set anew"));
            }
            Some(_) => {
                return Err(invalid(
                    "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
                ));
            }
            None => all.push((key.clone(), value.clone())),
        }
    }
    if all.len() > TAGS {
        return Err(invalid("A session has at most 50 tags"));
    }
    Ok(all)
}

fn transitive(
    asked: &Asked<'_>,
    tags: &[(String, String)],
    from: Option<&Session>,
) -> Result<Vec<String>> {
    let mut keys: Vec<String> = from.map(|s| s.transitive.clone()).unwrap_or_default();
    for key in asked.transitive {
        if !tags.iter().any(|(known, _)| known.eq_ignore_ascii_case(key)) {
            let text = "The specified transitive tag key must be included in the requested tags.";
            return Err(Error::new(Condition::Validation, text));
        }
        if !keys.iter().any(|known| known.eq_ignore_ascii_case(key)) {
            keys.push(key.clone());
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    fn tag(key: &str, value: &str) -> TagInput {
        TagInput { key: Some(key.into()), value: Some(value.into()) }
    }

    fn session(tags: &[(&str, &str)], transitive: &[&str]) -> Session {
        Session {
            issuer_arn: String::new(),
            issuer_id: String::new(),
            name: String::new(),
            policies: Vec::new(),
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            transitive: transitive.iter().map(|k| (*k).to_owned()).collect(),
            issued: Time(0),
            expires: Time(0),
            source_identity: None,
            provider: None,
            chained: false,
        }
    }

    fn text(result: Result<impl Sized>) -> String {
        result.err().map(|error| error.message.into_owned()).unwrap_or_default()
    }

    #[test]
    fn transitive_tags_are_handed_on_and_stay_as_they_are() {
        let from = session(&[("Team", "blue"), ("Cost", "7")], &["team"]);
        let more = [tag("app", "x")];
        let asked = Asked { tags: &more, ..Asked::default() };
        let all = tags(&asked, Some(&from)).expect("fit");
        let expected = [("Team".to_owned(), "blue".to_owned()), ("app".into(), "x".into())];
        assert_eq!(all, expected);
        assert_eq!(transitive(&asked, &all, Some(&from)).expect("fit"), ["team"]);
        let anew = [tag("TEAM", "red")];
        let asked = Asked { tags: &anew, ..Asked::default() };
        assert!(text(tags(&asked, Some(&from))).contains("can't be set anew"));
    }

    #[test]
    fn tags_are_told_apart_by_more_than_letter_case() {
        let twice = [tag("Team", "a"), tag("tEAM", "b")];
        let asked = Asked { tags: &twice, ..Asked::default() };
        assert!(text(tags(&asked, None)).starts_with("Duplicate tag keys found."));
        let reserved = [tag("AWS:x", "a")];
        let asked = Asked { tags: &reserved, ..Asked::default() };
        assert!(text(tags(&asked, None)).contains("reserved"));
        let keys = ["other".to_owned()];
        let asked = Asked { transitive: &keys, ..Asked::default() };
        assert!(text(transitive(&asked, &[], None)).contains("must be included"));
    }
}
