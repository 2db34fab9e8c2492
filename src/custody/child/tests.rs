//! The wire: what is written is read, and whatever is read is no harm.

use super::message::{
    MOST, Task, answers, read_answers, read_task, read_unsealed, requests, write_answers,
    write_opened, write_opening, write_requests, write_unsealed, write_unsealing,
};
use super::wire::{Channel, MAX_FRAME, Reader, Writer};
use crate::custody::profile::Profile;
use crate::custody::proof::{Bytes, Certified, Proof};
use crate::custody::sealed::Sealed;
use crate::custody::{
    Access, BackingKeyId, Error, Evidence, Health, KeyCheck, Locator, Made, NewSigner, Request,
    Response, Result, Scheme, SigningScheme, TokenKey, WrappedKey,
};
use crate::secret::{Key, Secret};
use proptest::prelude::*;
use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn frame(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = Secret::new(Vec::new());
    write(&mut Writer::new(&mut buffer));
    buffer.expose().to_vec()
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=most)
}

fn id() -> impl Strategy<Value = BackingKeyId> {
    any::<[u8; 16]>().prop_map(BackingKeyId)
}

/// A request can't be shown; its frame can.
fn sent(request: Request) -> Vec<u8> {
    frame(|w| write_requests(w, &[&request]))
}

fn some_requests() -> impl Strategy<Value = Vec<u8>> {
    let key = || {
        (id(), prop::option::of(bytes(WrappedKey::MAX_LEN))).prop_map(|(id, wrapped)| TokenKey {
            id,
            wrapped: wrapped.and_then(|bytes| WrappedKey::new(&bytes)),
        })
    };
    let check = || any::<[u8; 8]>().prop_map(KeyCheck);
    let scheme = || prop_oneof![Just(Scheme::HmacKdf), Just(Scheme::Ecdh), Just(Scheme::RsaOaep)];
    let signing = prop_oneof![Just(SigningScheme::Ed25519), Just(SigningScheme::EcdsaP256)];
    prop_oneof![
        (key(), check(), bytes(1024)).prop_map(|(key, check, input)| sent(Request::Derive {
            key,
            check,
            input
        })),
        (key(), check(), bytes(65)).prop_map(|(key, check, peer)| sent(Request::Agree {
            key,
            check,
            peer
        })),
        (key(), check(), bytes(512)).prop_map(|(key, check, ciphertext)| sent(Request::Unwrap {
            key,
            check,
            ciphertext
        })),
        (id(), scheme()).prop_map(|(id, scheme)| sent(Request::Generate { id, scheme })),
        (id(), scheme(), any::<[u8; 32]>()).prop_map(|(id, scheme, mut value)| {
            sent(Request::Import { id, scheme, material: Key::take(&mut value) })
        }),
        id().prop_map(|id| sent(Request::Destroy { id })),
        key().prop_map(|key| sent(Request::Inspect { key })),
        (1_usize..4096).prop_map(|len| sent(Request::Random { len })),
        (id(), signing.clone())
            .prop_map(|(id, scheme)| sent(Request::GenerateSigner { id, scheme })),
        (key(), signing, bytes(65), bytes(4096)).prop_map(|(key, scheme, public, message)| {
            sent(Request::Sign { key, scheme, public, message })
        }),
        (key(), bytes(64)).prop_map(|(key, nonce)| sent(Request::Attest { key, nonce })),
    ]
}

fn errors() -> impl Strategy<Value = Error> {
    let (a, b) = ("[a-zé]{0,40}", "[a-zé]{0,40}");
    prop_oneof![
        (a, b).prop_map(|(token, why)| Error::Unavailable { token, why }),
        a.prop_map(Error::Overloaded),
        a.prop_map(Error::Timeout),
        a.prop_map(Error::NoSession),
        (a, b).prop_map(|(profile, why)| Error::Unsupported { profile, why }),
        (a, b).prop_map(|(token, why)| Error::Pin { token, why }),
        (a, b).prop_map(|(token, why)| Error::Full { token, why }),
        (a, b).prop_map(|(token, why)| Error::Sealed { token, why }),
        id().prop_map(Error::KeyNotFound),
        (id(), b).prop_map(|(id, why)| Error::KeyRejected { id, why }),
    ]
}

fn evidence(id: [u8; 8]) -> Evidence {
    Evidence {
        sensitive: true,
        extractable: false,
        never_extractable: true,
        always_sensitive: true,
        local: true,
        mechanisms: vec!["CKM_SHA256_HMAC".into()],
        check: KeyCheck(id),
    }
}

fn proof(bytes: Vec<u8>) -> Proof {
    let bytes = Bytes(bytes);
    Proof::Tpm(Certified {
        public: bytes.clone(),
        attest: bytes.clone(),
        signature: bytes.clone(),
        attestation_key: bytes,
    })
}

