//! The pure parts of the envelope, with HMAC in place of a token's.

use super::*;
use aws_lc_rs::hmac;
use proptest::prelude::*;

const ACCOUNT: &str = "111111111111";
const REGION: &str = "eu-central-1";
const UUID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const MRK: &str = "mrk-1234abcd12ab34cd56ef1234567890ab";
const BACKING: [u8; 16] = [7; 16];

fn binding(key_id: &str) -> Binding<'_> {
    Binding {
        account: ACCOUNT,
        region: REGION,
        key_id,
        backing: BackingKeyId(BACKING),
        scheme: Scheme::HmacKdf,
    }
}

fn context(pairs: &[(&str, &str)]) -> Context {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What a token does with a backing key of this value.
fn derive(backing_key: [u8; 32], input: &[u8]) -> Key {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &backing_key);
    let tag = hmac::sign(&key, input);
    Key::fill(|out| tag.as_ref().try_into().map(|bytes| *out = bytes)).expect("32 bytes")
}

fn seal(binding: &Binding<'_>, context: &Context, nonce: [u8; 32], plaintext: &[u8]) -> Vec<u8> {
    let draft = Draft::new(binding, context, &nonce, plaintext.len()).expect("a draft");
    let secret = derive([1; 32], &derivation_input(MESSAGE_SECRET, &nonce, &draft.digest));
    draft.seal(&secret, None, plaintext).expect("seals")
}

fn open_under(
    backing_key: [u8; 32],
    binding: &Binding<'_>,
    context: &Context,
    bytes: &[u8],
) -> Option<Vec<u8>> {
    let envelope = Envelope::parse(bytes).ok()?;
    let digest = envelope.digest(binding, context).ok()?;
    let input = derivation_input(MESSAGE_SECRET, envelope.nonce().ok()?, &digest);
    let secret = derive(backing_key, &input);
    envelope.open(&secret, &digest).ok().map(|plaintext| plaintext.expose().to_vec())
}

fn open(binding: &Binding<'_>, context: &Context, bytes: &[u8]) -> Option<Vec<u8>> {
    open_under([1; 32], binding, context, bytes)
}

#[test]
fn an_envelope_names_its_keys_and_opens() {
    for key_id in [UUID, MRK] {
        let bytes = seal(&binding(key_id), &context(&[("a", "b")]), [9; 32], b"hunter2");
        let envelope = Envelope::parse(&bytes).expect("parses");
        assert_eq!(envelope.key_id, key_id);
        assert_eq!(envelope.backing, BackingKeyId(BACKING));
        assert_eq!(bytes.len(), 7 + OVERHEAD);
        let opened = open(&binding(key_id), &context(&[("a", "b")]), &bytes);
        assert_eq!(opened.as_deref(), Some(b"hunter2".as_slice()));
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = seal(&binding(UUID), &context(&[("a", "b")]), [9; 32], b"hunter2");
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        // Also where the flipped bits name another key: the binding is the right key's.
        assert_eq!(open(&binding(UUID), &context(&[("a", "b")]), &altered), None, "bit {bit}");
    }
}

#[test]
fn an_envelope_opens_where_it_was_made_and_nowhere_else() {
    let here = binding(UUID);
    let bytes = seal(&here, &context(&[]), [9; 32], b"x");
    let elsewhere = [
        Binding { account: "222222222222", ..here },
        Binding { region: "eu-central-2", ..here },
        Binding { key_id: "1234abcd-12ab-34cd-56ef-1234567890ac", ..here },
    ];
    for there in elsewhere {
        assert_eq!(open(&there, &context(&[]), &bytes), None);
    }
    assert_eq!(open_under([2; 32], &here, &context(&[]), &bytes), None, "another backing key");
}

#[test]
fn a_multi_region_key_s_envelope_opens_in_every_region_of_its_account() {
    let here = binding(MRK);
    let bytes = seal(&here, &context(&[]), [9; 32], b"x");
    let there = Binding { region: "us-east-1", ..here };
    assert_eq!(open(&there, &context(&[]), &bytes).as_deref(), Some(b"x".as_slice()));
    let foreign = Binding { account: "222222222222", ..here };
    assert_eq!(open(&foreign, &context(&[]), &bytes), None);
}

