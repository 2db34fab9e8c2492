//! Whatever is presented as certificates, neither the signature nor the chain is ever accepted.
//!
//! Input: a byte for the algorithm, the serial number up to a line's end, then certificates (DER),
//! each after two bytes of its length.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use strongroom::clock::Time;
use strongroom::identity::sigv4::Request;
use strongroom::identity::x509::{AnchorOptions, TrustAnchor, signed};

/// A CA whose key nobody has any more.
const CA: &str = include_str!("x509_ca.pem");
/// 2030-01-01T00:00:00Z.
const NOW: Time = Time(1_893_456_000_000);

static ANCHOR: LazyLock<TrustAnchor> = LazyLock::new(|| {
    let certificates = std::env::temp_dir().join(format!("x509-{}.pem", std::process::id()));
    std::fs::write(&certificates, CA).expect("a folder for temporary files");
    let anchor = AnchorOptions {
        id: "11111111-2222-3333-4444-555555555555".into(),
        account: "111122223333".into(),
        name: String::new(),
        certificates: certificates.clone(),
        crl: None,
    };
    let anchor = anchor.check().expect("a CA");
    std::fs::remove_file(certificates).expect("what was just written");
    anchor
});

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let line = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (serial, mut rest) = rest.split_at(line);
    rest = rest.get(1..).unwrap_or_default();
    let mut certificates = Vec::new();
    while let [high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (der, others) = after.split_at(length);
        certificates.push(der);
        rest = others;
    }
    let Some((leaf, chain)) = certificates.split_first() else { return };
    assert!(ANCHOR.verify_chain(leaf, chain, NOW).is_err());
    let chain: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
    let algorithm = if first & 1 == 0 { "RSA" } else { "ECDSA" };
    let authorization = format!(
        "AWS4-X509-{algorithm}-SHA256 \
         Credential={}/20300101/eu-central-1/rolesanywhere/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-x509;x-amz-x509-chain, Signature=00",
        String::from_utf8_lossy(serial)
    );
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "localhost".to_owned()),
        ("x-amz-date", "20300101T000000Z".to_owned()),
        ("x-amz-x509", STANDARD.encode(leaf)),
        ("x-amz-x509-chain", chain.join(",")),
        ("authorization", authorization),
    ] {
        let Ok(value) = HeaderValue::from_str(&value) else { return };
        headers.insert(name, value);
    }
    let method = Method::POST;
    let request = Request {
        method: &method,
        path: "/sessions",
        query: "",
        headers: &headers,
        authority: None,
        body: b"",
    };
    assert!(signed::verify(&request, "eu-central-1", NOW).is_err());
});
