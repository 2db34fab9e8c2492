//! Encryption contexts and the associated data of an envelope, in one canonical form.

use crate::name::{BackingKeyId, Scheme};
use aws_lc_rs::digest;
use std::collections::BTreeMap;

/// An encryption context: names and values, ordered by name. Public, but bound to the ciphertext.
pub type Context = BTreeMap<String, String>;

/// What an envelope is bound to besides its context.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    /// The account that owns the KMS key.
    pub account: &'a str,
    /// The region of this appliance; left out for multi-Region keys.
    pub region: &'a str,
    /// The KMS key id.
    pub key_id: &'a str,
    /// The backing key.
    pub backing: BackingKeyId,
    /// The scheme.
    pub scheme: Scheme,
}

/// SHA-256 of the associated data of an envelope: its header up to the commitment, then account,
/// region and key ARN (both empty for `mrk-` keys, whose ciphertexts open in every related
/// region), then the context: its number of pairs and each name and value in the order of the
/// names. Every text is preceded by its length in bytes (32 bits, big-endian), so no two inputs
/// have the same form.
pub fn associated_data(header: &[u8], binding: &Binding<'_>, context: &Context) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(header);
    let mut text = |s: &str| {
        hash.update(&u32::try_from(s.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(s.as_bytes());
    };
    text(binding.account);
    if binding.key_id.starts_with("mrk-") {
        text("");
        text("");
    } else {
        text(binding.region);
        text(&crate::name::key_arn(binding.region, binding.account, binding.key_id));
    }
    text(&context.len().to_string());
    for (name, value) in context {
        text(name);
        text(value);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}
