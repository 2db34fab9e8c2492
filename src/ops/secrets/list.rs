//! ListSecrets: along an index, page by page, with filters.

use super::describe::Description;
use super::filter::{self, Filter, Filters};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::ops::{Access, Input, Operation, Route};
use crate::store::listing::{Listed, Listing, Order, Place};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Secrets in a page if nothing is said, and the most that can be asked for.
const PAGE: i64 = 100;
/// The most secrets that one call looks at: one whose filters let few pass answers a short page and
/// where to go on.
const LOOKED_AT: i64 = 10_000;

/// ListSecrets:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html>.
pub struct ListSecrets;

/// What [`ListSecrets`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListSecretsInput {
    include_planned_deletion: Option<bool>,
    max_results: Option<i64>,
    next_token: Option<String>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    filters: Option<Vec<Filter>>,
    sort_order: Option<String>,
    sort_by: Option<String>,
}

impl Input for ListSecretsInput {
    fn check(&self, checks: &mut Checks) {
        checks.range("maxResults", self.max_results, 1, PAGE);
        checks.length("nextToken", self.next_token.as_deref(), 1, 4096);
        filter::check(self.filters.as_deref(), checks);
        checks.one_of("sortOrder", self.sort_order.as_deref(), &["asc", "desc"]);
        let orders = ["created-date", "last-accessed-date", "last-changed-date", "name"];
        checks.one_of("sortBy", self.sort_by.as_deref(), &orders);
    }
}

/// What [`ListSecrets`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListSecretsOutput {
    secret_list: Vec<Description>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Operation for ListSecrets {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "ListSecrets";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/secrets" };
    type Input = ListSecretsInput;
    type Target = OwnAccount;
    type Output = ListSecretsOutput;

    async fn locate(call: &Call, _: &ListSecretsInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: ListSecretsInput,
    ) -> Result<ListSecretsOutput> {
        let wanted = wanted(call, &input)?;
        let scope = scope(call, &input, &wanted.listing)?;
        let listing =
            Listing { after: after(call, &input, &scope, wanted.listing.order)?, ..wanted.listing };
        let wanted = Wanted { listing, ..wanted };
        let page = call.records.scan(move |rows| page(rows, &wanted)).await?;
        Ok(ListSecretsOutput {
            secret_list: page.secrets.into_iter().map(|(_, described)| described).collect(),
            next_token: page.next.map(|place| call.pages.token(&scope, &written(&place))),
        })
    }
}

/// Which secrets a page is to hold.
struct Wanted {
    region: String,
    listing: Listing,
    pending: bool,
    filters: Filters,
    most: usize,
}

fn wanted(call: &Call, input: &ListSecretsInput) -> Result<Wanted> {
    let order = match input.sort_by.as_deref() {
        Some("name") => Order::Name,
        Some("last-changed-date") => Order::Changed,
        Some("last-accessed-date") => Order::Accessed,
        _ => Order::Created,
    };
    let listing = Listing {
        account: call.caller.account.clone(),
        order,
        descending: input.sort_order.as_deref() == Some("desc"),
        after: None,
        limit: LOOKED_AT + 1,
    };
    Ok(Wanted {
        region: call.region.clone(),
        listing,
        pending: input.include_planned_deletion.unwrap_or(false),
        filters: Filters::new(input.filters.as_deref())?,
        most: usize::try_from(input.max_results.unwrap_or(PAGE)).unwrap_or(1),
    })
}

/// What a token is bound to: all that shapes the list. The size of its pages may change.
fn scope(call: &Call, input: &ListSecretsInput, listing: &Listing) -> Result<String> {
    let filters = serde_json::to_string(input.filters.as_deref().unwrap_or_default())
        .map_err(|e| Error::internal(format!("filters that can't be written: {e}")))?;
    let pending = input.include_planned_deletion.unwrap_or(false);
    Ok(format!(
        "{}/{}/{:?}/{}/{pending}/{filters}",
        call.caller.account, call.row.name, listing.order, listing.descending
    ))
}

fn after(
    call: &Call,
    input: &ListSecretsInput,
    scope: &str,
    order: Order,
) -> Result<Option<Place>> {
    let Some(token) = &input.next_token else { return Ok(None) };
    let position = call.pages.position(scope, token)?;
    let place = read(order, &position);
    place.map(Some).ok_or_else(|| Error::new(Condition::InvalidNextToken, "Invalid token"))
}

/// A place as it stands in a token.
fn written(place: &Place) -> String {
    match place {
        Place::Number(number, uid) => format!("{number}/{uid}"),
        Place::Name(name) => name.clone(),
    }
}

