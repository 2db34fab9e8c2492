//! Whatever is sent, verification neither panics nor accepts it: no input knows the secret.
//!
//! Input: lines `method`, `path`, `query`, then `name:value` headers, an empty line, the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::identity::sigv4::{Expected, Presented, Request};
use strongroom::secret::Secret;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.split('\n');
    let Ok(method) = lines.next().unwrap_or_default().parse() else { return };
    let (path, query) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) =
            (name.parse::<http::HeaderName>(), http::HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    let request = Request {
        method: &method,
        path,
        query,
        headers: &headers,
        authority: None,
        body: body.as_bytes(),
    };
    let Ok(presented) = Presented::parse(&request) else { return };
    // The claimed time and scope, so that the deeper steps are reached.
    let services = [presented.service()];
    let expected =
        Expected { now: presented.signed_at(), region: presented.region(), services: &services };
    let Ok(checked) = presented.check(&expected) else { return };
    if let Ok(key) = checked.derive(&Secret::copy_of(b"a secret that no input knows")) {
        assert!(checked.verify(&key).is_err());
    }
});
