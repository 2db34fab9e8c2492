//! ListStoreKeyHolders, AddStoreKeyHolder, RemoveStoreKeyHolder: which tokens hold the store key, without
//! which nothing else is read. They are about the appliance, so they are its first account's.

use super::list::HoldingToken;
use super::{check_token, name_of, serial_of, serial_of_lost};
use crate::custody::lane::Lane;
use crate::envelope::store_key::{StoreKey, WrappedStoreKey};
use crate::name::{Scheme, Service};
use crate::ops::call::{Allowed, Call, NO_RESOURCE, Services, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::keys::material::{adopt, discard, make_holder, random_id};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::keys::KeyHolder;
use crate::store::meta::Site;
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The appliance: its first account's.
pub struct TheAppliance(String);

impl TheAppliance {
    fn of(call: &Call) -> Result<Self> {
        Ok(Self(site(call)?.account))
    }
}

impl Target for TheAppliance {
    fn arn(&self) -> &str {
        NO_RESOURCE
    }
    fn owner(&self) -> &str {
        &self.0
    }
}

/// ListStoreKeyHolders.
pub struct ListStoreKeyHolders;

/// What [`ListStoreKeyHolders`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListStoreKeyHoldersInput {}

impl Input for ListStoreKeyHoldersInput {
    fn check(&self, _: &mut Checks) {}
}

/// What operations on the holders of the store key answer: who holds it now.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct StoreKeyHolders {
    /// Whether that was another one before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// The tokens, in the order in which they came to hold it.
    pub holders: Vec<HoldingToken>,
}

impl Operation for ListStoreKeyHolders {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListStoreKeyHolders";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/store-key/holders" };
    type Input = ListStoreKeyHoldersInput;
    type Target = TheAppliance;
    type Output = StoreKeyHolders;

    async fn locate(call: &Call, _: &ListStoreKeyHoldersInput) -> Result<TheAppliance> {
        TheAppliance::of(call)
    }

    async fn run(
        call: &Call,
        _: Allowed<TheAppliance>,
        _: ListStoreKeyHoldersInput,
    ) -> Result<StoreKeyHolders> {
        Ok(holding(call, &known(call)?.1, false))
    }
}

/// AddStoreKeyHolder.
pub struct AddStoreKeyHolder;

/// What [`AddStoreKeyHolder`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AddStoreKeyHolderInput {
    /// The token, by its name in the configuration.
    token: Option<String>,
}

impl Input for AddStoreKeyHolderInput {
    fn check(&self, checks: &mut Checks) {
        check_token(checks, &self.token);
    }
}

impl Operation for AddStoreKeyHolder {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "AddStoreKeyHolder";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/store-key/holders/{Token}" };
    const CRYPTOGRAPHIC: bool = true;
    type Input = AddStoreKeyHolderInput;
    type Target = TheAppliance;
    type Output = StoreKeyHolders;

    async fn locate(call: &Call, _: &AddStoreKeyHolderInput) -> Result<TheAppliance> {
        TheAppliance::of(call)
    }

    async fn run(
        call: &Call,
        _: Allowed<TheAppliance>,
        input: AddStoreKeyHolderInput,
    ) -> Result<StoreKeyHolders> {
        let token = serial_of(call, given(&input.token, "token")?)?;
        let (site, wrapped) = known(call)?;
        if wrapped.wraps.iter().any(|wrap| wrap.holder.token == token) {
            return Ok(holding(call, &wrapped, false));
        }
        let lane = call.tokens.of(&token)?;
        let scheme = scheme(lane)?;
        let key = StoreKey::unwrap(&call.tokens, &call.region, &wrapped).await?;
        let holder = make_holder(call, &token, (random_id(call)?, scheme)).await?;
        let added = put_wrap(call, (site, wrapped), &key, (lane, holder.clone(), scheme)).await;
        if added.is_err() {
            discard(call, &[holder]).await;
        }
        added
    }
}

/// Wraps the store key for one token more.
async fn put_wrap(
    call: &Call,
    (site, mut wrapped): (Site, WrappedStoreKey),
    key: &StoreKey,
    (lane, holder, scheme): (&Lane, KeyHolder, Scheme),
) -> Result<StoreKeyHolders> {
    let made = [holder.clone()];
    let wrap = key.wrap(lane, &*call.world.random, &call.region, (holder, scheme)).await?;
    wrapped.wraps.push(wrap);
    put(call, site, &wrapped, move |rows| adopt(rows, &made)).await
}

/// RemoveStoreKeyHolder. The key stays in the token, where it opens nothing that is left.
pub struct RemoveStoreKeyHolder;

/// What [`RemoveStoreKeyHolder`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RemoveStoreKeyHolderInput {
    /// The token, by its name in the configuration; one that is lost also by its serial number.
    token: Option<String>,
    /// Whether the token is gone for good: then what was left to be done in it is given up.
    lost: Option<bool>,
}

