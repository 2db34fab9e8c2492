//! TagResource, UntagResource, ListResourceTags.

use super::list::{Next, Paging};
use super::{KeyTarget, change, check_key_id, locate_own, not_pending};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene;
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Facts, Values};
use crate::store::keys::Tag;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tags that a key may carry.
const MOST: usize = 50;
/// What only AWS's own tags may begin with, in any case of letters.
const RESERVED: &str = "aws:";

/// A tag in a request.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagInput {
    tag_key: Option<String>,
    tag_value: Option<String>,
}

impl TagInput {
    /// A tag of a seed.
    pub(super) fn of(key: &str, value: &str) -> Self {
        Self { tag_key: Some(key.to_owned()), tag_value: Some(value.to_owned()) }
    }

    /// The condition keys that tags in a request answer.
    pub(super) fn fact<'a>(tags: &'a [Self], key: &str) -> Option<Values<'a>> {
        let whole = |tag: &'a Self| Some((tag.tag_key.as_deref()?, tag.tag_value.as_deref()?));
        scene::request_tags(key, tags.iter().filter_map(whole))
    }

    /// The service model's bounds for a list of tags.
    pub(super) fn check_all(checks: &mut Checks, tags: &[Self]) {
        for (n, tag) in (1..).zip(tags) {
            let key = format!("tags.{n}.member.tagKey");
            checks.required(&key, &tag.tag_key);
            checks.length(&key, tag.tag_key.as_deref(), 1, 128);
            let value = format!("tags.{n}.member.tagValue");
            checks.required(&value, &tag.tag_value);
            checks.length(&value, tag.tag_value.as_deref(), 0, 256);
        }
    }
}

/// The tags of a request that makes something, as the right to tag it sees them.
pub(super) struct Brought<'a>(pub(super) &'a [TagInput]);

impl Facts for Brought<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        TagInput::fact(self.0, key)
    }
}

/// The tags of a request, refused if AWS would.
pub(super) fn check_tags(tags: &[TagInput]) -> Result<Vec<Tag>> {
    let mut checked: Vec<Tag> = Vec::with_capacity(tags.len().min(MOST));
    for tag in tags {
        let key = given(&tag.tag_key, "tagKey")?.clone();
        let value = given(&tag.tag_value, "tagValue")?.clone();
        if reserved(&key) {
            return Err(refused("Tags beginning with aws: are reserved"));
        }
        if checked.iter().any(|known| known.key == key) {
            return Err(refused("Duplicate tag keys"));
        }
        if checked.len() == MOST {
            return Err(refused("Too many tags"));
        }
        checked.push(Tag { key, value });
    }
    Ok(checked)
}

/// A key's tags with others put over them; those with a known key keep their place.
pub(super) fn merged(tags: &[Tag], put: &[Tag]) -> Result<Vec<Tag>> {
    let mut all = tags.to_vec();
    for tag in put {
        match all.iter_mut().find(|known| known.key == tag.key) {
            Some(known) => known.value.clone_from(&tag.value),
            None => all.push(tag.clone()),
        }
    }
    if all.len() > MOST { Err(refused("Too many tags")) } else { Ok(all) }
}

fn reserved(key: &str) -> bool {
    key.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

fn refused(text: &'static str) -> Error {
    Error::new(Condition::Tag, text)
}

/// TagResource: <https://docs.aws.amazon.com/kms/latest/APIReference/API_TagResource.html>.
pub struct TagResource;

/// What [`TagResource`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagResourceInput {
    key_id: Option<String>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    tags: Option<Vec<TagInput>>,
}

impl Input for TagResourceInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.required("tags", &self.tags);
        TagInput::check_all(checks, self.tags.as_deref().unwrap_or_default());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        TagInput::fact(self.tags.as_deref()?, key)
    }
}

impl Operation for TagResource {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "TagResource";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}/tags" };
    type Input = TagResourceInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &TagResourceInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: TagResourceInput,
    ) -> Result<Empty> {
        let put = check_tags(given(&input.tags, "tags")?)?;
        change(call, &target, move |key, arn| {
            not_pending(key, arn)?;
            let tags = merged(&key.tags, &put)?;
            let changed = tags != key.tags;
            key.tags = tags;
            Ok(changed)
        })
        .await?;
        Ok(Empty {})
    }
}

/// UntagResource: <https://docs.aws.amazon.com/kms/latest/APIReference/API_UntagResource.html>.
pub struct UntagResource;

