//! BatchGetSecretValue: several values at once, with an error for each that can't be read.

use super::filter::{self, Filter, Filters};
use super::list::ListSecrets;
use super::value::{GetSecretValue, SecretValue, read};
use super::{SecretTarget, facts, locate};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::ops::{Access, Input, Operation, Route, find};
use crate::store::listing::{Listed, Listing, Order, Place};
use crate::store::records::Rows;
use crate::store::secrets::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Values on a page at most, and where the request doesn't say.
const PAGE: i64 = 20;
/// Secrets that one call looks at; where the filters let few pass, the page is short and says where
/// to go on.
const LOOKED_AT: i64 = 10_000;

/// BatchGetSecretValue:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html>.
pub struct BatchGetSecretValue;

/// What [`BatchGetSecretValue`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct BatchGetSecretValueInput {
    secret_id_list: Option<Vec<String>>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    filters: Option<Vec<Filter>>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

impl Input for BatchGetSecretValueInput {
    fn check(&self, checks: &mut Checks) {
        checks.items("secretIdList", self.secret_id_list.as_ref().map(Vec::len), 1, 20);
        for (n, id) in self.secret_id_list.iter().flatten().enumerate() {
            checks.length(&format!("secretIdList.{}.member", n + 1), Some(id), 1, 2048);
        }
        filter::check(self.filters.as_deref(), checks);
        checks.range("maxResults", self.max_results, 1, PAGE);
        checks.length("nextToken", self.next_token.as_deref(), 1, 4096);
    }
}

/// What [`BatchGetSecretValue`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct BatchGetSecretValueOutput {
    secret_values: Vec<SecretValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    errors: Vec<ItemError>,
}

/// Why one value is missing in the answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
struct ItemError {
    secret_id: String,
    error_code: &'static str,
    message: String,
}

impl Operation for BatchGetSecretValue {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "BatchGetSecretValue";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/secrets:batchGetValue" };
    type Input = BatchGetSecretValueInput;
    type Target = OwnAccount;
    type Output = BatchGetSecretValueOutput;

    async fn locate(call: &Call, _: &BatchGetSecretValueInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: BatchGetSecretValueInput,
    ) -> Result<BatchGetSecretValueOutput> {
        match (&input.secret_id_list, &input.filters) {
            (Some(ids), None) => listed(call, ids, &input).await,
            (None, Some(filters)) => {
                // What it finds is a list of secrets, also where it may read none of them.
                call.allow(ListSecrets::NAME, OwnAccount::of(call))?;
                filtered(call, filters, &input).await
            }
            _ => Err(invalid("You must provide either SecretIdList or Filters, but not both.")),
        }
    }
}

/// The values of the secrets that the request names.
async fn listed(
    call: &Call,
    ids: &[String],
    input: &BatchGetSecretValueInput,
) -> Result<BatchGetSecretValueOutput> {
    if input.max_results.is_some() || input.next_token.is_some() {
        return Err(invalid("MaxResults and NextToken can be used with Filters only."));
    }
    let mut gathered = Gathered::default();
    for id in ids {
        gathered.add(call, id, locate(call, id)).await?;
    }
    Ok(gathered.into_output(None))
}

/// A page of the values of the secrets that pass the filters, by name.
async fn filtered(
    call: &Call,
    filters: &[Filter],
    input: &BatchGetSecretValueInput,
) -> Result<BatchGetSecretValueOutput> {
    let written = serde_json::to_string(filters)
        .map_err(|e| Error::internal(format!("filters that can't be written: {e}")))?;
    let scope = format!("{}/{}/{written}", call.caller.account, BatchGetSecretValue::NAME);
    let after = match &input.next_token {
        Some(token) => Some(Place::Name(call.pages.position(&scope, token)?)),
        None => None,
    };
    let wanted = Wanted {
        filters: Filters::new(Some(filters))?,
        most: usize::try_from(input.max_results.unwrap_or(PAGE)).unwrap_or(1),
        listing: Listing {
            account: call.caller.account.clone(),
            order: Order::Name,
            descending: false,
            after,
            limit: LOOKED_AT + 1,
        },
    };
    let page = call.records.scan(move |rows| page(rows, &wanted)).await?;
    let mut gathered = Gathered::default();
    for secret in page.secrets {
        let target = SecretTarget::found(&call.region, Arc::new(secret));
        let arn = target.arn().to_owned();
        gathered.add(call, &arn, Ok(target)).await?;
    }
    Ok(gathered.into_output(page.next.map(|name| call.pages.token(&scope, &name))))
}

/// Which secrets a page is to hold.
struct Wanted {
    filters: Filters,
    most: usize,
    listing: Listing,
}

/// A page, and the name after which the next one begins.
#[derive(Default)]
struct Page {
    secrets: Vec<Secret>,
    next: Option<String>,
}

fn page(rows: &mut Rows<'_>, wanted: &Wanted) -> Result<Page> {
    let (mut page, mut looked_at, mut last) = (Page::default(), 0, None);
    rows.list_secrets(&wanted.listing, |Listed { secret, .. }| {
        let passes = secret.deleted.is_none() && wanted.filters.matches(&secret);
        if looked_at == LOOKED_AT || (passes && page.secrets.len() == wanted.most) {
            page.next = last.take();
            return Ok(false);
        }
        looked_at += 1;
        last = Some(secret.name.clone());
        if passes {
            page.secrets.push(secret);
        }
        Ok(true)
    })?;
    Ok(page)
}

#[derive(Default)]
struct Gathered {
    values: Vec<SecretValue>,
    errors: Vec<ItemError>,
}

impl Gathered {
    /// Reads one secret. What is the matter with it alone becomes its error; a dependency that is
    /// down fails the whole request.
    async fn add(&mut self, call: &Call, id: &str, found: Result<SecretTarget>) -> Result<()> {
        let outcome = match found
            .and_then(|target| call.allow_with(GetSecretValue::NAME, target, &facts::Item(id)))
        {
            Ok(target) => read(call, target, None, None).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(value) => self.values.push(value),
            Err(error) if concerns_all(error.condition) => return Err(error),
            Err(error) => self.errors.push(ItemError {
                secret_id: id.to_owned(),
                error_code: (call.code_of)(row(call), error.condition),
                message: error.message.into_owned(),
            }),
        }
        Ok(())
    }

    fn into_output(self, next_token: Option<String>) -> BatchGetSecretValueOutput {
        BatchGetSecretValueOutput { secret_values: self.values, next_token, errors: self.errors }
    }
}

/// The row whose codes the errors of single values have.
fn row(call: &Call) -> &'static crate::ops::Row {
    find(GetSecretValue::SERVICE, GetSecretValue::NAME).unwrap_or(call.row)
}

fn concerns_all(condition: Condition) -> bool {
    matches!(
        condition,
        Condition::Throttled
            | Condition::KeyUnavailable
            | Condition::DependencyTimeout
            | Condition::Unavailable
            | Condition::Internal
    )
}

fn invalid(text: &'static str) -> Error {
    Error::new(Condition::InvalidParameter, text)
}
