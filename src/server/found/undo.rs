//! What a founding that failed takes back: the keys that it has made, in tokens that may hold others'.

use super::super::{Error, ROW_MACS};
use crate::custody::{self, lane::Lane, tokens::Tokens};
use crate::envelope::store_key::{StoreKey, WrappedStoreKey};
use crate::name::BackingKeyId;
use crate::store::records::{Records, RowMac};
use crate::store::{Store, meta};
use std::time::{Duration, Instant};

/// How long is waited for a token that is still making a key which nobody waits for any more. The
/// slowest cards take about a minute for an RSA key.
const PATIENCE: Duration = Duration::from_secs(120);

/// What it takes.
pub(super) struct Undo {
    /// The database, which this founding has made: all that it names is this founding's.
    pub(super) store: Store,
    pub(super) tokens: Tokens,
    /// Keys that the database does not name yet.
    pub(super) made: Vec<BackingKeyId>,
}

impl Undo {
    /// Destroys the keys, and says of which it could not be done. The founding's own error is what the
    /// caller is told.
    pub(super) async fn carry_out(mut self, region: &str) {
        match self.named(region).await {
            Ok(named) => self.made.extend(named),
            // One that it has not come to writing names none, which is no error.
            Err(error) => {
                tracing::error!(%error, "keys that the database names may be left in the token");
            }
        }
        for id in &self.made {
            self.destroy(*id).await;
        }
    }

    /// The keys that the database names.
    async fn named(&self, region: &str) -> Result<Vec<BackingKeyId>, Error> {
        let Some(site) = self.store.read(|tx| meta::site(tx))? else { return Ok(Vec::new()) };
        let wrapped: WrappedStoreKey = serde_json::from_value(site.store_key)
            .map_err(|_| Error::Refused("the store key in the database is damaged".into()))?;
        let store_key = StoreKey::unwrap(&self.tokens, region, &wrapped).await?;
        let mac = RowMac::new(store_key.derive(ROW_MACS)?.expose());
        let records = Records::new(self.store.clone(), mac, 1);
        records.read(|rows| {
            let mut named: Vec<_> = rows.backing_keys_in_use()?.into_iter().collect();
            named.extend(rows.intents()?.into_iter().map(|intent| intent.backing_key));
            named.extend(rows.seal()?.map(|seal| seal.key));
            Ok(named)
        })
    }

    /// Its id is 128 random bits: whichever token has it, it is the one.
    async fn destroy(&self, id: BackingKeyId) {
        for member in self.tokens.all() {
            let destroyed = match member.lane() {
                Ok(lane) => take_back(lane, id).await,
                Err(error) => Err(error),
            };
            if let Err(error) = destroyed {
                tracing::error!(
                    token = member.name,
                    %error,
                    "key {id} may be left in the token and is nobody's: if it is there, remove it \
                     (of PKCS#11: `pkcs11-tool --login --delete-object --type secrkey --id {id}`, or \
                     `--type privkey`)"
                );
            }
        }
    }
}

/// Destroys a key of which no durable intent speaks, also while the token is still making it: a lane
/// destroys nothing before that is through. That it is not there is a success.
///
/// # Errors
/// Those of the token; [`custody::Error::Timeout`] if it is not through after two minutes.
pub async fn take_back(lane: &Lane, id: BackingKeyId) -> custody::Result<()> {
    let patience = Instant::now() + PATIENCE;
    loop {
        match lane.destroy(id).await {
            Err(custody::Error::Timeout(_)) if Instant::now() < patience => {}
            Err(custody::Error::KeyNotFound(_)) => return Ok(()),
            settled => return settled,
        }
    }
}
