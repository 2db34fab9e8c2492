//! A key as it leaves the TPM: the public area, and the private one that this TPM alone can open.
//!
//! ```text
//! version (1) || length of public (2, big-endian) || TPMT_PUBLIC || length of private (2) || TPM2B_PRIVATE's buffer
//! ```

use tss_esapi::structures::{Private, Public};
use tss_esapi::traits::{Marshall, UnMarshall};

/// The one version there is.
const VERSION: u8 = 1;
/// The longest area that is read, in bytes: more than any TPM's private area of an RSA-4096 key.
const LONGEST: usize = 2048;

/// What is wrong with a blob.
pub(super) const MALFORMED: &str = "its wrapped form is not one of a TPM's keys";

/// A key's two areas, on one line.
pub(super) fn write(public: &Public, private: &Private) -> tss_esapi::Result<Vec<u8>> {
    let public = public.marshall()?;
    let mut blob = vec![VERSION];
    for area in [public.as_slice(), private.value()] {
        // An area's length has 16 bits in the TPM's own structures.
        let length = u16::try_from(area.len()).unwrap_or(u16::MAX);
        blob.extend_from_slice(&length.to_be_bytes());
        blob.extend_from_slice(area);
    }
    Ok(blob)
}

/// The areas in a blob: `None` for anything that [`write()`] has not written.
pub(super) fn read(blob: &[u8]) -> Option<(Public, Private)> {
    let rest = blob.strip_prefix(&[VERSION])?;
    let (public, rest) = area(rest)?;
    let (private, rest) = area(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let parsed = Public::unmarshall(public).ok()?;
    // What the parser passed over, or read in another way than it is written, is nobody's key.
    let canonical = parsed.marshall().is_ok_and(|again| again == public);
    canonical.then_some(())?;
    Some((parsed, Private::try_from(private).ok()?))
}

fn area(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    (1..=LONGEST).contains(&length).then_some(())?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::tpm::shape::Role;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let private = Private::try_from(vec![7; 126]).expect("short");
        write(&Role::Mac.template(true, None).expect("sound"), &private).expect("written")
    }

    #[test]
    fn what_was_written_is_read() {
        let (public, private) = read(&sample()).expect("read");
        assert_eq!(public, Role::Mac.template(true, None).expect("sound"));
        assert_eq!(private.value(), [7; 126]);
    }

    #[test]
    fn a_blob_that_is_longer_shorter_or_of_another_version_is_none() {
        let sample = sample();
        for n in 0..sample.len() {
            assert!(read(&sample[..n]).is_none(), "{n}");
        }
        assert!(read(&[sample.clone(), vec![0]].concat()).is_none());
        let mut other = sample;
        other[0] = 2;
        assert!(read(&other).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_what_write_would_write(
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
            noise in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut bent = sample();
            let at = at.index(bent.len());
            bent[at] = with;
            for blob in [bent, noise] {
                if let Some((public, private)) = read(&blob) {
                    prop_assert_eq!(write(&public, &private).expect("written"), blob);
                }
            }
        }
    }
}
