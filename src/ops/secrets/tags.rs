//! TagResource and UntagResource.

use super::{SecretTarget, change, check_secret_id, expiry, facts, locate, not_pending};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene;
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Facts, Values};
use crate::store::keys::Tag;
use schemars::JsonSchema;
use serde::Deserialize;

/// Tags that a secret may carry.
const MOST: usize = 50;
/// What only AWS's own tags may begin with, in any case of letters.
const RESERVED: &str = "aws:";

/// A tag in a request.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagInput {
    key: Option<String>,
    value: Option<String>,
}

impl TagInput {
    /// A tag of a seed.
    pub(super) fn of(key: &str, value: &str) -> Self {
        Self { key: Some(key.to_owned()), value: Some(value.to_owned()) }
    }

    /// The condition keys that tags in a request answer.
    pub(super) fn fact<'a>(tags: &'a [Self], key: &str) -> Option<Values<'a>> {
        let whole =
            |tag: &'a Self| Some((tag.key.as_deref()?, tag.value.as_deref().unwrap_or_default()));
        scene::request_tags(key, tags.iter().filter_map(whole))
    }

    /// Checks a list of tags against the service model.
    pub(super) fn check_all(tags: Option<&[Self]>, checks: &mut Checks) {
        for (n, tag) in (1..).zip(tags.unwrap_or_default()) {
            checks.length(&format!("tags.{n}.member.key"), tag.key.as_deref(), 1, 128);
            checks.length(&format!("tags.{n}.member.value"), tag.value.as_deref(), 0, 256);
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
pub(super) fn accepted(tags: &[TagInput]) -> Result<Vec<Tag>> {
    let mut all: Vec<Tag> = Vec::with_capacity(tags.len().min(MOST));
    for tag in tags {
        let key = tag.key.as_deref().ok_or_else(|| refused("You must provide a tag key."))?;
        not_reserved(key)?;
        expiry::readable(key, tag.value.as_deref().unwrap_or_default())?;
        if all.iter().any(|known| known.key == key) {
            return Err(refused(format!("Duplicate tag key: '{key}'.")));
        }
        all.push(Tag { key: key.to_owned(), value: tag.value.clone().unwrap_or_default() });
        not_too_many(&all)?;
    }
    Ok(all)
}

fn not_reserved(key: &str) -> Result<()> {
    let start = key.get(..RESERVED.len()).unwrap_or_default();
    if start.eq_ignore_ascii_case(RESERVED) {
        return Err(refused(format!("You can't modify system tags. Tag key: '{key}'.")));
    }
    Ok(())
}

fn not_too_many(tags: &[Tag]) -> Result<()> {
    if tags.len() <= MOST {
        return Ok(());
    }
    Err(refused(format!("You can't attach more than {MOST} tags to a secret.")))
}

fn refused(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Condition::Tag, text)
}

/// A secret's tags with others put over them; those with a known key keep their place.
fn merged(tags: &[Tag], put: &[Tag]) -> Result<Vec<Tag>> {
    let mut all = tags.to_vec();
    for tag in put {
        match all.iter_mut().find(|known| known.key == tag.key) {
            Some(known) => known.value.clone_from(&tag.value),
            None => all.push(tag.clone()),
        }
    }
    not_too_many(&all)?;
    Ok(all)
}

/// TagResource:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_TagResource.html>.
pub struct TagResource;

/// What [`TagResource`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagResourceInput {
    secret_id: Option<String>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    tags: Option<Vec<TagInput>>,
}

impl Input for TagResourceInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
        checks.required("tags", &self.tags);
        TagInput::check_all(self.tags.as_deref(), checks);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
            .or_else(|| TagInput::fact(self.tags.as_deref()?, key))
    }
}

