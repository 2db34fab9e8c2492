//! Whom this program trusts as a TLS client.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::{TlsConnector, rustls};

/// The most bytes of a file with certificates.
const MAX_FILE: u64 = 4 << 20;

/// Whom to trust. There are no roots compiled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The system's authorities.
    System,
    /// Those of a file (PEM).
    File(PathBuf),
    /// These (PEM).
    Pem(String),
}

/// What is wrong with them, or with who is to be known by them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PEM, or it can't be read.
    #[error("`{at}`: {why}")]
    Unreadable {
        /// Where.
        at: String,
        /// Why.
        why: pem::Error,
    },
    /// Nothing to start from.
    #[error("`{0}` holds no certificate that can be trusted")]
    Empty(String),
    /// Not what a certificate can name.
    #[error("`{0}` is no name that a certificate can have")]
    Name(String),
    /// TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl From<Option<&Path>> for Roots {
    fn from(file: Option<&Path>) -> Self {
        file.map_or(Self::System, |path| Self::File(path.to_owned()))
    }
}

impl Roots {
    /// What a handshake with `host` takes: TLS 1.2 or 1.3, a certificate that leads to one of these and
    /// names the host. Blocks for files.
    ///
    /// # Errors
    /// As [`Error`] tells them apart.
    pub fn client(&self, host: &str) -> Result<(TlsConnector, ServerName<'static>), Error> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| Error::Name(host.to_owned()))?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.certificates()?);
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok((TlsConnector::from(Arc::new(config)), name))
    }

    /// The certificates: at least one. Those that can't be trusted, since they are no authority's in a
    /// form that is known, are left out; bundles have such. Blocks for files.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Empty`].
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let (at, found) = match self {
            Self::System => {
                ("the system".to_owned(), Ok(rustls_native_certs::load_native_certs().certs))
            }
            Self::File(path) => {
                let opened = File::open(path).map_err(pem::Error::Io);
                let all = |file: File| {
                    CertificateDer::pem_reader_iter(file.take(MAX_FILE)).collect::<Result<_, _>>()
                };
                (path.display().to_string(), opened.and_then(all))
            }
            Self::Pem(text) => {
                let all = CertificateDer::pem_slice_iter(text.as_bytes());
                ("the certificates".to_owned(), all.collect())
            }
        };
        let mut certificates: Vec<CertificateDer<'static>> =
            found.map_err(|why| Error::Unreadable { at: at.clone(), why })?;
        let mut store = RootCertStore::empty();
        certificates.retain(|certificate| store.add(certificate.clone()).is_ok());
        if certificates.is_empty() { Err(Error::Empty(at)) } else { Ok(certificates) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).expect("a certificate").pem()
    }

    #[test]
    fn what_can_be_trusted_is_and_the_rest_of_a_bundle_does_no_harm() {
        let (one, two) = (authority(), authority());
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let bundle = Roots::Pem(format!("{one}{odd}{two}"));
        assert_eq!(bundle.certificates().expect("two").len(), 2);
        assert!(bundle.client("db.example.com").is_ok());
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, one).expect("written");
        assert_eq!(Roots::from(Some(path.as_path())).certificates().expect("one").len(), 1);
    }

    #[test]
    fn what_is_no_root_or_no_name_is_told() {
        let told = |roots: Roots| roots.client("a").map(drop).expect_err("refused").to_string();
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for nothing in ["", "no PEM", odd] {
            assert!(told(Roots::Pem(nothing.into())).contains("no certificate"), "{nothing}");
        }
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(told(Roots::Pem(broken.into())).starts_with("`the certificates`: "));
        assert!(told(Roots::File("/nowhere/ca.pem".into())).starts_with("`/nowhere/ca.pem`: "));
        let named = Roots::Pem(authority()).client("not a name").map(drop).expect_err("refused");
        assert!(matches!(named, Error::Name(_)));
    }
}
