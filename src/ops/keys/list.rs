//! ListKeys, and how KMS's lists are paged.

use crate::name::{Service, key_arn};
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where in a list to begin, and how much of it is wanted.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Paging {
    limit: Option<i64>,
    marker: Option<String>,
}

impl Paging {
    /// The service model's bounds.
    pub(super) fn check(&self, checks: &mut Checks) {
        checks.range("limit", self.limit, 1, 1000);
        checks.length("marker", self.marker.as_deref(), 1, 1024);
        let latin = |text: &str| text.chars().all(|c| ('\u{20}'..='\u{ff}').contains(&c));
        checks.pattern("marker", self.marker.as_deref(), "[\\u0020-\\u00FF]*", latin);
    }

    /// The position to begin after, empty for the start, and how many items to answer with:
    /// `default` if nothing is said, never more than `most`.
    pub(super) fn start(
        &self,
        call: &Call,
        scope: &str,
        default: i64,
        most: i64,
    ) -> Result<(String, usize)> {
        let after = match &self.marker {
            Some(marker) => call.pages.position(&scoped(call, scope), marker)?,
            None => String::new(),
        };
        let limit = self.limit.unwrap_or(default).min(most);
        Ok((after, usize::try_from(limit).unwrap_or(1)))
    }

    /// Whether a marker was given.
    pub(super) fn goes_on(&self) -> bool {
        self.marker.is_some()
    }
}

/// Where the list goes on, if it does.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Next {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    truncated: bool,
}

impl Next {
    /// Cuts `items`, of which one more than `limit` was looked for, and says where to go on:
    /// after the last one that is left, whose position is `position`.
    pub(super) fn cut<T>(
        call: &Call,
        scope: &str,
        items: &mut Vec<T>,
        limit: usize,
        position: impl Fn(&T) -> &str,
    ) -> Self {
        let truncated = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| truncated);
        let next_marker = last.map(|item| call.pages.token(&scoped(call, scope), position(item)));
        Self { next_marker, truncated }
    }
}

/// A list's scope for its markers: account, operation, and what else shapes the list.
fn scoped(call: &Call, scope: &str) -> String {
    [&call.caller.account, "/", call.row.name, "/", scope].concat()
}

/// One more than `limit`, for a query: so one sees whether the list goes on.
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// Refuses a marker where no page is ever followed by another, in an operation whose model knows
/// no InvalidMarkerException.
pub(super) fn refuse_marker() -> Error {
    Error::new(Condition::Validation, "Invalid marker")
}

/// ListKeys: <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListKeys.html>.
pub struct ListKeys;

/// What [`ListKeys`] takes.
#[derive(Deserialize, JsonSchema)]
pub struct ListKeysInput {
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListKeysInput {
    fn check(&self, checks: &mut Checks) {
        self.paging.check(checks);
    }
}

/// A line of [`ListKeys`]'s answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct KeyListEntry {
    key_id: String,
    key_arn: String,
}

/// What [`ListKeys`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeysOutput {
    keys: Vec<KeyListEntry>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListKeys {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListKeys";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys" };
    type Input = ListKeysInput;
    type Target = OwnAccount;
    type Output = ListKeysOutput;

    async fn locate(call: &Call, _: &ListKeysInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: ListKeysInput,
    ) -> Result<ListKeysOutput> {
        let (after, limit) = input.paging.start(call, "", 100, 1000)?;
        let account = call.caller.account.clone();
        let found = call
            .records
            .scan(move |rows| Ok::<_, Error>(rows.keys(&account, &after, one_more(limit))?))
            .await?;
        let mut keys: Vec<_> = found
            .into_iter()
            .map(|key| KeyListEntry {
                key_arn: key_arn(&call.region, &key.account, &key.id),
                key_id: key.id,
            })
            .collect();
        let next = Next::cut(call, "", &mut keys, limit, |entry| &entry.key_id);
        Ok(ListKeysOutput { keys, next })
    }
}
