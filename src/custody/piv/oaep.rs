//! EME-OAEP decoding (RFC 8017, section 7.1.2, step 3) on the host: the card does the raw operation.

use crate::custody::OAEP_LABEL;
use crate::secret::{Key, Secret};
use aws_lc_rs::digest::{Context, SHA256, digest};
use subtle::ConstantTimeEq;

/// The length of a modulus of 2,048 bits, in bytes.
pub(super) const MODULUS: usize = 256;
const HASH: usize = 32;
/// What is encrypted is always as long as this.
const MESSAGE: usize = 32;

/// The message in an encoded one, with SHA-256, MGF1 with SHA-256 and our label; nothing if it is
/// not exactly one of 32 bytes.
pub(super) fn decode(encoded: Secret) -> Option<Key> {
    let message = decode_with(encoded, OAEP_LABEL, MESSAGE)?;
    Key::from_secret(&message)
}

/// The message of this length. Since the length is known beforehand, so is all that stands before it:
/// `Y || lHash' || PS || 0x01` is compared with the one right value in constant time, and nothing tells
/// which part was wrong.
fn decode_with(mut encoded: Secret, label: &[u8], length: usize) -> Option<Secret> {
    let whole: &mut [u8; MODULUS] = encoded.expose_mut().as_mut_slice().try_into().ok()?;
    let (first, masked) = whole.split_first_mut()?;
    let (seed, data) = masked.split_at_mut_checked(HASH)?;
    mask(seed, data);
    mask(data, seed);
    let (before, message) = data.split_at_checked(data.len().checked_sub(length)?)?;
    let mut right = digest(&SHA256, label).as_ref().to_vec();
    right.resize(before.len().checked_sub(1).filter(|zeros| *zeros >= HASH)?, 0);
    right.push(1);
    let sound = before.ct_eq(&right) & first.ct_eq(&0);
    let message = Secret::copy_of(message);
    bool::from(sound).then_some(message)
}

/// target ^= MGF1(seed) (RFC 8017, appendix B.2.1).
fn mask(target: &mut [u8], seed: &[u8]) {
    for (counter, block) in (0u32..).zip(target.chunks_mut(HASH)) {
        let mut hash = Context::new(&SHA256);
        hash.update(seed);
        hash.update(&counter.to_be_bytes());
        block.iter_mut().zip(hash.finish().as_ref()).for_each(|(byte, mask)| *byte ^= mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8017, section 7.1.1, step 2, with a first byte, a hash and a padding of one's choice.
    fn encode(first: u8, label: &[u8], message: &[u8], separator: u8) -> Secret {
        let mut seed = [7; HASH];
        let mut data = digest(&SHA256, label).as_ref().to_vec();
        data.resize(MODULUS - HASH - 2 - message.len(), 0);
        data.push(separator);
        data.extend_from_slice(message);
        mask(&mut data, &seed);
        mask(&mut seed, &data);
        Secret::new([&[first][..], &seed, &data].concat())
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let key = decode(encode(0, OAEP_LABEL, &[9; 32], 1)).expect("sound");
        assert_eq!(key.expose(), &[9; 32]);
    }

    /// Project Wycheproof's vectors, with the raw operation done here.
    #[test]
    fn others_vectors_are_decoded_or_refused() {
        use num_bigint::BigUint;
        use wycheproof::TestResult;
        use wycheproof::rsa_oaep::{TestName, TestSet};
        let set = TestSet::load(TestName::Rsa2048Sha256Mgf1Sha256).expect("a set");
        let (mut valid, mut invalid) = (0, 0);
        for group in &set.test_groups {
            let [n, d] = [&group.key.n, &group.key.d].map(|number| BigUint::from_bytes_be(number));
            for test in &group.tests {
                let ciphertext = BigUint::from_bytes_be(&test.ct);
                // What is too long or too large is refused before the card is asked.
                let asked = test.ct.len() == MODULUS && ciphertext < n;
                let raw = ciphertext.modpow(&d, &n).to_bytes_be();
                let encoded = [vec![0; MODULUS - raw.len()], raw].concat();
                let opened = |length| {
                    decode_with(Secret::copy_of(&encoded), &test.label, length)
                        .map(|message| message.expose().to_vec())
                };
                let fits: Vec<_> = (0..=MODULUS).filter(|_| asked).filter_map(opened).collect();
                if test.result == TestResult::Valid {
                    assert_eq!(fits, [test.pt.to_vec()], "{}: {}", test.tc_id, test.comment);
                    valid += 1;
                } else {
                    assert!(fits.is_empty(), "{}: {}", test.tc_id, test.comment);
                    invalid += 1;
                }
            }
        }
        assert!(valid >= 15 && invalid >= 15, "{valid} {invalid}");
    }

    #[test]
    fn anything_else_is_nothing() {
        assert!(decode(encode(1, OAEP_LABEL, &[9; 32], 1)).is_none(), "first byte");
        assert!(decode(encode(0, b"another label", &[9; 32], 1)).is_none(), "label");
        assert!(decode(encode(0, OAEP_LABEL, &[9; 32], 2)).is_none(), "separator");
        assert!(decode(encode(0, OAEP_LABEL, &[9; 31], 1)).is_none(), "shorter");
        assert!(decode(encode(0, OAEP_LABEL, &[9; 33], 1)).is_none(), "longer");
        assert!(decode(Secret::new(vec![0; MODULUS - 1])).is_none(), "no modulus");
        for at in 0..MODULUS {
            let mut encoded = encode(0, OAEP_LABEL, &[9; 32], 1);
            encoded.expose_mut()[at] ^= 0x80;
            assert!(decode(encoded).is_none(), "byte {at}");
        }
    }
}
