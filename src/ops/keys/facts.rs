//! The condition keys of KMS:
//! <https://docs.aws.amazon.com/kms/latest/developerguide/policy-conditions.html>.

use super::stores;
use super::terms::SYMMETRIC_DEFAULT;
use crate::envelope::context::Context;
use crate::ops::call::Call;
use crate::ops::scene::tag;
use crate::policy::Values;
use crate::store::keys::Key;
use std::borrow::Cow;

/// What the constraints of grants ask for the encryption context by: name, value, name, value, ... No
/// policy can name this key, since none may have a control character.
pub(in crate::ops) const CONTEXT: &str = "kms:encryptioncontext\0";

/// `kms:EncryptionContext:NAME` and `kms:EncryptionContextKeys`. Names of condition keys don't know
/// letter case, so neither does NAME.
pub(in crate::ops) fn of_context<'a>(context: &'a Context, key: &str) -> Option<Values<'a>> {
    if key == "kms:encryptioncontextkeys" {
        let names = context.keys().map(|name| Cow::Borrowed(name.as_str()));
        return Some(Values::Many(names.collect())).filter(|_| !context.is_empty());
    }
    if key == CONTEXT {
        let pairs = context.iter().flat_map(|(name, value)| [name, value]);
        return Some(Values::Many(pairs.map(|text| Cow::Borrowed(text.as_str())).collect()));
    }
    let wanted = key.strip_prefix("kms:encryptioncontext:")?;
    let found = context.iter().find(|(name, _)| name.to_lowercase() == wanted);
    found.map(|(_, value)| Values::one(value))
}

/// `kms:EncryptionAlgorithm`, which has a default.
pub(super) fn of_algorithm<'a>(named: Option<&'a String>, key: &str) -> Option<Values<'a>> {
    (key == "kms:encryptionalgorithm")
        .then(|| Values::one(named.map_or(SYMMETRIC_DEFAULT, String::as_str)))
}

/// `kms:BypassPolicyLockoutSafetyCheck`.
pub(super) fn of_bypass(bypass: Option<bool>, key: &str) -> Option<Values<'static>> {
    let asked = key == "kms:bypasspolicylockoutsafetycheck";
    asked.then(|| Values::truth(bypass.unwrap_or(false)))
}

/// A number of the request's.
pub(super) fn number(key: &str, of: &str, value: Option<i64>) -> Option<Values<'static>> {
    value.filter(|_| key == of).map(|value| Values::made(value.to_string()))
}

/// Where a key's material came from, as AWS has it.
pub(super) fn origin(key: &Key) -> &'static str {
    if key.store.is_some() { stores::ORIGIN } else { "AWS_KMS" }
}

/// What the key itself answers.
pub(super) fn of_key<'a>(call: &Call, key: &'a Key, asked: &str) -> Option<Values<'a>> {
    match asked {
        "kms:keyspec" => Some(Values::one(SYMMETRIC_DEFAULT)),
        "kms:keyusage" => Some(Values::one("ENCRYPT_DECRYPT")),
        "kms:keyorigin" => Some(Values::one(origin(key))),
        "kms:multiregion" => Some(Values::truth(false)),
        "kms:resourcealiases" => aliases(call, key),
        _ => tag(&key.tags, asked.strip_prefix("aws:resourcetag/")?),
    }
}

/// The names of all aliases of a key. Where the database can't tell, nothing is known of them; the
/// request itself fails then too.
fn aliases<'a>(call: &Call, key: &Key) -> Option<Values<'a>> {
    let found = call.records.read(|rows| rows.aliases_of(&key.account, &key.id)).ok()?;
    let names: Vec<_> = found.into_iter().map(|alias| Cow::Owned(alias.name)).collect();
    (!names.is_empty()).then_some(Values::Many(names))
}
