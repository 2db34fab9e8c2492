//! Boot states that keys in a TPM are bound to, and their approval by an operator's offline key.
//!
//! A key bound to the values of PCRs alone would be lost with the next update of the firmware. So it
//! is bound to a public key instead (`TPM2_PolicyAuthorize`; TPM 2.0 Library, part 3, section 23.16):
//! it can be used in each boot state that the operator has signed, today or later.
//!
//! ```text
//! boot state  SHA-256(0^32 || TPM_CC_PolicyPCR || TPML_PCR_SELECTION || SHA-256(the PCRs' values))
//! signed      boot state || REFERENCE                                  ECDSA P-256 with SHA-256
//! a key's     PolicyAuthorize(the operator's key, REFERENCE), then PolicyAuthValue (the PIN)
//! a PIN's     PolicyAuthorize(the operator's key, REFERENCE)             see `sealed`
//! ```

use super::profile::{Kind, Profile};
use super::proof::{Bytes, name};
use super::{Error, Result};
use crate::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroize as _;

/// What an approval is for, so that the operator's key may sign other things as well.
pub(super) const REFERENCE: &[u8] = b"strongroom boot state v1";

/// Command codes (part 2, section 6.5.2).
const POLICY_PCR: u32 = 0x17f;
const POLICY_AUTHORIZE: u32 = 0x16a;
const POLICY_AUTH_VALUE: u32 = 0x16b;

/// The PCRs that every TPM of a PC has: 0 to 23.
const PCRS: u8 = 24;
const NO_PCRS: &str = "PCRs are numbers from 0 to 23, one at least";
/// Most files that are read in a folder of approvals, and the longest one, in bytes.
const MOST: usize = 256;
const LONGEST: u64 = 16 << 10;

/// The length of an uncompressed point of P-256.
const POINT: usize = 65;
/// What stands before an uncompressed point of P-256 in a SubjectPublicKeyInfo (RFC 5480).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A SHA-256, written in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hash(pub [u8; 32]);

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let digits: Option<Vec<u8>> = text.as_bytes().iter().map(digit).collect();
        let digits =
            digits.filter(|digits| digits.len() == 64).ok_or("not 64 hexadecimal digits")?;
        let mut hash = [0; 32];
        for (to, (high, low)) in hash.iter_mut().zip(pairs(&digits)) {
            *to = high << 4 | low;
        }
        Ok(Self(hash))
    }
}

fn pairs(digits: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    let halves = |at| digits.iter().copied().skip(at).step_by(2);
    halves(0).zip(halves(1))
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut value = [0; 32];
    value.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    Hash(value)
}

/// One boot state: the values of PCRs, in the bank of SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct State {
    /// By their number.
    pub pcrs: BTreeMap<u8, Hash>,
    /// The policy that asks for these values: what is signed. It is computed, and must fit.
    pub policy: Hash,
}

impl State {
    /// The state of these values.
    pub fn new(pcrs: BTreeMap<u8, Hash>) -> Self {
        let policy = Self::policy(&pcrs);
        Self { pcrs, policy }
    }

    fn policy(pcrs: &BTreeMap<u8, Hash>) -> Hash {
        let mut selected = [0_u8; 3];
        for pcr in pcrs.keys() {
            if let Some(byte) = selected.get_mut(usize::from(pcr / 8)) {
                *byte |= 1 << (pcr % 8);
            }
        }
        // One bank: its algorithm, the length of the selection, the selection.
        let selection = [&[0, 0, 0, 1, 0, 0x0b, 3][..], &selected].concat();
        let values: Vec<&[u8]> = pcrs.values().map(|value| &value.0[..]).collect();
        hash(&[&[0; 32], &POLICY_PCR.to_be_bytes(), &selection, &hash(&values).0])
    }

    /// Whether it names PCRs that there are, one at least, and the policy is that of the values.
    fn sound(&self) -> bool {
        !self.pcrs.is_empty()
            && self.pcrs.keys().all(|pcr| *pcr < PCRS)
            && Self::policy(&self.pcrs) == self.policy
    }

    /// What the operator signs.
    fn message(&self) -> Vec<u8> {
        [&self.policy.0[..], REFERENCE].concat()
    }

    /// The PCRs whose values are others in `other`; `None` if it is a state of other PCRs.
    fn changed(&self, other: &Self) -> Option<Vec<u8>> {
        let same = self.pcrs.keys().eq(other.pcrs.keys());
        let differs = |(pcr, value)| (other.pcrs.get(pcr) != Some(value)).then_some(*pcr);
        same.then(|| self.pcrs.iter().filter_map(differs).collect())
    }
}

