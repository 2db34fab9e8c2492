//! Which tree the audit log is kept as, and which key in the token signs for it.

use super::Result;
use super::records::{Document, Rows};
use crate::name::{BackingKeyId, SigningScheme, WrappedKey};
use serde::{Deserialize, Serialize};

/// The audit log's tree and its signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// What tells this tree from any other of the site, in hexadecimal.
    pub tree: String,
    /// The key in the token.
    pub key: BackingKeyId,
    /// The token's serial number; empty in rows of before there were several: the default one.
    #[serde(default)]
    pub token: String,
    /// The key itself, if the token keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<WrappedKey>,
    /// What it does.
    pub scheme: SigningScheme,
    /// Its public half, in hexadecimal; none while the key is being made.
    pub public: Option<String>,
    /// What it has signed for, as of a moment ago.
    #[serde(default)]
    pub head: Option<SignedHead>,
}

/// A size of the tree and its root then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// Records.
    pub size: u64,
    /// The root over them, in hexadecimal.
    pub root: String,
}

impl Document for Seal {
    const TABLE: &'static str = "meta/audit";
    fn key(&self) -> String {
        "audit".to_owned()
    }
}

impl Rows<'_> {
    /// The audit log's tree and key, if they have been made or begun.
    pub fn seal(&mut self) -> Result<Option<Seal>> {
        self.load(
            "SELECT doc.value, mac.value FROM meta doc JOIN meta mac ON mac.name = 'audit.mac'
             WHERE doc.name = 'audit'",
            &[],
        )
    }

    /// Writes them.
    pub fn put_seal(&mut self, seal: &Seal) -> Result<()> {
        self.save(
            seal,
            "INSERT INTO meta (name, value) VALUES ('audit', ?1), ('audit.mac', ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            &[],
        )?;
        Ok(())
    }
}
