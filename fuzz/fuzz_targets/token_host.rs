//! What comes from the process that holds a token is read or refused: a vendor's library runs in it.
//! And what goes there, by the same rules.
//!
//! Input: the body of a frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::custody::Response;
use strongroom::custody::child::message::{answers, requests};

fuzz_target!(|data: &[u8]| {
    drop(requests(data));
    let Some((health, answers)) = answers(data) else { return };
    assert_eq!(health.up, health.why.is_none());
    // Nothing that is read is longer than what it was read from.
    assert!((1..=16).contains(&answers.len()));
    for answer in answers {
        match answer {
            Ok(Response::Random(bytes)) => assert!(bytes.len() < data.len()),
            Ok(Response::Signature(bytes)) => assert!(bytes.len() < data.len()),
            Err(error) => assert!(error.to_string().len() < data.len() + 100),
            Ok(_) => {}
        }
    }
});
