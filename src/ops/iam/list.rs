//! How IAM's lists are paged, and filtered by path.

use super::entity::Entity;
use super::invalid;
use super::name::Naming;
use crate::ops::Input;
use crate::ops::call::Call;
use crate::ops::error::{Error, Result};
use crate::ops::shape::Checks;
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where in a list to begin, and how much of it is wanted.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Paging {
    marker: Option<String>,
    max_items: Option<i64>,
}

/// How many items a page has if nothing is said.
const PAGE: usize = 100;
/// How many documents are read at a time.
const CHUNK: i64 = 256;

impl Paging {
    /// The service model's bounds.
    pub(super) fn check(&self, checks: &mut Checks) {
        checks.length("marker", self.marker.as_deref(), 1, 2048);
        checks.range("maxItems", self.max_items, 1, 1000);
    }

    /// The position to begin after, and the number of items that are wanted.
    pub(super) fn start(&self, call: &Call, scope: &str) -> Result<(String, usize)> {
        let after = match &self.marker {
            Some(marker) => call.pages.position(&scoped(call, scope), marker),
            None => Ok(String::new()),
        };
        let after = after.map_err(|_| invalid("Invalid Marker."))?;
        let limit = self.max_items.and_then(|n| usize::try_from(n).ok());
        Ok((after, limit.unwrap_or(PAGE)))
    }

    /// One page of a list that is at hand, whatever its order: `position` gives each item a place.
    pub(super) fn page<T>(
        &self,
        call: &Call,
        scope: &str,
        mut items: Vec<T>,
        position: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, Next)> {
        let (after, limit) = self.start(call, scope)?;
        items.sort_by_cached_key(&position);
        let first = items.partition_point(|item| position(item) <= after);
        let mut items: Vec<T> = items.into_iter().skip(first).take(limit + 1).collect();
        let next = Next::cut(call, scope, &mut items, limit, position);
        Ok((items, next))
    }

    /// One page of the caller's account's documents of this kind below a path, by name.
    pub(super) async fn documents<D: Entity>(
        &self,
        call: &Call,
        below: Option<&str>,
    ) -> Result<(Vec<D>, Next)> {
        let scope = below.unwrap_or("/").to_owned();
        let (after, limit) = self.start(call, &scope)?;
        let (account, below) = (call.caller.account.clone(), scope.clone());
        let read = move |rows: &mut Rows<'_>| read(rows, &account, &after, &below, limit + 1);
        let mut found = call.records.scan::<Vec<D>, Error>(read).await?;
        let next = Next::cut(call, &scope, &mut found, limit, folded);
        Ok((found, next))
    }
}

/// Up to `limit` documents after a name, below a path.
fn read<D: Entity>(
    rows: &mut Rows<'_>,
    account: &str,
    after: &str,
    below: &str,
    limit: usize,
) -> Result<Vec<D>> {
    let (mut found, mut after) = (Vec::new(), after.to_owned());
    loop {
        let chunk = rows.list_named::<D>(account, &after, CHUNK)?;
        let Some(last) = chunk.last() else { return Ok(found) };
        after = folded(last);
        let fitting = chunk.into_iter().filter(|d| d.path().starts_with(below));
        found.extend(fitting.take(limit - found.len()));
        if found.len() == limit {
            return Ok(found);
        }
    }
}

/// The place of a document among its kind.
fn folded<D: Entity>(document: &D) -> String {
    document.name().to_ascii_lowercase()
}

/// Where the list goes on, if it does.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Next {
    is_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    marker: Option<String>,
}

impl Next {
    /// Cuts `items`, of which one more than `limit` was looked for, and says where to go on.
    fn cut<T>(
        call: &Call,
        scope: &str,
        items: &mut Vec<T>,
        limit: usize,
        position: impl Fn(&T) -> String,
    ) -> Self {
        let is_truncated = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| is_truncated);
        let marker = last.map(|item| call.pages.token(&scoped(call, scope), &position(item)));
        Self { is_truncated, marker }
    }
}

/// A list's scope for its markers: account, operation, and what else shapes the list.
fn scoped(call: &Call, scope: &str) -> String {
    [&call.caller.account, "/", call.row.name, "/", scope].concat()
}

/// A list of everything below a path.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct BelowInput {
    pub(super) path_prefix: Option<String>,
    #[serde(flatten)]
    pub(super) paging: Paging,
}

impl Input for BelowInput {
    fn check(&self, checks: &mut Checks) {
        check_prefix(checks, self.path_prefix.as_deref());
        self.paging.check(checks);
    }
}

/// What lists of what hangs on one thing take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct PagedInput<N> {
    #[serde(flatten)]
    pub(super) naming: N,
    #[serde(flatten)]
    pub(super) paging: Paging,
}

impl<N: Naming> Input for PagedInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        self.paging.check(checks);
    }
}

/// The service model's bounds of a path prefix.
pub(super) fn check_prefix(checks: &mut Checks, prefix: Option<&str>) {
    checks.length("pathPrefix", prefix, 1, 512);
    let fits = |text: &str| {
        text.starts_with('/') && text.bytes().all(|b| b == b'/' || (0x21..0x80).contains(&b))
    };
    checks.pattern("pathPrefix", prefix, "\\u002F[\\u0021-\\u007F]*", fits);
}