fn read(order: Order, position: &str) -> Option<Place> {
    if order == Order::Name {
        return Some(Place::Name(position.to_owned()));
    }
    let (number, uid) = position.split_once('/')?;
    Some(Place::Number(number.parse().ok()?, uid.parse().ok()?))
}

/// A page on its way.
#[derive(Default)]
struct Page {
    /// Each with its row.
    secrets: Vec<(i64, Description)>,
    looked_at: i64,
    last: Option<Place>,
    next: Option<Place>,
}

/// Gathers a page: until one secret more than wanted is found, or enough were looked at.
fn page(rows: &mut Rows<'_>, wanted: &Wanted) -> Result<Page> {
    let mut page = Page::default();
    rows.list_secrets(&wanted.listing, |listed| Ok(page.take(wanted, listed)))?;
    for (uid, described) in &mut page.secrets {
        described.add_rotation(rows.rotation(*uid)?.as_ref());
    }
    Ok(page)
}

impl Page {
    /// Looks at the next secret of the list; answers whether to go on.
    fn take(&mut self, wanted: &Wanted, listed: Listed) -> bool {
        let secret = &listed.secret;
        let passes = (wanted.pending || secret.deleted.is_none()) && wanted.filters.matches(secret);
        if self.looked_at == LOOKED_AT || (passes && self.secrets.len() == wanted.most) {
            self.next = self.last.take();
            return false;
        }
        if passes {
            let described = Description::listed(&wanted.region, secret, listed.accessed);
            self.secrets.push((secret.uid, described));
        }
        self.looked_at += 1;
        self.last = Some(listed.place);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::secrets::Secret;
    use proptest::prelude::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for place in [Place::Number(i64::MIN, 7), Place::Number(1_767_225_600_123, i64::MAX)] {
            assert_eq!(read(Order::Created, &written(&place)), Some(place));
        }
        let name = Place::Name("a/b-1/2".into());
        assert_eq!(read(Order::Name, &written(&name)), Some(name));
        assert_eq!(read(Order::Changed, "a/b"), None);
        assert_eq!(read(Order::Changed, "1"), None);
    }

    fn wanted(most: usize, pending: bool) -> Wanted {
        let listing = Listing {
            account: "111122223333".into(),
            order: Order::Name,
            descending: false,
            after: None,
            limit: LOOKED_AT + 1,
        };
        let filters: Vec<Filter> =
            serde_json::from_str(r#"[{"Key":"name","Values":["a"]}]"#).expect("JSON");
        let filters = Filters::new(Some(&filters)).expect("filters");
        Wanted { region: "eu-central-1".into(), listing, pending, filters, most }
    }

    fn listed(name: &str, pending: bool) -> Listed {
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "uid": 1, "account": "111122223333", "name": name, "suffix": "AbCdEf",
            "created": 0, "changed": 0, "deleted": pending.then_some(1), "stages": [], "versions": 0, "prune_after": 0, "revision": 1,
        }))
        .expect("a secret");
        Listed { place: Place::Name(secret.name.clone()), secret, accessed: None }
    }

    fn gather(wanted: &Wanted, names: &[String], after: Option<&str>) -> (usize, Option<String>) {
        let mut page = Page::default();
        for name in names.iter().filter(|n| after.is_none_or(|a| n.as_str() > a)) {
            if !page.take(wanted, listed(name, name.contains('x'))) {
                break;
            }
        }
        (page.secrets.len(), page.next.as_ref().map(written))
    }

    proptest! {
        #[test]
        fn pages_hold_every_secret_once_and_the_last_has_no_token(
            names in prop::collection::btree_set("[abx]{1,3}", 0..30), most in 1..6_usize,
            pending: bool,
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let wanted = wanted(most, pending);
            let expected =
                names.iter().filter(|n| n.starts_with('a') && (pending || !n.contains('x'))).count();
            let (mut total, mut after) = (0, None);
            loop {
                let (got, next) = gather(&wanted, &names, after.as_deref());
                total += got;
                prop_assert!(got <= most);
                prop_assert!(next.is_none() || got == most, "a page with a token is full");
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(total, expected);
        }
    }

    #[test]
    fn a_call_that_finds_little_stops_and_says_where_to_go_on() {
        let names: Vec<String> = (0..=LOOKED_AT).map(|i| format!("b{i:05}")).collect();
        let (got, next) = gather(&wanted(1, false), &names, None);
        assert_eq!((got, next.as_deref()), (0, Some("b09999")));
        assert_eq!(gather(&wanted(1, false), &names, Some("b09999")), (0, None));
    }
}