#[test]
fn pairs_of_a_context_can_not_be_shifted_into_one_another() {
    let contexts = [
        context(&[]),
        context(&[("", "")]),
        context(&[("a", "bc")]),
        context(&[("ab", "c")]),
        context(&[("a", "b"), ("c", "")]),
        context(&[("a", ""), ("b", "c")]),
        context(&[("a", "1"), ("b", "2")]),
        context(&[("a", "2"), ("b", "1")]),
    ];
    for (made, sealed_with) in contexts.iter().enumerate() {
        let bytes = seal(&binding(UUID), sealed_with, [9; 32], b"x");
        for (tried, opened_with) in contexts.iter().enumerate() {
            let opened = open(&binding(UUID), opened_with, &bytes);
            assert_eq!(opened.is_some(), made == tried, "{sealed_with:?} {opened_with:?}");
        }
    }
}

#[test]
fn a_commitment_that_fits_no_key_is_refused_before_the_body_is_looked_at() {
    let bytes = seal(&binding(UUID), &context(&[]), [9; 32], b"x");
    let envelope = Envelope::parse(&bytes).expect("parses");
    let digest = envelope.digest(&binding(UUID), &context(&[])).expect("a digest");
    // Two message secrets never open one envelope, whatever the body is.
    assert!(envelope.open(&derive([3; 32], b"another"), &digest).is_err());
}

#[test]
fn body_key_and_commitment_are_the_two_halves_of_rfc_5869_s_expansion() {
    let secret = Key::take(&mut [5; 32]);
    let (body, commitment) = body_key_and_commitment(&secret).expect("expands");
    let prk = hmac::Key::new(hmac::HMAC_SHA256, &[5; 32]);
    let first = hmac::sign(&prk, &[BODY_AND_COMMITMENT, &[1]].concat());
    let second = hmac::sign(&prk, &[first.as_ref(), BODY_AND_COMMITMENT, &[2]].concat());
    assert_eq!(body.expose(), first.as_ref());
    assert_eq!(commitment, second.as_ref());
}

#[test]
fn no_label_is_the_beginning_of_another() {
    let labels = [MESSAGE_SECRET, b"strongroom store secret v1".as_slice()];
    for (n, label) in labels.iter().enumerate() {
        for other in labels.iter().skip(n + 1) {
            assert!(!label.starts_with(other) && !other.starts_with(label));
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_again(
        plaintext in proptest::collection::vec(any::<u8>(), 0..4097),
        pairs in proptest::collection::btree_map(".{0,20}", ".{0,20}", 0..5),
        nonce: [u8; 32],
    ) {
        let bytes = seal(&binding(UUID), &pairs, nonce, &plaintext);
        prop_assert_eq!(open(&binding(UUID), &pairs, &bytes), Some(plaintext));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_open(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert_eq!(open(&binding(UUID), &Context::new(), &bytes), None);
    }

    #[test]
    fn bytes_behind_a_sound_header_never_panic_and_never_open(
        tail in proptest::collection::vec(any::<u8>(), 0..300),
        keep in 0usize..115,
    ) {
        let mut bytes = seal(&binding(UUID), &Context::new(), [9; 32], b"");
        let sound = bytes.clone();
        bytes.truncate(keep);
        bytes.extend(tail);
        prop_assume!(bytes != sound);
        prop_assert_eq!(open(&binding(UUID), &Context::new(), &bytes), None);
    }

    #[test]
    fn another_context_never_opens(
        made in proptest::collection::btree_map("[ab]{0,3}", "[ab]{0,3}", 0..3),
        tried in proptest::collection::btree_map("[ab]{0,3}", "[ab]{0,3}", 0..3),
    ) {
        let bytes = seal(&binding(UUID), &made, [9; 32], b"x");
        prop_assert_eq!(open(&binding(UUID), &tried, &bytes).is_some(), made == tried);
    }
}