/// Said by a token that is well, or by one that is not.
fn said(answer: Result<Response>) -> Vec<u8> {
    let why = answer.as_ref().err().map(ToString::to_string);
    let health = Health { up: why.is_none(), why, epoch: u64::MAX, waiting: 0, seated: 0 };
    frame(|w| write_answers(w, &health, &[answer]))
}

fn some_answers() -> impl Strategy<Value = Vec<u8>> {
    let wrapped = || prop::option::of(bytes(500).prop_map(|bytes| WrappedKey::new(&bytes)));
    prop_oneof![
        errors().prop_map(|error| said(Err(error))),
        any::<[u8; 32]>()
            .prop_map(|mut key| said(Ok(Response::MessageSecret(Key::take(&mut key))))),
        any::<[u8; 8]>().prop_map(|id| said(Ok(Response::Evidence(evidence(id))))),
        Just(()).prop_map(|()| said(Ok(Response::Destroyed))),
        bytes(4096).prop_map(|bytes| said(Ok(Response::Random(Secret::new(bytes))))),
        (bytes(65), wrapped()).prop_map(|(public, wrapped)| {
            said(Ok(Response::Signer(NewSigner { public, wrapped: wrapped.flatten() })))
        }),
        (any::<[u8; 8]>(), wrapped(), prop::option::of(bytes(600))).prop_map(
            |(id, wrapped, public)| {
                let (evidence, wrapped) = (evidence(id), wrapped.flatten());
                said(Ok(Response::Made(Made { evidence, wrapped, public })))
            }
        ),
        bytes(64).prop_map(|bytes| said(Ok(Response::Signature(bytes)))),
        bytes(200).prop_map(|bytes| said(Ok(Response::Proof(proof(bytes))))),
    ]
}

/// A frame with one of its bytes changed, and cut.
fn damaged(whole: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (whole, any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>()).prop_map(
        |(mut frame, at, byte, end)| {
            let length = frame.len();
            frame[at.index(length)] = byte;
            frame.truncate(end.index(length) + 1);
            frame
        },
    )
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(written in some_requests()) {
        let read = requests(&written).expect("read");
        prop_assert_eq!(frame(|w| write_requests(w, &read.iter().collect::<Vec<_>>())), written);
    }

    #[test]
    fn an_answer_is_read_as_it_was_written(written in some_answers()) {
        let (health, read) = answers(&written).expect("read");
        prop_assert_eq!(frame(|w| write_answers(w, &health, &read)), written);
    }

    #[test]
    fn what_is_cut_or_goes_on_is_not_read(written in prop_oneof![some_requests(), some_answers()], more: u8) {
        let (cut, longer) = (&written[..written.len() - 1], [&written[..], &[more]].concat());
        prop_assert!(requests(&longer).is_none() || answers(&longer).is_none());
        prop_assert!(requests(cut).is_none() || answers(cut).is_none());
    }

    #[test]
    fn whatever_comes_is_read_or_refused(frame in prop_oneof![
        bytes(200), damaged(some_requests()), damaged(some_answers())
    ]) {
        drop((requests(&frame), answers(&frame)));
        drop(Reader::whole(&frame, read_task));
        drop(Reader::whole(&frame, read_unsealed));
    }

    #[test]
    fn a_frame_is_whole_however_it_comes(written in some_answers(), parts in 1_usize..40) {
        let (mut ours, theirs) = UnixStream::pair().expect("sockets");
        let all = [&u32::try_from(written.len()).expect("short").to_le_bytes(), &*written].concat();
        let sender = std::thread::spawn(move || {
            all.chunks(all.len().div_ceil(parts)).for_each(|part| {
                ours.write_all(part).expect("sent");
                std::thread::yield_now();
            });
        });
        let mut channel = Channel::new(theirs);
        let (health, read) = channel.receive(read_answers).expect("read");
        prop_assert_eq!(frame(|w| write_answers(w, &health, &read)), written);
        sender.join().expect("sent");
    }
}

/// What a channel makes of these bytes.
fn received(bytes: &[u8]) -> ErrorKind {
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    theirs.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
    ours.write_all(bytes).expect("sent");
    let read = Channel::new(theirs).receive(read_answers);
    read.err().expect("refused").kind()
}

#[test]
fn lengths_are_bounded_and_nothing_may_follow() {
    assert_eq!(received(&[0xff; 4]), ErrorKind::InvalidData);
    let longest = u32::try_from(MAX_FRAME).expect("short");
    assert_eq!(received(&(longest + 1).to_le_bytes()), ErrorKind::InvalidData);
    assert_eq!(received(&longest.to_le_bytes()), ErrorKind::InvalidData, "half a message");
    assert_eq!(received(&[1, 0, 0, 0, 3, 1, 0]), ErrorKind::InvalidData, "two messages");
    assert_eq!(received(&[0; 4]), ErrorKind::InvalidData, "an empty message");
    assert_eq!(received(&[]), ErrorKind::WouldBlock);
}