/// A boot state that the operator has signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Approval {
    /// The state.
    pub state: State,
    /// r || s.
    pub signature: Bytes,
}

impl Approval {
    /// Approves a state by the operator's private key: PEM, of P-256, in PKCS#8 or SEC 1.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for another key, or a state whose policy is not that of its values.
    pub fn sign(state: State, key: &Secret) -> Result<Self> {
        if !state.sound() {
            return Err(Error::BadRequest("the boot state's policy is not that of its PCRs"));
        }
        let bad = Error::BadRequest("the operator's key is no private key of P-256 in PEM");
        let mut der = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| bad.clone())?;
        let way = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_der(way, der.secret_der());
        der.zeroize();
        let pair = pair.map_err(|_| bad)?;
        let signed = pair.sign(&SystemRandom::new(), &state.message());
        let signed = signed.map_err(|_| Error::BadRequest("the operator's key does not sign"))?;
        Ok(Self { signature: Bytes(signed.as_ref().to_vec()), state })
    }
}

/// Which boot states a TPM's keys are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The operator's public key: an uncompressed point of P-256.
    pub(super) operator: Bytes,
    /// The PCRs that make a state, in order.
    pub pcrs: Vec<u8>,
    /// The folder of approvals, which is read whenever there is a state that is not known yet.
    approvals: PathBuf,
}

impl Binding {
    /// Bound to what the operator whose public key is in the file `operator` (PEM, P-256) approves.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for another key or PCRs that there are not.
    pub fn new(operator: &Path, pcrs: &[u8], approvals: PathBuf) -> Result<Self> {
        let bad = Error::BadRequest("`pcr_policy` names no file with a public key of P-256 in PEM");
        let pem = read(operator).ok_or_else(|| bad.clone())?;
        let info = SubjectPublicKeyInfoDer::from_pem_slice(&pem).map_err(|_| bad.clone())?;
        let point = info.as_ref().strip_prefix(&P256_SPKI).filter(|point| point.len() == POINT);
        let operator = Bytes(point.ok_or(bad)?.to_vec());
        Self::to(operator, pcrs, approvals).ok_or(Error::BadRequest(NO_PCRS))
    }

    /// Bound to what this operator approves; `None` if there is no such key or PCR.
    pub(super) fn to(operator: Bytes, pcrs: &[u8], approvals: PathBuf) -> Option<Self> {
        let a_point = operator.0.len() == POINT && operator.0.first() == Some(&4);
        let pcrs = chosen(pcrs).filter(|_| a_point)?;
        Some(Self { operator, pcrs, approvals })
    }