/// What [`UntagResource`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UntagResourceInput {
    key_id: Option<String>,
    tag_keys: Option<Vec<String>>,
}

impl Input for UntagResourceInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.required("tagKeys", &self.tag_keys);
        for (n, key) in (1..).zip(self.tag_keys.as_deref().unwrap_or_default()) {
            checks.length(&format!("tagKeys.{n}.member"), Some(key), 1, 128);
        }
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        scene::tag_keys(key, self.tag_keys.iter().flatten().map(String::as_str))
    }
}

impl Operation for UntagResource {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "UntagResource";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}/tags:remove" };
    type Input = UntagResourceInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &UntagResourceInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: UntagResourceInput,
    ) -> Result<Empty> {
        let gone = given(&input.tag_keys, "tagKeys")?.clone();
        change(call, &target, move |key, arn| {
            not_pending(key, arn)?;
            let before = key.tags.len();
            key.tags.retain(|tag| !gone.contains(&tag.key));
            Ok(key.tags.len() != before)
        })
        .await?;
        Ok(Empty {})
    }
}

/// ListResourceTags:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListResourceTags.html>.
pub struct ListResourceTags;

/// What [`ListResourceTags`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListResourceTagsInput {
    key_id: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListResourceTagsInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        self.paging.check(checks);
    }
}

/// A tag in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagOutput {
    tag_key: String,
    tag_value: String,
}

/// What [`ListResourceTags`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListResourceTagsOutput {
    tags: Vec<TagOutput>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListResourceTags {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListResourceTags";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}/tags" };
    type Input = ListResourceTagsInput;
    type Target = KeyTarget;
    type Output = ListResourceTagsOutput;

    async fn locate(call: &Call, input: &ListResourceTagsInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: ListResourceTagsInput,
    ) -> Result<ListResourceTagsOutput> {
        let key = target.key()?;
        let (after, limit) = input.paging.start(call, &key.id, 50, 50)?;
        // A tag that was taken away meanwhile ends the list: its place is not known any more.
        let from = match after.as_str() {
            "" => 0,
            last => key.tags.iter().position(|t| t.key == last).map_or(key.tags.len(), |n| n + 1),
        };
        let mut tags: Vec<_> = key
            .tags
            .iter()
            .skip(from)
            .map(|tag| TagOutput { tag_key: tag.key.clone(), tag_value: tag.value.clone() })
            .collect();
        let next = Next::cut(call, &key.id, &mut tags, limit, |tag| &tag.tag_key);
        Ok(ListResourceTagsOutput { tags, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(pairs: &[(&str, &str)]) -> Vec<TagInput> {
        let tag = |(key, value): &(&str, &str)| TagInput {
            tag_key: Some((*key).to_owned()),
            tag_value: Some((*value).to_owned()),
        };
        pairs.iter().map(tag).collect()
    }

    fn refusal(tags: &[TagInput]) -> String {
        let error = check_tags(tags).expect_err("refused");
        assert_eq!(error.condition, Condition::Tag);
        error.message.into_owned()
    }

    #[test]
    fn a_request_s_tags_are_refused_in_aws_s_words() {
        assert_eq!(refusal(&inputs(&[("a", "1"), ("a", "2")])), "Duplicate tag keys");
        for key in ["aws:x", "AWS:x", "Aws:"] {
            assert_eq!(refusal(&inputs(&[(key, "1")])), "Tags beginning with aws: are reserved");
        }
        let names: Vec<String> = (0..=MOST).map(|n| n.to_string()).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(refusal(&inputs(&many)), "Too many tags");
        assert!(check_tags(&inputs(&many[1..])).is_ok());
        assert!(check_tags(&inputs(&[("awsome", ""), ("a", ""), ("A", "")])).is_ok());
    }

    #[test]
    fn tags_are_put_over_those_that_are_there_within_the_limit() {
        let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
        let put = merged(&[tag("a", "1"), tag("b", "1")], &[tag("c", "1"), tag("a", "2")]);
        assert_eq!(put.ok(), Some(vec![tag("a", "2"), tag("b", "1"), tag("c", "1")]));
        let full: Vec<Tag> = (0..MOST).map(|n| tag(&n.to_string(), "")).collect();
        assert!(merged(&full, &[tag("7", "new")]).is_ok());
        assert!(merged(&full, &[tag("one more", "")]).is_err());
    }
}
