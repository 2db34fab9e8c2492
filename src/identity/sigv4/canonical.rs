//! The canonical request: one byte string for all the ways in which a request can be written.
//!
//! As every AWS service but S3 has it:
//! - path: empty and `.` segments removed, `..` resolved, then every byte outside RFC 3986's
//!   unreserved set and `/` percent-encoded, the percent signs of what was sent included
//!   (AWS calls it "URI-encoded twice");
//! - query: each name and value decoded (`+` is a space) and encoded again, sorted by name, then
//!   value, without `X-Amz-Signature`;
//! - headers: values trimmed, inner runs of blanks folded to one space, repeated ones joined by a
//!   comma.

use super::parse::{Presented, only, within};
use super::{AuthError, MAX_CANONICAL, Request};
use http::HeaderMap;
use http::header::HOST;

/// Names and values of a query as sent. Empty pairs are passed over.
pub(super) struct QueryPairs<'q>(std::str::Split<'q, char>);

impl<'q> QueryPairs<'q> {
    pub(super) fn new(query: &'q str) -> Self {
        Self(query.split('&'))
    }
}

impl<'q> Iterator for QueryPairs<'q> {
    type Item = (&'q str, &'q str);

    fn next(&mut self) -> Option<Self::Item> {
        let pair = self.0.find(|pair| !pair.is_empty())?;
        Some(pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// Appends the canonical request to `out`. `payload` is hex(SHA-256(body)).
pub(super) fn canonical_request(
    presented: &Presented<'_>,
    payload: &[u8; 64],
    out: &mut Vec<u8>,
) -> Result<(), AuthError> {
    let request = &presented.request;
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b'\n');
    path(request.path, out);
    out.push(b'\n');
    query(request.query, presented.presigned, out)?;
    out.push(b'\n');
    headers(request, &presented.signed_headers, out)?;
    out.push(b'\n');
    out.extend_from_slice(presented.signed_headers.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload);
    Ok(())
}

fn path(raw: &str, out: &mut Vec<u8>) {
    let mut segments: Vec<&str> = Vec::new();
    for segment in raw.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    for segment in &segments {
        out.push(b'/');
        segment.bytes().for_each(|byte| encode(byte, out));
    }
    if segments.is_empty() || raw.ends_with('/') {
        out.push(b'/');
    }
}

fn query(raw: &str, presigned: bool, out: &mut Vec<u8>) -> Result<(), AuthError> {
    if raw.is_empty() {
        return Ok(());
    }
    let mut pairs = Vec::new();
    for (name, value) in QueryPairs::new(raw) {
        if !(presigned && name == "X-Amz-Signature") {
            pairs.push((recoded(name)?, recoded(value)?));
        }
    }
    pairs.sort_unstable();
    for (n, (name, value)) in pairs.iter().enumerate() {
        if n > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
    Ok(())
}

fn headers(request: &Request<'_>, signed: &str, out: &mut Vec<u8>) -> Result<(), AuthError> {
    for name in signed.split(';') {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        if matches!(name, "host" | ":authority") {
            fold(host(request)?, out);
        } else {
            values(request.headers, name, out)?;
        }
        out.push(b'\n');
        within("signed part of the request", out.len(), MAX_CANONICAL)?;
    }
    Ok(())
}

/// The name that the request was sent to. Two that differ are refused: another part of the server
/// could read the one that was not signed.
fn host<'r>(request: &Request<'r>) -> Result<&'r [u8], AuthError> {
    let header = only(request.headers, &HOST, "Host")?.map(|value| value.as_bytes());
    match (request.authority.map(str::as_bytes), header) {
        (Some(authority), Some(header)) if authority != header => Err(AuthError::Mismatch),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(AuthError::Mismatch),
    }
}

/// A header that is signed but not there is refused, even if its signed value was empty.
fn values(headers: &HeaderMap, name: &str, out: &mut Vec<u8>) -> Result<(), AuthError> {
    let mut values = headers.get_all(name).iter();
    fold(values.next().ok_or(AuthError::Mismatch)?.as_bytes(), out);
    for value in values {
        out.push(b',');
        fold(value.as_bytes(), out);
    }
    Ok(())
}

fn fold(value: &[u8], out: &mut Vec<u8>) {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    for (n, word) in words.enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

fn recoded(raw: &str) -> Result<Vec<u8>, AuthError> {
    let mut out = Vec::with_capacity(raw.len());
    unescape(raw.as_bytes(), |byte| encode(byte, &mut out)).ok_or(AuthError::Mismatch)?;
    Ok(out)
}

/// Hands every byte that `raw` stands for to `emit`. `None` at a percent sign that two hex digits
/// don't follow: readers disagree about those.
pub(super) fn unescape(raw: &[u8], mut emit: impl FnMut(u8)) -> Option<()> {
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        emit(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    Some(())
}

fn encode(byte: u8, out: &mut Vec<u8>) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'A' + value - 10 };
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
        out.push(byte);
    } else {
        out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
    }
}
