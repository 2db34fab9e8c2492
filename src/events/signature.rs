//! Signatures of events, by the scheme of Standard Webhooks:
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use crate::clock::Time;
use crate::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::{Path, PathBuf};

/// What a written secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;
/// Secrets that may count at a time: the old and the new one, while receivers change over.
const MOST: usize = 2;
/// The longest file of secrets, in bytes.
const MAX_FILE: usize = 512;

/// Where a webhook's secrets come from.
pub(super) enum Source {
    /// A file, read anew for each event, so that a new secret needs no restart.
    File(PathBuf),
    /// The environment.
    Environment(Secret),
}

impl Source {
    /// The systemd credential `webhook-NAME`, else the file that is named, else
    /// `STRONGROOM_WEBHOOK_NAME`.
    pub(super) fn of(name: &str, file: Option<&Path>) -> Option<Self> {
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY");
        let credential = credential.map(|dir| Path::new(&dir).join(format!("webhook-{name}")));
        if let Some(path) = credential.filter(|path| path.exists()).or(file.map(Path::to_owned)) {
            return Some(Self::File(path));
        }
        let variable =
            format!("STRONGROOM_WEBHOOK_{}", name.to_ascii_uppercase().replace('-', "_"));
        let set = std::env::var(variable).ok().filter(|text| !text.is_empty());
        set.map(|text| Self::Environment(Secret::new(text.into_bytes())))
    }

    /// The keys of now. Blocks.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them.
    pub(super) fn keys(&self) -> Result<Keys, String> {
        let path = match self {
            Self::Environment(text) => return Keys::read(text),
            Self::File(path) => path,
        };
        let wrong = |why: &dyn std::fmt::Display| format!("`{}`: {why}", path.display());
        let text = Secret::read_private(path, MAX_FILE).map_err(|e| wrong(&e))?;
        text.ok_or_else(|| "too long".to_owned())
            .and_then(|text| Keys::read(&text))
            .map_err(|e| wrong(&e))
    }
}

/// The keys that sign.
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    fn read(text: &Secret) -> Result<Self, String> {
        let words = text.expose_str().unwrap_or_default().split_ascii_whitespace();
        let keys: Option<Vec<_>> = words.map(key).collect();
        let keys = keys.filter(|keys| (1..=MOST).contains(&keys.len()));
        keys.map(Self).ok_or_else(|| {
            "it holds no secret, or more than two: each is `whsec_` and 24 to 64 bytes in base64".into()
        })
    }

    /// The header `webhook-signature` of a body: `v1,` and HMAC-SHA-256(key, id.seconds.body) in base64,
    /// for each key.
    pub(super) fn sign(&self, id: &str, at: Time, body: &[u8]) -> String {
        let signed =
            [id.as_bytes(), b".", at.seconds().to_string().as_bytes(), b".", body].concat();
        let sign = |key: &hmac::Key| format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed)));
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

fn key(word: &str) -> Option<hmac::Key> {
    let bytes = Secret::new(STANDARD.decode(word.strip_prefix(PREFIX)?).ok()?);
    let long_enough = LENGTH.contains(&bytes.len());
    long_enough.then(|| hmac::Key::new(hmac::HMAC_SHA256, bytes.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, String> {
        Keys::read(&Secret::copy_of(text.as_bytes()))
    }

    /// The example of the scheme's reference libraries.
    #[test]
    fn a_signature_is_that_of_the_scheme() {
        let keys = keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a key");
        let signature = keys.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Time(1_614_265_330_999),
            b"{\"test\": 2432232314}",
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_sign_side_by_side_and_nothing_else_passes_for_one() {
        let (one, other) =
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", format!("whsec_{}", "A".repeat(32)));
        let both = keys(&format!("{one}\n{other}\n")).expect("two");
        let signed = both.sign("a", Time(0), b"x");
        let apart = [one, &other].map(|text| keys(text).expect("one").sign("a", Time(0), b"x"));
        assert_eq!(signed, apart.join(" "));
        let short = format!("whsec_{}", "A".repeat(28));
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &short,
            &format!("{one} {one} {one}"),
        ] {
            assert!(keys(text).is_err(), "{text}");
        }
    }
}
