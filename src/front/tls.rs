//! TLS: certificate and key from files, swapped on demand, and what a handshake agreed on.

use super::client::AnyCertificate;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ServerSessionMemoryCache;
use tokio_rustls::rustls::{CipherSuite, ProtocolVersion, ServerConfig, ServerConnection};
use zeroize::Zeroizing;

/// More than any certificate chain or key needs, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Sessions that can be resumed. A client that reconnects skips the costly half of a handshake.
const SESSIONS: usize = 4096;

/// Where the certificate chain and its key are; both PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The server's certificate, then those that issued it.
    pub certificate: PathBuf,
    /// The certificate's private key (PKCS#8, PKCS#1 or SEC 1), readable by its owner only.
    pub key: PathBuf,
}

/// Why the TLS files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("can't read `{}`: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others could read the private key.
    #[error("`{}` can be read by others than its owner (mode {mode:04o}): run chmod 600 on it", path.display())]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file has no PEM section of the kind it should have, or a broken one.
    #[error("`{}` holds no valid PEM {expected}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// Certificate and key are unusable, or don't belong together.
    #[error("the certificate and its key can't be used: {0}")]
    Unusable(#[from] tokio_rustls::rustls::Error),
}

/// What a handshake agreed on, for the audit record; named as CloudTrail's `tlsDetails` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsDetails {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite's IANA name.
    pub cipher: &'static str,
}

impl TlsDetails {
    pub(super) fn of(connection: &ServerConnection) -> Self {
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "unknown",
        };
        let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        Self { version, cipher: suite.map_or("unknown", cipher_name) }
    }
}

/// The IANA name; rustls has a prefix of its own for the TLS 1.3 suites.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// The TLS side of a listener: TLS 1.3 and 1.2 with the certificate that is current.
pub struct Tls {
    files: Files,
    ask: bool,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads and checks the files. `ask`: clients are asked for a certificate.
    pub fn open(files: Files, ask: bool) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(configure(&files, ask)?));
        Ok(Self { files, ask, current })
    }

    /// Reads the files again; new connections use what they hold now. Upon an error the old
    /// certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(configure(&self.files, self.ask)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

fn configure(files: &Files, ask: bool) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let builder = if ask {
        builder.with_client_cert_verifier(Arc::new(AnyCertificate::new()))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path, open(path)?)?;
    let not_pem = || TlsError::NotPem { path: path.into(), expected: "certificate" };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| not_pem())?;
    if chain.is_empty() { Err(not_pem()) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = open(path)?;
    // Asked of the open file, so that the file checked is the file read.
    let mode = file.metadata().map_err(|error| unreadable(path, error))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TlsError::KeyExposed { path: path.into(), mode });
    }
    PrivateKeyDer::from_pem_slice(&read(path, file)?)
        .map_err(|_| TlsError::NotPem { path: path.into(), expected: "private key" })
}

fn open(path: &Path) -> Result<File, TlsError> {
    File::open(path).map_err(|error| unreadable(path, error))
}

fn read(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let size = file.metadata().map_err(|error| unreadable(path, error))?.len().min(MAX_FILE);
    // One byte of room to spare, so that reading to the end never moves the buffer.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
    file.take(size).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: io::Error) -> TlsError {
    TlsError::Unreadable { path: path.into(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn pair(dir: &Path) -> Files {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let files = Files { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    #[test]
    fn a_key_that_group_or_others_can_read_is_refused_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let files = pair(dir.path());
        assert!(Tls::open(files.clone(), false).is_ok());
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
            let error = Tls::open(files.clone(), false).err().unwrap().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mixed =
            Files { certificate: pair(one.path()).certificate, key: pair(other.path()).key };
        assert!(matches!(Tls::open(mixed, false).err(), Some(TlsError::Unusable(_))));
    }

    #[test]
    fn files_that_are_missing_or_swapped_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let files = pair(dir.path());
        let gone = Files { certificate: dir.path().join("none.pem"), ..files.clone() };
        assert!(Tls::open(gone, false).err().unwrap().to_string().contains("none.pem"));
        let swapped = Files { certificate: files.key.clone(), key: files.key };
        assert!(matches!(Tls::open(swapped, true).err(), Some(TlsError::NotPem { .. })));
    }

    #[test]
    fn a_reload_takes_the_new_files_and_a_failed_one_keeps_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let files = pair(dir.path());
        let tls = Tls::open(files.clone(), false).unwrap();
        let first = tls.acceptor();
        fs::write(&files.key, "not a key").unwrap();
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(first.config(), tls.acceptor().config()));
        pair(dir.path());
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(first.config(), tls.acceptor().config()));
    }
}
