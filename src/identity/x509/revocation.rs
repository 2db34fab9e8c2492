//! Revocation lists of a trust anchor, from a file that is replaced while the server runs.

use super::OptionsError;
use crate::identity::options::bounded;
use parking_lot::RwLock;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_rustls::rustls::pki_types::CertificateRevocationListDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use webpki::{CertRevocationList, OwnedCertRevocationList};

/// The most bytes of a file with lists.
const MAX_FILE: u64 = 16 << 20;
/// The most lists in a file.
const MAX_LISTS: usize = 100;

pub(super) type Lists = Arc<Vec<CertRevocationList<'static>>>;

/// The lists of one file, as they were read last.
pub(super) struct Revocations {
    path: PathBuf,
    current: RwLock<(Stamp, Lists)>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(Option<SystemTime>, u64);

impl Revocations {
    pub(super) fn open(path: PathBuf) -> Result<Self, OptionsError> {
        let current = RwLock::new(read(&path)?);
        Ok(Self { path, current })
    }

    pub(super) fn lists(&self) -> Lists {
        self.current.read().1.clone()
    }

    /// Reads the file again if it has changed. Upon an error the old lists stay: each says until
    /// when it may be used.
    pub(super) fn refresh(&self) -> Result<(), OptionsError> {
        let seen = stamp(&self.path)?;
        if seen != self.current.read().0 {
            let fresh = read(&self.path)?;
            *self.current.write() = fresh;
        }
        Ok(())
    }
}

fn stamp(path: &Path) -> Result<Stamp, OptionsError> {
    let found = fs::metadata(path).map_err(|why| OptionsError::file(path, why))?;
    Ok(Stamp(found.modified().ok(), found.len()))
}

fn read(path: &Path) -> Result<(Stamp, Lists), OptionsError> {
    let seen = stamp(path)?;
    let pem = bounded(path, MAX_FILE).map_err(|why| OptionsError::file(path, why))?;
    let mut lists = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(&pem) {
        let der = der.map_err(|why| OptionsError::file(path, why))?;
        let list =
            OwnedCertRevocationList::from_der(&der).map_err(|why| OptionsError::file(path, why))?;
        lists.push(CertRevocationList::from(list));
    }
    if !(1..=MAX_LISTS).contains(&lists.len()) {
        let why = format!("it must hold from 1 to {MAX_LISTS} revocation lists (PEM)");
        return Err(OptionsError::file(path, why));
    }
    Ok((seen, Arc::new(lists)))
}