    /// The operator's key as a TPM loads it (`TPMT_PUBLIC`): it may sign anything.
    pub(super) fn area(&self) -> Vec<u8> {
        let (x, y) =
            self.operator.0.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
        let attributes = [0, 4, 0, 0x40];
        let parameters = [0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
        [&[0, 0x23, 0, 0x0b][..], &attributes, &[0, 0], &parameters, &[0, 32], x, &[0, 32], y]
            .concat()
    }

    /// The policy of the keys that are bound so.
    pub fn policy(&self) -> Hash {
        hash(&[&self.policy_of_data().0, &POLICY_AUTH_VALUE.to_be_bytes()])
    }

    /// The policy of what is sealed and bound so: the boot state alone, since a PIN is what is in it.
    pub(super) fn policy_of_data(&self) -> Hash {
        let by = hash(&[&[0; 32], &POLICY_AUTHORIZE.to_be_bytes(), &name(&self.area())]);
        hash(&[&by.0, REFERENCE])
    }

    /// The approval of this state.
    ///
    /// # Errors
    /// A sentence that names the PCRs which are not as in any state that was approved.
    pub(super) fn approval(&self, now: &State) -> std::result::Result<Approval, String> {
        let (known, ignored) = self.known()?;
        if let Some(found) = known.iter().find(|approval| approval.state == *now) {
            return Ok(found.clone());
        }
        let nearest =
            known.iter().filter_map(|approval| now.changed(&approval.state)).min_by_key(Vec::len);
        let what = match nearest {
            Some(pcrs) => format!("PCRs {pcrs:?} have changed"),
            None => "no state of these PCRs was approved".to_owned(),
        };
        let folder = self.approvals.display();
        let ignored = match ignored {
            0 => String::new(),
            n => format!("; {n} files there are no approval by the operator"),
        };
        Err(format!(
            "the boot state is not approved: {what} (`strongroom hsm pcr`, approvals in `{folder}`{ignored})"
        ))
    }

    /// Whether this state is approved, in a sentence.
    pub fn verdict(&self, now: &State) -> String {
        self.approval(now).map_or_else(|why| why, |_| "the boot state is approved".to_owned())
    }

    /// The approvals in the folder that the operator has signed, and how many files are none. All files
    /// or none: of some of too many it would be chance which ones count.
    fn known(&self) -> std::result::Result<(Vec<Approval>, usize), String> {
        let folder = self.approvals.display();
        let unread = |e| format!("the folder of approvals, `{folder}`, can't be read: {e}");
        let listed = std::fs::read_dir(&self.approvals).map_err(unread)?;
        let files: std::result::Result<Vec<_>, _> =
            listed.take(MOST + 1).map(|entry| entry.map(|entry| entry.path())).collect();
        let files = files.map_err(unread)?;
        if files.len() > MOST {
            return Err(format!(
                "the folder of approvals, `{folder}`, has more than {MOST} files, so that none counts: \
                 take away what is no approval, and those of boot states that will not come back"
            ));
        }
        let known: Vec<_> = files.iter().filter_map(|file| self.signed(file)).collect();
        let ignored = files.len().saturating_sub(known.len());
        Ok((known, ignored))
    }

    fn signed(&self, file: &Path) -> Option<Approval> {
        let approval: Approval = serde_json::from_slice(&read(file)?).ok()?;
        let signed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.operator.0)
            .verify(&approval.state.message(), &approval.signature.0);
        (approval.state.sound() && signed.is_ok()).then_some(approval)
    }
}

/// PCRs that there are, one at least, in the order in which a TPM tells of them.
fn chosen(pcrs: &[u8]) -> Option<Vec<u8>> {
    let mut pcrs = pcrs.to_vec();
    pcrs.sort_unstable();
    pcrs.dedup();
    (!pcrs.is_empty() && pcrs.iter().all(|pcr| *pcr < PCRS)).then_some(pcrs)
}