#[test]
fn a_message_that_comes_in_drops_has_no_more_time_than_another() {
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    theirs.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    let dripping = std::thread::spawn(move || {
        let drops = 1000_u32.to_le_bytes().into_iter().chain(std::iter::repeat_n(0, 1000));
        let sent = drops.take_while(|drop| {
            std::thread::park_timeout(Duration::from_millis(20));
            ours.write_all(&[*drop]).is_ok()
        });
        sent.count()
    });
    let read = Channel::new(theirs).receive(read_answers);
    assert_eq!(read.err().expect("refused").kind(), ErrorKind::TimedOut);
    assert!(dripping.join().expect("ended") < 100, "it was given up long before its end");
}

#[test]
fn the_most_requests_of_the_longest_kind_fit_into_a_frame_and_no_more_are_read() {
    let wrapped = WrappedKey::new(&[7; WrappedKey::MAX_LEN]);
    let key = TokenKey { id: BackingKeyId([1; 16]), wrapped };
    let one = Request::Derive { key, check: KeyCheck([2; 8]), input: vec![3; 1024] };
    let most = frame(|w| write_requests(w, &[&one; MOST]));
    assert!(most.len() <= MAX_FRAME);
    assert_eq!(requests(&most).expect("read").len(), MOST);
    assert!(requests(&frame(|w| write_requests(w, &[&one; MOST + 1]))).is_none());
    assert!(requests(&[]).is_none());
    let long = "é".repeat(1000);
    let error = Error::Unavailable { token: long.clone(), why: long.clone() };
    let health = Health { up: false, why: Some(long), epoch: 1, waiting: 0, seated: 0 };
    let refused: Vec<_> = (0..MOST).map(|_| Err(error.clone())).collect();
    assert!(frame(|w| write_answers(w, &health, &refused)).len() <= MAX_FRAME);
}

#[test]
fn a_message_that_is_too_long_is_not_sent() {
    let (ours, _theirs) = UnixStream::pair().expect("sockets");
    let mut channel = Channel::new(ours);
    let sent = channel.send(|w| w.bytes(&vec![0; MAX_FRAME + 1]));
    assert_eq!(sent.expect_err("refused").kind(), ErrorKind::InvalidInput);
    channel.send(|w| w.bytes(&[7])).expect("the next one is");
}

#[test]
fn every_profile_and_what_it_takes_to_reach_a_token_arrive() {
    for name in Profile::names() {
        let profile = Profile::built_in(name).expect("sound");
        for (token, module, device) in [
            (Locator::Serial("0a1b".into()), None, Some("device:/dev/tpmrm0".to_owned())),
            (Locator::Label("é".into()), Some("/opt/a module.so".into()), None),
        ] {
            let pin = Secret::copy_of(b"a pin");
            let access = Access { token: token.clone(), pin, module, device };
            let so_pin = Secret::copy_of(b"an officer's");
            let blank = access.device.is_some().then_some((&so_pin, "a label"));
            let written = frame(|w| write_opening(w, &profile, &access, blank));
            let Some(Task::Token(read)) = Reader::whole(&written, read_task) else {
                panic!("another task")
            };
            assert_eq!(format!("{:?}", read.profile), format!("{profile:?}"));
            assert_eq!((read.access.token, read.access.module), (token, access.module));
            assert_eq!(read.access.device, access.device);
            let told = read.blank.as_ref().map(|(so_pin, label)| (so_pin, label.as_str()));
            assert!(told == blank);
            assert!(read.access.pin == Secret::copy_of(b"a pin"));
        }
    }
}

#[test]
fn a_sealed_pin_and_what_became_of_it_arrive() {
    let file = br#"{"Version":1,"StorageKey":"AAs=","Object":"AQ=="}"#;
    let opener = Sealed::read(file).expect("read").opener(Some("swtpm:port=1".to_owned()), None);
    let written = frame(|w| write_unsealing(w, &opener));
    let read = Reader::whole(&written, read_task);
    assert!(matches!(read, Some(Task::Pin(read)) if read == opener));
    let written = frame(|w| write_unsealed(w, &Ok(Secret::copy_of(b"a pin"))));
    let read = Reader::whole(&written, read_unsealed).expect("read");
    assert!(read.is_ok_and(|pin| pin.expose() == b"a pin"));
    let error = Error::Sealed { token: "a".into(), why: "b".into() };
    let written = frame(|w| write_unsealed(w, &Err(error.clone())));
    let read = Reader::whole(&written, read_unsealed).expect("read");
    assert!(read.is_err_and(|read| read == error));
}

#[test]
fn texts_for_people_are_cut_between_characters() {
    let why = "é".repeat(1000);
    let error = Error::Unavailable { token: "a".into(), why: why.clone() };
    let written = frame(|w| write_opened(w, &Err(error)));
    let read = Reader::whole(&written, super::message::read_opened).expect("read");
    let Err(Error::Unavailable { why: told, .. }) = read else { panic!("another") };
    assert!(told.len() <= 1024 && why.starts_with(&told) && told.len() > 1000);
}