impl Input for RemoveStoreKeyHolderInput {
    fn check(&self, checks: &mut Checks) {
        check_token(checks, &self.token);
    }
}

impl Operation for RemoveStoreKeyHolder {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "RemoveStoreKeyHolder";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/store-key/holders/{Token}" };
    type Input = RemoveStoreKeyHolderInput;
    type Target = TheAppliance;
    type Output = StoreKeyHolders;

    async fn locate(call: &Call, _: &RemoveStoreKeyHolderInput) -> Result<TheAppliance> {
        TheAppliance::of(call)
    }

    async fn run(
        call: &Call,
        _: Allowed<TheAppliance>,
        input: RemoveStoreKeyHolderInput,
    ) -> Result<StoreKeyHolders> {
        let (name, lost) = (given(&input.token, "token")?, input.lost == Some(true));
        let token = serial_of_lost(call, name, lost)?;
        let (site, mut wrapped) = known(call)?;
        let before = wrapped.wraps.len();
        wrapped.wraps.retain(|wrap| wrap.holder.token != token);
        if wrapped.wraps.is_empty() {
            let text = format!("`{name}` is the only token that holds the store key");
            return Err(Error::new(Condition::InvalidState, text));
        }
        if wrapped.wraps.len() == before && !lost {
            return Ok(holding(call, &wrapped, false));
        }
        let forgotten = lost.then_some(token);
        put(call, site, &wrapped, move |rows| match &forgotten {
            Some(token) => forget(rows, token),
            None => Ok(()),
        })
        .await
    }
}

/// Gives up what was left to be done in a token that is gone for good.
fn forget(rows: &mut Rows<'_>, token: &str) -> Result<()> {
    let theirs = rows.intents()?.into_iter().filter(|intent| intent.token == token);
    Ok(theirs.map(|intent| intent.backing_key).try_for_each(|key| rows.delete_intent(key))?)
}

/// The scheme by which a token holds the store key.
///
/// # Errors
/// [`Condition::Unsupported`] if it has none that is good for it: with `rsa-oaep` anybody could put
/// another store key in the place of this one.
pub fn scheme(lane: &Lane) -> Result<Scheme> {
    let able = |scheme: &Scheme| lane.described().schemes.contains(scheme);
    [Scheme::HmacKdf, Scheme::Ecdh].into_iter().find(able).ok_or_else(|| {
        let profile = lane.profile();
        let text = format!("a token of profile `{profile}` can't hold the store key");
        Error::new(Condition::Unsupported, text)
    })
}

/// The store key as it stands in the database, wrapped.
///
/// # Errors
/// [`Condition::InvalidState`] if it is damaged; those of the database.
pub fn stored(services: &Services) -> Result<WrappedStoreKey> {
    read(&site(services)?)
}

fn site(services: &Services) -> Result<Site> {
    let site = services.records.read(|rows| rows.site())?;
    site.ok_or_else(|| Error::internal("a database without an appliance"))
}

fn read(site: &Site) -> Result<WrappedStoreKey> {
    WrappedStoreKey::read(&site.store_key).map_err(|_| {
        Error::new(Condition::InvalidState, "the store key in the database is damaged")
    })
}

fn known(services: &Services) -> Result<(Site, WrappedStoreKey)> {
    let site = site(services)?;
    let wrapped = read(&site)?;
    Ok((site, wrapped))
}

/// Writes the store key with other wraps, unless somebody has changed them since it was read.
async fn put(
    call: &Call,
    known: Site,
    wrapped: &WrappedStoreKey,
    mut beside: impl FnMut(&mut Rows<'_>) -> Result<()> + Send + 'static,
) -> Result<StoreKeyHolders> {
    let store_key = serde_json::to_value(wrapped)
        .map_err(|e| Error::internal(format!("a store key that can't be written: {e}")))?;
    let answer = holding(call, wrapped, store_key != known.store_key);
    call.answering(&answer)?;
    call.commit(move |rows| {
        let same = rows.site()?.filter(|site| site.store_key == known.store_key);
        let site = same.ok_or_else(|| {
            Error::new(Condition::Conflict, "the store key was changed meanwhile; try again")
        })?;
        beside(rows)?;
        Ok(rows.replace_site(&Site { store_key: store_key.clone(), ..site })?)
    })
    .await?;
    Ok(answer)
}

fn holding(call: &Call, wrapped: &WrappedStoreKey, changed: bool) -> StoreKeyHolders {
    let tokens = wrapped.wraps.iter().map(|wrap| &wrap.holder.token);
    let holders = tokens.map(|serial| HoldingToken {
        token: name_of(call, serial).map(str::to_owned),
        token_serial: serial.clone(),
        generations: 1,
    });
    StoreKeyHolders { changed, holders: holders.collect() }
}
