//! Which tokens hold the store key, without which nothing else is read.

use super::{Appliance, Error};
use crate::custody::lane::Lane;
use crate::envelope::store_key::{StoreKey, WrappedStoreKey};
use crate::name::Scheme;
use crate::ops::error::Error as Refusal;
use crate::ops::keys::material::{adopt, discard, make_holder, random_id};
use crate::store::meta::Site;
use std::sync::Arc;

impl Appliance {
    /// The store key as it stands in the database.
    pub fn wrapped_store_key(&self) -> Result<WrappedStoreKey, Error> {
        serde_json::from_value(self.site.store_key.clone())
            .map_err(|_| Error::Refused("the store key in the database is damaged".into()))
    }

    /// Has a token hold the store key too; answers whether it did not before.
    pub async fn add_store_holder(&mut self, token: &str) -> Result<bool, Error> {
        let mut wrapped = self.wrapped_store_key()?;
        if wrapped.wraps.iter().any(|wrap| wrap.holder.token == token) {
            return Ok(false);
        }
        let services = self.services.clone();
        let lane = services.tokens.of(token)?;
        let scheme = store_scheme(lane)?;
        let key = StoreKey::unwrap(&services.tokens, &services.region, &wrapped).await?;
        let holder = make_holder(&services, token, (random_id(&services)?, scheme)).await?;
        let made = [holder.clone()];
        let added = async {
            let random = &*services.world.random;
            let wrap = key.wrap(lane, random, &services.region, (holder, scheme)).await?;
            wrapped.wraps.push(wrap);
            let adopted = made.clone();
            self.put_store_key(&wrapped, move |rows| adopt(rows, &adopted)).await
        };
        let added = added.await;
        if added.is_err() {
            discard(&services, &made).await;
        }
        added.map(|()| true)
    }

    /// Has a token hold the store key no more; answers whether it did. Its key stays in the token,
    /// where it opens nothing that is left.
    pub async fn remove_store_holder(&mut self, token: &str) -> Result<bool, Error> {
        let mut wrapped = self.wrapped_store_key()?;
        let before = wrapped.wraps.len();
        wrapped.wraps.retain(|wrap| wrap.holder.token != token);
        if wrapped.wraps.is_empty() {
            let text = format!("`{token}` is the only token that holds the store key");
            return Err(Error::Refused(text));
        }
        if wrapped.wraps.len() == before {
            return Ok(false);
        }
        self.put_store_key(&wrapped, |_| Ok(())).await?;
        Ok(true)
    }

    async fn put_store_key(
        &mut self,
        wrapped: &WrappedStoreKey,
        mut beside: impl FnMut(&mut crate::store::records::Rows<'_>) -> Result<(), Refusal>
        + Send
        + 'static,
    ) -> Result<(), Error> {
        let store_key = serde_json::to_value(wrapped)
            .map_err(|_| crate::store::Error::Internal("a store key that can't be written"))?;
        let site = Arc::new(Site { store_key, ..self.site.clone() });
        let row = site.clone();
        let services = &self.services;
        services
            .records
            .write(move |rows| {
                beside(rows)?;
                Ok::<_, Refusal>(rows.replace_site(&row)?)
            })
            .await?;
        self.site = (*site).clone();
        let held: Vec<_> = wrapped.wraps.iter().map(|wrap| &wrap.holder.token).collect();
        let particulars = serde_json::json!({ "storeKeyHolders": held }).to_string();
        Ok(services.note("SetStoreKeyHolders", &self.site.account, particulars.as_bytes()).await?)
    }
}

/// The scheme by which a token holds the store key.
///
/// # Errors
/// [`Error::Refused`] if it has none that is good for it: with `rsa-oaep` anybody could put another
/// store key in the place of this one.
pub fn store_scheme(lane: &Lane) -> Result<Scheme, Error> {
    let able = |scheme: &Scheme| lane.described().schemes.contains(scheme);
    [Scheme::HmacKdf, Scheme::Ecdh].into_iter().find(able).ok_or_else(|| {
        let profile = lane.profile();
        Error::Refused(format!("a token of profile `{profile}` can't hold the store key"))
    })
}
