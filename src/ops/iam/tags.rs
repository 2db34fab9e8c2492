//! Tags: TagUser, TagRole, TagPolicy, their Untag- and List- operations.

use super::entity::{Entity, Of, change};
use super::list::{Next, PagedInput};
use super::name::{Naming, RoleName, UserName};
use super::policies::PolicyTarget;
use super::{Called, called, quota};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene;
use crate::ops::shape::{Checks, Empty, given, is_tag};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Facts, Values};
use crate::store::keys::Tag;
use crate::store::principals::{ManagedPolicy, Role, User};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// A tag, in requests and answers.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagPair {
    key: Option<String>,
    value: Option<String>,
}

/// Tags in an answer; none where there are none.
pub(super) fn shown(tags: &[Tag]) -> Option<Vec<TagPair>> {
    (!tags.is_empty()).then(|| pairs(tags))
}

fn pairs(tags: &[Tag]) -> Vec<TagPair> {
    let pair = |t: &Tag| TagPair { key: Some(t.key.clone()), value: Some(t.value.clone()) };
    tags.iter().map(pair).collect()
}

/// The service model's bounds of a list of tags.
pub(super) fn check(checks: &mut Checks, tags: Option<&[TagPair]>) {
    checks.items("tags", tags.map(<[_]>::len), 0, quota::TAGS);
    for (n, tag) in (1..).zip(tags.unwrap_or_default()) {
        let key = format!("tags.{n}.member.key");
        checks.required(&key, &tag.key);
        check_key(checks, &key, tag.key.as_deref());
        let value = format!("tags.{n}.member.value");
        checks.required(&value, &tag.value);
        checks.length(&value, tag.value.as_deref(), 0, 256);
        let pattern = "[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*";
        checks.pattern(&value, tag.value.as_deref(), pattern, is_tag);
    }
}

fn check_key(checks: &mut Checks, member: &str, key: Option<&str>) {
    checks.length(member, key, 1, 128);
    let pattern = "[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+";
    checks.pattern(member, key, pattern, is_tag);
}

/// `aws:RequestTag/KEY` and `aws:TagKeys` of the tags that a request brings.
pub(super) fn brought<'a>(tags: Option<&'a [TagPair]>, key: &str) -> Option<Values<'a>> {
    let whole = |tag: &'a TagPair| Some((tag.key.as_deref()?, tag.value.as_deref()?));
    scene::request_tags(key, tags?.iter().filter_map(whole))
}

/// The tags of a request, refused if AWS would: their keys differ by more than letter case.
pub(super) fn sound(pairs: &[TagPair]) -> Result<Vec<Tag>> {
    let mut tags: Vec<Tag> = Vec::with_capacity(pairs.len().min(quota::TAGS));
    for pair in pairs {
        let key = given(&pair.key, "key")?.clone();
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(refused("System tags cannot be added/updated by requester"));
        }
        if tags.iter().any(|known| known.key.eq_ignore_ascii_case(&key)) {
            return Err(refused(
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            ));
        }
        tags.push(Tag { key, value: given(&pair.value, "value")?.clone() });
    }
    Ok(tags)
}

fn refused(text: &'static str) -> Error {
    Error::new(Condition::Tag, text)
}

/// The tags of something new, which need a right of their own.
pub(super) fn allowed<T: Target>(
    call: &Call,
    action: &str,
    target: T,
    pairs: Option<&[TagPair]>,
) -> Result<Vec<Tag>> {
    let Some(pairs) = pairs.filter(|pairs| !pairs.is_empty()) else { return Ok(Vec::new()) };
    let tags = sound(pairs)?;
    call.allow_with(action, target, &Brought(pairs))?;
    Ok(tags)
}

/// The condition keys that tags of a request answer.
struct Brought<'a>(&'a [TagPair]);

impl Facts for Brought<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        brought(Some(self.0), key)
    }
}

