//! The primitives that the envelope stands on, against Project Wycheproof's vectors: valid ones are
//! reproduced, altered ones refused. Each test also says how many vectors it ran.

use aes_kw::{KeyInit, KwAes128, KwAes192, KwAes256};
use aws_lc_rs::{aead, hkdf, hmac};
use wycheproof::TestResult;

/// AES-256-GCM with 96-bit IVs and 128-bit tags, as the envelope uses it; the smaller keys beside.
/// Vectors with other IV or tag lengths are for forms of GCM that this library doesn't offer.
#[test]
fn aes_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).expect("a set");
    let mut ran = 0;
    for group in set.test_groups.iter().filter(|g| g.nonce_size == 96 && g.tag_size == 128) {
        let algorithm = match group.key_size {
            128 => &aead::AES_128_GCM,
            192 => &aead::AES_192_GCM,
            _ => &aead::AES_256_GCM,
        };
        for test in &group.tests {
            let key = || {
                let key = aead::UnboundKey::new(algorithm, &test.key).expect("a key");
                aead::LessSafeKey::new(key)
            };
            let iv = || aead::Nonce::try_assume_unique_for_key(&test.nonce).expect("96 bits");
            let aad = || aead::Aad::from(test.aad.as_slice());
            let mut sealed = [test.ct.as_slice(), test.tag.as_slice()].concat();
            let opened = key().open_in_place(iv(), aad(), &mut sealed).map(|pt| pt.to_vec()).ok();
            let mut bytes = test.pt.to_vec();
            let tag = key().seal_in_place_separate_tag(iv(), aad(), &mut bytes).expect("seals");
            let same = bytes == test.ct.as_slice() && tag.as_ref() == test.tag.as_slice();
            let valid = test.result == TestResult::Valid;
            assert_eq!(opened.is_some(), valid, "{}: {}", test.tc_id, test.comment);
            assert_eq!(same, valid, "{}: {}", test.tc_id, test.comment);
            assert!(opened.is_none_or(|pt| pt == test.pt.as_slice()), "{}", test.tc_id);
            ran += 1;
        }
    }
    assert!(ran > 190, "{ran}");
}

fn unwrap(kek: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; wrapped.len()];
    let done = match kek.len() {
        16 => KwAes128::new_from_slice(kek).ok()?.unwrap_key(wrapped, &mut out).ok()?.len(),
        24 => KwAes192::new_from_slice(kek).ok()?.unwrap_key(wrapped, &mut out).ok()?.len(),
        _ => KwAes256::new_from_slice(kek).ok()?.unwrap_key(wrapped, &mut out).ok()?.len(),
    };
    out.truncate(done);
    Some(out)
}

fn wrap(kek: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; key.len() + 8];
    match kek.len() {
        16 => KwAes128::new_from_slice(kek).ok()?.wrap_key(key, &mut out).ok()?,
        24 => KwAes192::new_from_slice(kek).ok()?.wrap_key(key, &mut out).ok()?,
        _ => KwAes256::new_from_slice(kek).ok()?.wrap_key(key, &mut out).ok()?,
    };
    Some(out)
}

/// RFC 3394 wraps two blocks of 64 bits or more. The crate takes fewer, too; here it never gets them:
/// a wrapped store key has exactly 40 bytes by its type.
#[test]
fn aes_kw() {
    use wycheproof::keywrap::{TestName, TestSet};
    let set = TestSet::load(TestName::AesKeyWrap).expect("a set");
    let mut ran = 0;
    let tests = set.test_groups.iter().flat_map(|group| &group.tests);
    for test in tests.filter(|test| test.ct.len() >= 24) {
        let unwrapped = unwrap(&test.key, &test.ct);
        if test.result == TestResult::Valid {
            let wrapped = wrap(&test.key, &test.pt).expect("wraps");
            assert_eq!(wrapped, test.ct.as_slice(), "{}: {}", test.tc_id, test.comment);
            assert_eq!(unwrapped.as_deref(), Some(test.pt.as_slice()), "{}", test.tc_id);
        } else {
            assert_eq!(unwrapped, None, "{}: {}", test.tc_id, test.comment);
        }
        ran += 1;
    }
    assert!(ran > 100, "{ran}");
}

#[test]
fn hmac_sha_256() {
    use wycheproof::mac::{TestName, TestSet};
    let set = TestSet::load(TestName::HmacSha256).expect("a set");
    let mut ran = 0;
    for group in set.test_groups.iter() {
        for test in &group.tests {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &test.key), &test.msg);
            let same = tag.as_ref()[..group.tag_size / 8] == *test.tag.as_slice();
            assert_eq!(same, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            ran += 1;
        }
    }
    assert!(ran > 100, "{ran}");
}

#[test]
fn hkdf_sha_256() {
    use wycheproof::hkdf::{TestName, TestSet};
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let set = TestSet::load(TestName::HkdfSha256).expect("a set");
    let mut ran = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &test.salt).extract(&test.ikm);
        let mut out = vec![0; test.size];
        let info = [test.info.as_slice()];
        let done = prk.expand(&info, Len(test.size)).and_then(|okm| okm.fill(&mut out)).is_ok();
        assert_eq!(done, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
        assert!(!done || out == test.okm.as_slice(), "{}: {}", test.tc_id, test.comment);
        ran += 1;
    }
    assert!(ran > 50, "{ran}");
}
