//! A token's PIN, sealed to a TPM: nothing but this TPM opens it, and, if it is bound to boot states,
//! in those alone that an operator has approved (see [`super::boot`]).
//!
//! The TPM's part is one object of sealed data, a child of the storage key that all keys in a TPM are
//! children of. It has no authorisation value: the PIN is what is in it. The TPM keeps nothing; what it
//! hands out is kept in a file. Whether that file is this TPM's own shows before the token is asked for
//! anything, so that no damage to it can become a wrong PIN.
//!
//! **Where it is opened.** The server has it done by a short-lived process of its own program
//! ([`super::child::unseal`]), as it has a vendor's library run: a TSS that hangs or crashes is a token
//! that is not there yet. What the TSS leaves in freed memory is gone with that process.

use super::boot::Binding;
use super::proof::{Bytes, serial};
use super::{Error, Result};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The longest PIN that every TPM seals, in bytes (`MAX_SYM_DATA`; TPM 2.0 Library, part 2, annex A).
pub const LONGEST: usize = 128;

/// The one version of the file there is.
const VERSION: u8 = 1;

/// A sealed PIN, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Sealed {
    version: u8,
    /// The name of the TPM's storage key.
    pub(super) storage_key: Bytes,
    /// The object's public and private area, in the form of a wrapped key.
    pub(super) object: Bytes,
    /// What it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Boot {
    /// The operator's public key: an uncompressed point of P-256.
    operator: Bytes,
    pcrs: Vec<u8>,
}

/// What opens a sealed PIN: all that the process needs which does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opener {
    pub(super) sealed: Sealed,
    pub(super) binding: Option<Binding>,
    /// The TPM, by its TCTI.
    pub(super) device: Option<String>,
}

impl Sealed {
    #[cfg(feature = "tpm")]
    pub(super) fn new(storage_key: &[u8], object: Vec<u8>, binding: Option<&Binding>) -> Self {
        let (storage_key, object) = (Bytes(storage_key.to_vec()), Bytes(object));
        let boot = binding.map(|Binding { operator, pcrs, .. }| Boot {
            operator: operator.clone(),
            pcrs: pcrs.clone(),
        });
        Self { version: VERSION, storage_key, object, boot }
    }

    /// What a file holds; `None` if it is no sealed PIN of this version.
    pub fn read(file: &[u8]) -> Option<Self> {
        let sealed: Self = serde_json::from_slice(file).ok()?;
        let bound = sealed.boot.is_none() || sealed.binding(PathBuf::new()).is_some();
        (sealed.version == VERSION && bound).then_some(sealed)
    }

    /// The file.
    pub fn written(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The TPM that opens it, as its token is called.
    pub fn tpm(&self) -> String {
        format!("tpm-{}", serial(&self.storage_key.0))
    }

    /// Whether it opens in approved boot states alone.
    pub fn is_bound(&self) -> bool {
        self.boot.is_some()
    }

    /// What it is bound to, with the approvals in this folder.
    pub fn binding(&self, approvals: PathBuf) -> Option<Binding> {
        let boot = self.boot.as_ref()?;
        Binding::to(boot.operator.clone(), &boot.pcrs, approvals)
    }

    /// What opens it, at the TPM `device`, with the approvals in this folder.
    pub fn opener(self, device: Option<String>, approvals: Option<PathBuf>) -> Opener {
        let binding = self.binding(approvals.unwrap_or_default());
        Opener { sealed: self, binding, device }
    }
}

/// Seals a PIN to the TPM at `device`, bound to boot states or to none. Blocks.
///
/// # Errors
/// [`Error::BadRequest`] for a PIN of no or more than [`LONGEST`] bytes, [`Error::Unavailable`] if the
/// TPM can't be reached, [`Error::Unsupported`] if this program was built without TPMs.
#[cfg_attr(not(feature = "tpm"), expect(unused_variables, reason = "it is for a TPM"))]
pub fn seal(device: Option<&str>, pin: &Secret, binding: Option<&Binding>) -> Result<Sealed> {
    if !(1..=LONGEST).contains(&pin.len()) {
        return Err(Error::BadRequest("a PIN of 1 to 128 bytes can be sealed"));
    }
    #[cfg(feature = "tpm")]
    {
        super::tpm::seal(device, pin, binding)
    }
    #[cfg(not(feature = "tpm"))]
    Err(super::left_out("tpm2".to_owned(), super::profile::Kind::Tpm))
}

impl Opener {
    /// Opens it, in this process. Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the TPM can't be reached or the boot state is not approved,
    /// [`Error::Sealed`] if it is not this TPM's or was altered, [`Error::Unsupported`] if this program
    /// was built without TPMs.
    pub fn open(&self) -> Result<Secret> {
        #[cfg(feature = "tpm")]
        {
            super::tpm::unseal(self)
        }
        #[cfg(not(feature = "tpm"))]
        Err(super::left_out("tpm2".to_owned(), super::profile::Kind::Tpm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, boot: &str) -> Vec<u8> {
        format!("{{\"Version\":{version},\"StorageKey\":\"AAs=\",\"Object\":\"AQ==\"{boot}}}")
            .into_bytes()
    }

    fn boot(point: &[u8], pcrs: &str) -> String {
        let point = serde_json::to_string(&Bytes(point.to_vec())).expect("written");
        format!(",\"Boot\":{{\"Operator\":{point},\"Pcrs\":{pcrs}}}")
    }

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let point = [&[4][..], &[7; 64]].concat();
        for (more, bound) in [(String::new(), false), (boot(&point, "[7,0]"), true)] {
            let sealed = Sealed::read(&file(1, &more)).expect("read");
            assert_eq!(sealed.is_bound(), bound);
            assert_eq!(Sealed::read(&sealed.written()), Some(sealed));
        }
    }

    #[test]
    fn what_no_version_of_ours_has_written_is_not_read() {
        let point = [&[4][..], &[7; 64]].concat();
        let bad = [
            file(2, ""),
            file(1, ",\"More\":1"),
            file(1, &boot(&point, "[]")),
            file(1, &boot(&point, "[24]")),
            file(1, &boot(&point[1..], "[7]")),
            file(1, &boot(&[7; 65], "[7]")),
            b"hunter2\n".to_vec(),
        ];
        for file in bad {
            assert_eq!(Sealed::read(&file), None);
        }
    }

    #[cfg(not(feature = "tpm"))]
    #[test]
    fn a_program_without_tpms_says_so() {
        let sealed = Sealed::read(&file(1, "")).expect("read");
        let opened = sealed.opener(None, None).open().map(drop);
        for refused in [seal(None, &Secret::copy_of(b"1"), None).map(drop), opened] {
            let why = refused.expect_err("refused").to_string();
            assert!(why.contains("built without the feature `tpm`"), "{why}");
        }
    }

    #[test]
    fn what_a_tpm_can_not_seal_is_not_sent_to_it() {
        for length in [0, LONGEST + 1] {
            let refused = seal(Some("none"), &Secret::new(vec![b'1'; length]), None);
            assert!(matches!(refused, Err(Error::BadRequest(_))));
        }
    }
}
