//! Whatever is presented as a token is read or refused, never worse.
//!
//! Input: lines `header`, `claims`, then the rest as the signature, each of which is encoded; also
//! the whole of it as it stands.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use strongroom::identity::oidc::Token;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        drop(Token::parse(text));
    }
    let parts: Vec<String> =
        data.splitn(3, |byte| *byte == b'\n').map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
    drop(Token::parse(&parts.join(".")));
});