impl Operation for TagResource {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "TagResource";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/secrets/{SecretId}/tags" };
    type Input = TagResourceInput;
    type Target = SecretTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &TagResourceInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: TagResourceInput,
    ) -> Result<Empty> {
        let put = accepted(given(&input.tags, "tags")?)?;
        let now = call.now;
        change(call, &target, move |secret| {
            not_pending(secret)?;
            let tags = merged(secret.tags.as_deref().unwrap_or_default(), &put)?;
            let changed = secret.tags.as_ref() != Some(&tags) && !put.is_empty();
            if changed {
                secret.tags = Some(tags);
                expiry::follow_tags(secret, now);
            }
            Ok(changed)
        })
        .await?;
        Ok(Empty {})
    }
}

/// UntagResource:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UntagResource.html>.
pub struct UntagResource;

/// What [`UntagResource`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UntagResourceInput {
    secret_id: Option<String>,
    tag_keys: Option<Vec<String>>,
}

impl Input for UntagResourceInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
        checks.required("tagKeys", &self.tag_keys);
        for (n, key) in (1..).zip(self.tag_keys.iter().flatten()) {
            checks.length(&format!("tagKeys.{n}.member"), Some(key), 1, 128);
        }
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
            .or_else(|| scene::tag_keys(key, self.tag_keys.iter().flatten().map(String::as_str)))
    }
}

impl Operation for UntagResource {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "UntagResource";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/secrets/{SecretId}/tags" };
    type Input = UntagResourceInput;
    type Target = SecretTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &UntagResourceInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: UntagResourceInput,
    ) -> Result<Empty> {
        let keys = given(&input.tag_keys, "tagKeys")?.clone();
        keys.iter().try_for_each(|key| not_reserved(key))?;
        let now = call.now;
        change(call, &target, move |secret| {
            not_pending(secret)?;
            let Some(tags) = &mut secret.tags else { return Ok(false) };
            let before = tags.len();
            tags.retain(|tag| !keys.contains(&tag.key));
            let changed = tags.len() != before;
            expiry::follow_tags(secret, now);
            Ok(changed)
        })
        .await?;
        Ok(Empty {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(all: &[(&str, &str)]) -> Vec<TagInput> {
        let tag = |(k, v): &(&str, &str)| TagInput {
            key: Some((*k).to_owned()),
            value: Some((*v).to_owned()),
        };
        all.iter().map(tag).collect()
    }

    fn put(all: &[(&str, &str)]) -> Vec<Tag> {
        accepted(&tags(all)).expect("tags")
    }

    fn text(all: &[(&str, &str)]) -> String {
        accepted(&tags(all)).err().map(|e| e.message.into_owned()).unwrap_or_default()
    }

    #[test]
    fn reserved_repeated_and_too_many_tags_are_refused() {
        assert_eq!(
            text(&[("aws:cloudformation:stack-name", "x")]),
            "You can't modify system tags. Tag key: 'aws:cloudformation:stack-name'."
        );
        assert!(text(&[("AWS:x", "")]).starts_with("You can't modify system tags."));
        assert_eq!(text(&[("awsome", "x"), ("ä", "y"), ("Awsome", "z")]), "");
        assert_eq!(text(&[("a", "1"), ("a", "2")]), "Duplicate tag key: 'a'.");
        let names: Vec<String> = (0..51).map(|i| i.to_string()).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "")).collect();
        assert_eq!(text(&many[..50]), "");
        assert_eq!(text(&many), "You can't attach more than 50 tags to a secret.");
    }

    #[test]
    fn a_tag_is_replaced_in_its_place_and_new_ones_come_last() {
        let all = merged(&put(&[("a", "1"), ("b", "2")]), &put(&[("c", "3"), ("a", "4")]));
        assert_eq!(all.ok(), Some(put(&[("a", "4"), ("b", "2"), ("c", "3")])));
    }

    #[test]
    fn the_limit_counts_the_tags_that_are_there_already() {
        let names: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        let full = put(&names.iter().map(|n| (n.as_str(), "")).collect::<Vec<_>>());
        assert!(merged(&full, &put(&[("0", "again")])).is_ok());
        assert!(merged(&full, &put(&[("one more", "")])).is_err());
    }
}