fn read(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // A FIFO in the folder would be waited for.
    std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    std::fs::File::open(file).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// What these PCRs of the token at `device` hold now. Blocks.
///
/// # Errors
/// [`Error::Unavailable`] if it can't be reached, [`Error::Unsupported`] if the profile is of no TPM.
pub fn current(profile: &Profile, device: Option<&str>, pcrs: &[u8]) -> Result<State> {
    if profile.kind != Kind::Tpm {
        let why = "only TPMs have PCRs".to_owned();
        return Err(Error::Unsupported { profile: profile.name.clone(), why });
    }
    at(device, pcrs)
}

/// What these PCRs of the TPM at `device` hold now. Blocks.
///
/// # Errors
/// [`Error::Unavailable`] if it can't be reached, [`Error::Unsupported`] if this program was built
/// without TPMs.
#[cfg_attr(not(feature = "tpm"), expect(unused_variables, reason = "it is for a TPM"))]
pub fn at(device: Option<&str>, pcrs: &[u8]) -> Result<State> {
    let pcrs = chosen(pcrs).ok_or(Error::BadRequest(NO_PCRS))?;
    #[cfg(feature = "tpm")]
    {
        super::tpm::current(device, &pcrs)
    }
    #[cfg(not(feature = "tpm"))]
    Err(super::left_out("tpm2".to_owned(), Kind::Tpm))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(values: &[(u8, u8)]) -> State {
        State::new(values.iter().map(|(pcr, value)| (*pcr, Hash([*value; 32]))).collect())
    }

    fn operator(folder: &Path) -> (rcgen::KeyPair, Binding) {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        std::fs::write(folder.join("operator.pub"), key.public_key_pem()).expect("written");
        let approvals = folder.join("approvals");
        std::fs::create_dir_all(&approvals).expect("a folder");
        let binding = Binding::new(&folder.join("operator.pub"), &[7, 0, 7], approvals);
        (key, binding.expect("sound"))
    }

    fn sign(state: State, key: &rcgen::KeyPair) -> Result<Approval> {
        Approval::sign(state, &Secret::copy_of(key.serialize_pem().as_bytes()))
    }

    #[test]
    fn the_refusal_names_what_changed_since_the_nearest_approved_state() {
        let folder = tempfile::tempdir().expect("a folder");
        let (key, binding) = operator(folder.path());
        assert_eq!(binding.pcrs, [0, 7]);
        let keep = |name: &str, approval: &Approval| {
            let text = serde_json::to_vec(approval).expect("written");
            std::fs::write(folder.path().join("approvals").join(name), text).expect("kept");
        };
        let now = state(&[(0, 1), (7, 2)]);
        let why = binding.approval(&now).expect_err("none");
        assert!(why.contains("no state of these PCRs was approved"), "{why}");
        keep("far", &sign(state(&[(0, 8), (7, 9)]), &key).expect("signed"));
        keep("near", &sign(state(&[(0, 1), (7, 9)]), &key).expect("signed"));
        keep("others", &sign(state(&[(0, 1)]), &key).expect("signed"));
        let why = binding.approval(&now).expect_err("none");
        assert!(why.contains("PCRs [7] have changed") && !why.contains("files"), "{why}");
        let approval = sign(now.clone(), &key).expect("signed");
        keep("now", &approval);
        assert_eq!(binding.approval(&now), Ok(approval));
    }

    #[test]
    fn what_the_operator_has_not_signed_counts_for_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (key, binding) = operator(folder.path());
        let now = state(&[(0, 1), (7, 2)]);
        let good = sign(now.clone(), &key).expect("signed");
        let mut relabelled = sign(state(&[(0, 1), (7, 3)]), &key).expect("signed");
        relabelled.state.pcrs = now.pcrs.clone();
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let forged = sign(now.clone(), &other).expect("signed");
        let mut bent = good.clone();
        bent.signature.0[63] ^= 1;
        for bad in [relabelled, forged, bent] {
            let file = folder.path().join("approvals/one");
            std::fs::write(&file, serde_json::to_vec(&bad).expect("written")).expect("kept");
            let why = binding.approval(&now).expect_err("refused");
            assert!(why.contains("1 files there are no approval"), "{why}");
        }
    }

    /// Which 256 of them counted was once for the file system to choose.
    #[test]
    fn an_approval_counts_among_as_many_files_as_are_read_and_not_among_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let (key, binding) = operator(folder.path());
        let now = state(&[(0, 1), (7, 2)]);
        let approvals = folder.path().join("approvals");
        let good = sign(now.clone(), &key).expect("signed");
        std::fs::write(approvals.join("good"), serde_json::to_vec(&good).expect("written"))
            .expect("kept");
        std::fs::create_dir(approvals.join("folder")).expect("made");
        for n in 2..MOST {
            std::fs::write(approvals.join(format!("{n}")), [b'{'; 20_000]).expect("kept");
        }
        assert_eq!(binding.approval(&now), Ok(good));
        std::fs::write(approvals.join("one more"), "").expect("kept");
        let why = binding.approval(&now).expect_err("too many");
        assert!(why.contains("more than 256 files"), "{why}");
        std::fs::remove_dir_all(&approvals).expect("removed");
        let why = binding.approval(&now).expect_err("no folder");
        assert!(why.contains("can't be read"), "{why}");
    }

    #[test]
    fn a_state_that_does_not_fit_its_policy_is_not_signed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (key, _) = operator(folder.path());
        let mut other = state(&[(0, 1)]);
        other.policy = state(&[(0, 2)]).policy;
        for bad in [other, state(&[]), state(&[(24, 1)])] {
            assert!(matches!(sign(bad, &key), Err(Error::BadRequest(_))));
        }
        let key = Secret::copy_of(b"no key");
        assert!(Approval::sign(state(&[(0, 1)]), &key).is_err());
    }

    #[test]
    fn only_a_public_key_of_p256_and_pcrs_that_there_are_bind() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, binding) = operator(folder.path());
        let file = folder.path().join("operator.pub");
        for pcrs in [&[][..], &[24]] {
            assert!(Binding::new(&file, pcrs, binding.approvals.clone()).is_err());
        }
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        std::fs::write(&file, other.public_key_pem()).expect("written");
        assert!(Binding::new(&file, &[0], binding.approvals).is_err());
    }

    proptest! {
        #[test]
        fn a_hash_is_read_as_it_is_written(value in any::<[u8; 32]>(), noise in ".{0,70}") {
            prop_assert_eq!(Hash::try_from(String::from(Hash(value))), Ok(Hash(value)));
            if let Ok(hash) = Hash::try_from(noise.clone()) {
                prop_assert_eq!(String::from(hash), noise.to_lowercase());
            }
        }
    }
}
