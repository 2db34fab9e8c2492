//! From claims to proof: time, scope, signed headers, then the signature itself.

use super::canonical::canonical_request;
use super::parse::{Presented, only, unhex, within};
use super::{AuthError, DerivationFailed, MAX_SIGNED_HEADERS, SKEW, SigningKey};
use crate::clock::Time;
use crate::secret::Secret;
use aws_lc_rs::digest;
use http::HeaderName;
use subtle::ConstantTimeEq;

/// A session token proves itself and is often added after signing (AWS lets either order pass).
const TOKEN_HEADER: &str = "x-amz-security-token";

static X_AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// What a signature must have been made for.
#[derive(Clone, Copy)]
pub struct Expected<'e> {
    /// Now.
    pub now: Time,
    /// This appliance's region.
    pub region: &'e str,
    /// The signing names that may sign this request (`kms`, `secretsmanager`, ...). The first is
    /// named in the refusal.
    pub services: &'e [&'e str],
}

/// Claims that fit the time, the region and the service. Still unproven.
#[derive(Clone, Copy)]
pub struct Checked<'p, 'r>(&'p Presented<'r>);

impl<'r> Presented<'r> {
    /// Compares the claims with what is expected, without any secret.
    pub fn check(&self, expected: &Expected<'_>) -> Result<Checked<'_, 'r>, AuthError> {
        self.check_time(expected.now)?;
        self.check_signed_headers()?;
        self.check_scope(expected)?;
        Ok(Checked(self))
    }

    fn check_time(&self, now: Time) -> Result<(), AuthError> {
        let signed = self.signed_at;
        let age = now.seconds().saturating_sub(signed.seconds()).saturating_mul(1000);
        let valid = self.expires.unwrap_or(SKEW);
        if age > valid {
            Err(AuthError::Expired { signed, now, valid })
        } else if age < -SKEW {
            Err(AuthError::NotYetCurrent { signed, now })
        } else {
            Ok(())
        }
    }

    /// Names must be lower-case and strictly ascending, as every signer writes them. So they are
    /// distinct, and counting suffices to see whether each `x-amz-*` header is among them: a
    /// signed name without its header is refused later.
    fn check_signed_headers(&self) -> Result<(), AuthError> {
        let (mut previous, mut host, mut amz) = ("", false, 0);
        for (count, name) in self.signed_headers.split(';').enumerate() {
            within("number of signed headers", count + 1, MAX_SIGNED_HEADERS)?;
            host |= matches!(name, "host" | ":authority");
            amz += usize::from(must_be_signed(name));
            if (name <= previous && count > 0) || name.bytes().any(|b| b.is_ascii_uppercase()) {
                return Err(AuthError::Mismatch);
            }
            previous = name;
        }
        if !host {
            return Err(AuthError::HostNotSigned);
        }
        let names = || self.request.headers.keys().map(|name| name.as_str());
        if names().filter(|name| must_be_signed(name)).count() > amz {
            let signed: Vec<&str> = self.signed_headers.split(';').collect();
            let unsigned =
                names().find(|name| must_be_signed(name) && signed.binary_search(name).is_err());
            return Err(unsigned
                .map_or(AuthError::Mismatch, |name| AuthError::HeaderNotSigned(name.to_owned())));
        }
        Ok(())
    }

    fn check_scope(&self, expected: &Expected<'_>) -> Result<(), AuthError> {
        let day = self.timestamp.split('T').next().unwrap_or_default();
        let mut faults = String::new();
        if self.region() != expected.region {
            faults += "Credential should be scoped to a valid region. ";
        }
        if !expected.services.contains(&self.service()) {
            let service = expected.services.first().copied().unwrap_or_default();
            faults += &format!("Credential should be scoped to correct service: '{service}'. ");
        }
        if self.terminator() != "aws4_request" {
            faults += &format!(
                "Credential should be scoped with a valid terminator: 'aws4_request', not '{}'. ",
                self.terminator()
            );
        }
        if self.date() != day {
            faults += &format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
                 from HTTP: '{}' != '{day}', from '{}'. ",
                self.date(),
                self.timestamp
            );
        }
        if faults.is_empty() { Ok(()) } else { Err(AuthError::Scope(faults)) }
    }

    fn payload(&self) -> Result<[u8; 64], AuthError> {
        let digest = digest::digest(&digest::SHA256, self.request.body);
        let claimed = only(self.request.headers, &X_AMZ_CONTENT_SHA256, "X-Amz-Content-Sha256")?;
        if let Some(claimed) = claimed {
            let claimed = claimed.to_str().ok().and_then(unhex).ok_or(AuthError::Mismatch)?;
            if !bool::from(claimed.as_slice().ct_eq(digest.as_ref())) {
                return Err(AuthError::Mismatch);
            }
        }
        Ok(hex(digest.as_ref()))
    }

    /// What the signature is made over. Neither the time nor the scope is checked by this.
    pub(in crate::identity) fn string_to_sign(&self) -> Result<Vec<u8>, AuthError> {
        let payload = self.payload()?;
        let mut buffer = Vec::with_capacity(1024);
        canonical_request(self, &payload, &mut buffer)?;
        let digest = hex(digest::digest(&digest::SHA256, &buffer).as_ref());
        buffer.clear();
        for part in [self.algorithm, &self.timestamp, self.scope()] {
            buffer.extend_from_slice(part.as_bytes());
            buffer.push(b'\n');
        }
        buffer.extend_from_slice(&digest);
        Ok(buffer)
    }
}

impl<'p, 'r> Checked<'p, 'r> {
    /// The claims.
    pub fn presented(&self) -> &'p Presented<'r> {
        self.0
    }

    /// The signing key that `secret` has in this request's scope.
    pub fn derive(&self, secret: &Secret) -> Result<SigningKey, DerivationFailed> {
        SigningKey::derive(secret, self.0.date(), self.0.region(), self.0.service())
    }

    /// Proves that whoever holds `key` signed this very request, body included.
    ///
    /// The session token is not proven by this: see [`Presented::session_token`].
    pub fn verify(&self, key: &SigningKey) -> Result<(), AuthError> {
        // What is not 64 lower-case hex digits is the signature of nothing.
        let signature = unhex(self.0.signature()).ok_or(AuthError::Mismatch)?;
        let message = self.0.string_to_sign()?;
        if key.verifies(&message, &signature) { Ok(()) } else { Err(AuthError::Mismatch) }
    }
}

fn must_be_signed(name: &str) -> bool {
    name.starts_with("x-amz-") && name != TOKEN_HEADER
}

/// Lower-case hex of 32 bytes.
pub(super) fn hex(bytes: &[u8]) -> [u8; 64] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    let mut out = [b'0'; 64];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    out
}
