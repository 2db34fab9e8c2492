//! A secret's value, sealed under its version's data key.
//!
//! ```text
//!  version (1) | kind: 'S' text, 'B' binary | AES-256-GCM ciphertext || tag
//! ```
//! The data key seals one value and nothing else (IV of 96 zero bits); the associated data is
//! version, kind, the secret's ARN, 0x00, the version id.

use super::{Error, open_in_place, seal_in_place};
use crate::secret::{Key, Secret};

const VERSION: u8 = 1;

/// Whether a value was given as text or as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `SecretString`: UTF-8.
    Text,
    /// `SecretBinary`.
    Binary,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Text => b'S',
            Self::Binary => b'B',
        }
    }
}

/// Seals a value.
pub fn seal(
    data_key: &Key,
    arn: &str,
    version_id: &str,
    kind: Kind,
    value: &Secret,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(value.len() + 18);
    out.extend([VERSION, kind.byte()]);
    out.extend(value.expose());
    seal_in_place(data_key, &bound_to(kind, arn, version_id), &mut out, 2)?;
    Ok(out)
}

/// Opens a value.
pub fn open(
    data_key: &Key,
    arn: &str,
    version_id: &str,
    sealed: &[u8],
) -> Result<(Kind, Secret), Error> {
    let [VERSION, kind, body @ ..] = sealed else { return Err(Error::Invalid) };
    let kind = match kind {
        b'S' => Kind::Text,
        b'B' => Kind::Binary,
        _ => return Err(Error::Invalid),
    };
    let mut value = Secret::copy_of(body);
    open_in_place(data_key, &bound_to(kind, arn, version_id), &mut value)?;
    Ok((kind, value))
}

fn bound_to(kind: Kind, arn: &str, version_id: &str) -> Vec<u8> {
    let mut aad = Vec::with_capacity(arn.len() + version_id.len() + 3);
    aad.extend([VERSION, kind.byte()]);
    aad.extend(arn.as_bytes());
    aad.push(0);
    aad.extend(version_id.as_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_only_as_the_version_and_kind_that_it_was_sealed_as() {
        let key = Key::take(&mut [7; 32]);
        let sealed = seal(&key, "arn:a", "v1", Kind::Text, &Secret::copy_of(b"hunter2"));
        let sealed = sealed.unwrap_or_default();
        let open_as = |arn, id, bytes: &[u8]| open(&key, arn, id, bytes).ok();
        let (kind, value) = open_as("arn:a", "v1", &sealed).expect("its own place");
        assert_eq!((kind, value.expose()), (Kind::Text, b"hunter2".as_slice()));
        assert!(open_as("arn:b", "v1", &sealed).is_none(), "moved to another secret");
        assert!(open_as("arn:a", "v2", &sealed).is_none(), "moved to another version");
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            assert!(open_as("arn:a", "v1", &altered).is_none(), "byte {i} altered");
        }
    }
}
