//! What the database says that it is: one document, written at init.

use super::records::Rows;
use super::{Error, Result, Tx, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};

/// An appliance's identity.
///
/// It has no MAC: the key for MACs is what it leads to. Its parts guard themselves: the store key
/// is authenticated by its wrapping and bound to the region.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Site {
    /// The region, part of every ARN.
    pub region: String,
    /// The first account.
    pub account: String,
    /// The store key, wrapped, as the layer above reads it.
    pub store_key: serde_json::Value,
    /// When it was made.
    pub created: Time,
}

/// The site, if the database has been initialised.
pub fn site(tx: &mut dyn Tx) -> Result<Option<Site>> {
    one(tx, "SELECT value FROM meta WHERE name = 'site'", &[], |row| {
        serde_json::from_slice(row.blob(0)?).map_err(|e| Error::Corrupt(format!("the site: {e}")))
    })
}

/// Writes the site, once.
pub fn put_site(tx: &mut dyn Tx, site: &Site) -> Result<()> {
    let bytes =
        serde_json::to_vec(site).map_err(|_| Error::Internal("a site that can't be written"))?;
    tx.execute("INSERT INTO meta (name, value) VALUES ('site', ?1)", &[(&bytes).into()])?;
    Ok(())
}

impl Rows<'_> {
    /// The site, if the database has been initialised.
    pub fn site(&mut self) -> Result<Option<Site>> {
        site(self.tx())
    }

    /// Writes the site again, with the store key wrapped otherwise.
    pub fn replace_site(&mut self, site: &Site) -> Result<()> {
        let bytes = serde_json::to_vec(site)
            .map_err(|_| Error::Internal("a site that can't be written"))?;
        self.tx().execute("UPDATE meta SET value = ?1 WHERE name = 'site'", &[(&bytes).into()])?;
        Ok(())
    }
}