/// Tags with others put over them.
fn merged(tags: &[Tag], put: &[Tag]) -> Result<Vec<Tag>> {
    let mut all = tags.to_vec();
    for tag in put {
        match all.iter_mut().find(|known| known.key.eq_ignore_ascii_case(&tag.key)) {
            Some(known) => known.clone_from(tag),
            None => all.push(tag.clone()),
        }
    }
    if all.len() > quota::TAGS {
        let text = "The number of tags has reached the maximum limit.";
        return Err(Error::new(Condition::LimitExceeded, text));
    }
    Ok(all)
}

/// What may be tagged after it was made.
pub trait Tagged: Entity {
    /// What operations name it by.
    type Naming: Naming;
    /// What tells where it is.
    type Place: Target + Sync;
    /// What the operations are called: Tag, Untag, List.
    const WORDS: [Called; 3];
    /// Finds it.
    fn find(call: &Call, naming: &Self::Naming) -> Result<Self::Place>;
    /// It, where the place is not empty.
    fn at(place: &Self::Place) -> Result<&Of<Self>>;
    /// Its tags, to be changed.
    fn tags_mut(&mut self) -> &mut Vec<Tag>;
}

macro_rules! words {
    ($kind:literal) => {
        [called!("Tag", $kind), called!("Untag", $kind), called!("List", $kind, "Tags")]
    };
}

macro_rules! tagged {
    ($document:ty, $naming:ty, $kind:literal) => {
        impl Tagged for $document {
            type Naming = $naming;
            type Place = Of<Self>;
            const WORDS: [Called; 3] = words!($kind);
            fn find(call: &Call, naming: &Self::Naming) -> Result<Of<Self>> {
                Of::named(call, naming.name()?)
            }
            fn at(place: &Of<Self>) -> Result<&Of<Self>> {
                Ok(place)
            }
            fn tags_mut(&mut self) -> &mut Vec<Tag> {
                &mut self.tags
            }
        }
    };
}

tagged!(User, UserName, "User");
tagged!(Role, RoleName, "Role");

impl Tagged for ManagedPolicy {
    type Naming = super::name::PolicyArn;
    type Place = PolicyTarget;
    const WORDS: [Called; 3] = words!("Policy");
    fn find(call: &Call, naming: &Self::Naming) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, given(naming.value(), "policyArn")?)
    }
    fn at(place: &PolicyTarget) -> Result<&Of<Self>> {
        place.customers()
    }
    fn tags_mut(&mut self) -> &mut Vec<Tag> {
        &mut self.tags
    }
}

/// TagUser, TagRole, TagPolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_TagUser.html>.
pub struct Put<D>(PhantomData<fn() -> D>);

/// What [`Put`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct PutInput<N> {
    #[serde(flatten)]
    naming: N,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    tags: Option<Vec<TagPair>>,
}

impl<N: Naming> Input for PutInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        checks.required("tags", &self.tags);
        check(checks, self.tags.as_deref());
    }
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        brought(self.tags.as_deref(), key)
    }
}

impl<D: Tagged> Operation for Put<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS[0].name;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = D::WORDS[0].route;
    type Input = PutInput<D::Naming>;
    type Target = D::Place;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<D::Place> {
        D::find(call, &input.naming)
    }

    async fn run(call: &Call, target: Allowed<D::Place>, input: Self::Input) -> Result<Empty> {
        let put = sound(given(&input.tags, "tags")?)?;
        change(call, D::at(&target)?, move |entity, _| {
            *entity.tags_mut() = merged(entity.tags(), &put)?;
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// UntagUser, UntagRole, UntagPolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UntagUser.html>.
pub struct Take<D>(PhantomData<fn() -> D>);

/// What [`Take`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct TakeInput<N> {
    #[serde(flatten)]
    naming: N,
    tag_keys: Option<Vec<String>>,
}

impl<N: Naming> Input for TakeInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        checks.required("tagKeys", &self.tag_keys);
        checks.items("tagKeys", self.tag_keys.as_deref().map(<[_]>::len), 0, quota::TAGS);
        for (n, key) in (1..).zip(self.tag_keys.as_deref().unwrap_or_default()) {
            check_key(checks, &format!("tagKeys.{n}.member"), Some(key));
        }
    }
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        scene::tag_keys(key, self.tag_keys.as_deref()?.iter().map(String::as_str))
    }
}

impl<D: Tagged> Operation for Take<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS[1].name;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = D::WORDS[1].route;
    type Input = TakeInput<D::Naming>;
    type Target = D::Place;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<D::Place> {
        D::find(call, &input.naming)
    }

    async fn run(call: &Call, target: Allowed<D::Place>, input: Self::Input) -> Result<Empty> {
        let gone = given(&input.tag_keys, "tagKeys")?.clone();
        change(call, D::at(&target)?, move |entity, _| {
            let named = |tag: &Tag| gone.iter().any(|key| key.eq_ignore_ascii_case(&tag.key));
            entity.tags_mut().retain(|tag| !named(tag));
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// ListUserTags, ListRoleTags, ListPolicyTags:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListUserTags.html>.
pub struct List<D>(PhantomData<fn() -> D>);

/// What [`List`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagsOutput {
    tags: Vec<TagPair>,
    #[serde(flatten)]
    next: Next,
}

impl<D: Tagged> Operation for List<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS[2].name;
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = D::WORDS[2].route;
    type Input = PagedInput<D::Naming>;
    type Target = D::Place;
    type Output = ListTagsOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<D::Place> {
        D::find(call, &input.naming)
    }

    async fn run(
        call: &Call,
        target: Allowed<D::Place>,
        input: Self::Input,
    ) -> Result<ListTagsOutput> {
        let entity = D::at(&target)?.there()?;
        let all = pairs(entity.tags());
        let (tags, next) =
            input.paging.page(call, entity.id(), all, |tag| tag.key.clone().unwrap_or_default())?;
        Ok(ListTagsOutput { tags, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> TagPair {
        TagPair { key: Some(key.to_owned()), value: Some(value.to_owned()) }
    }

    #[test]
    fn keys_differ_by_more_than_letter_case() {
        let twice = sound(&[pair("Team", "a"), pair("team", "b")]).expect_err("twice");
        assert_eq!(twice.condition, Condition::Tag);
        assert!(sound(&[pair("AWS:x", "")]).is_err());
        let tags = sound(&[pair("Team", "a"), pair("cost", "1")]).expect("sound");
        let put = sound(&[pair("team", "b")]).expect("sound");
        let all = merged(&tags, &put).expect("few");
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].key.as_str(), all[0].value.as_str()), ("team", "b"));
    }

    #[test]
    fn tags_have_letters_numbers_spaces_and_a_few_signs() {
        assert!(is_tag("Zoë 7\u{a0}\u{3000}_.:/=+-@"));
        "\t\n\u{85}*#,;!".chars().for_each(|c| assert!(!is_tag(c.to_string().as_str()), "{c:?}"));
    }

    #[test]
    fn a_request_s_tags_answer_conditions() {
        let tags = [pair("Team", "a"), pair("cost", "1")];
        assert_eq!(brought(Some(&tags), "aws:requesttag/team"), Some(Values::one("a")));
        let keys = Values::Many(vec!["Team".into(), "cost".into()]);
        assert_eq!(brought(Some(&tags), "aws:tagkeys"), Some(keys));
        assert_eq!(brought(Some(&[]), "aws:tagkeys"), None);
        assert_eq!(brought(None, "aws:requesttag/team"), None);
    }

    #[test]
    fn there_is_a_limit_to_their_number() {
        let many: Vec<Tag> =
            (0..50).map(|n| Tag { key: n.to_string(), value: String::new() }).collect();
        assert!(merged(&many, &[Tag { key: "7".into(), value: "x".into() }]).is_ok());
        let over = merged(&many, &[Tag { key: "x".into(), value: String::new() }]);
        assert!(over.is_err_and(|e| e.condition == Condition::LimitExceeded));
    }
}
