//! What an attestation of a KMS key says, and what is to be thought of it. docs/hardware.md has the
//! format.

use super::attest::nonce_bytes;
use crate::audit::note::{Signed, Verifier};
use crate::audit::statement;
use crate::custody::attested::Attested;
use crate::custody::proof::{Certified, Proof, name};
use crate::custody::{Evidence, KeyCheck};
use crate::name::Scheme;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// The version of [`Statement`] that is written and read here.
pub(super) const VERSION: u32 = 1;
/// The largest attestation that is read, in bytes.
pub const LONGEST: usize = 4 << 20;

/// A signed statement.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Attestation {
    /// The statement, a JSON document: what is signed is this text, byte by byte.
    pub statement: String,
    /// The signed note over its hash, by the key that signs the audit log's checkpoints.
    pub note: String,
}

/// What the appliance says of a KMS key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// The version of this format.
    pub version: u32,
    /// Of which KMS key.
    pub key_arn: String,
    /// When the token was asked (RFC 3339), by the appliance's clock.
    pub time: String,
    /// What the caller gave, so that they see that the statement was made for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The tokens that hold it.
    pub tokens: Vec<Token>,
    /// The backing keys, the current one last; one for each token that holds it.
    pub backing_keys: Vec<BackingKey>,
}

/// A token, as it calls itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Token {
    pub label: String,
    pub serial: String,
    pub manufacturer: String,
    pub model: String,
    /// What the appliance takes it for.
    pub profile: Described,
}

/// What a profile says of its kind of token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    pub name: String,
    /// Whether it is software, which proves nothing about the safety of keys.
    pub software: bool,
    /// What one must know before trusting it.
    pub statement: String,
}

/// A key in the token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BackingKey {
    /// Its `CKA_ID`, in hexadecimal.
    pub id: String,
    /// The serial number of the token that it is in.
    pub token: String,
    /// AWS's id of the key material.
    pub key_material_id: String,
    /// What it does.
    pub scheme: Scheme,
    /// Whether the appliance brought its value in from outside.
    pub imported: bool,
    /// What the token says of it; none if there is a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
    /// What is wrong with it, if it is not the key that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What the hardware itself has signed about it, over the nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// Attributes of a key, read back from the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attributes {
    /// `CKA_LOCAL`: made inside the token.
    pub local: bool,
    /// `CKA_SENSITIVE`: its value can't be read.
    pub sensitive: bool,
    /// `CKA_EXTRACTABLE`: its value can be wrapped out.
    pub extractable: bool,
    /// `CKA_NEVER_EXTRACTABLE`: it never could.
    pub never_extractable: bool,
    /// `CKA_ALWAYS_SENSITIVE`: it always was.
    pub always_sensitive: bool,
    /// `CKA_ALLOWED_MECHANISMS`; empty where the token does not know them.
    pub mechanisms: Vec<String>,
    /// The key-check value, in hexadecimal.
    pub key_check_value: String,
}

/// What is wrong with a backing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The token does not have it.
    Missing,
    /// Its attributes are not those that it was made with.
    Altered,
    /// It has another value than the key that was made.
    Substituted,
}

impl From<Evidence> for Attributes {
    fn from(evidence: Evidence) -> Self {
        let check = hex(&evidence.check.0);
        Self {
            local: evidence.local,
            sensitive: evidence.sensitive,
            extractable: evidence.extractable,
            never_extractable: evidence.never_extractable,
            always_sensitive: evidence.always_sensitive,
            mechanisms: evidence.mechanisms,
            key_check_value: check,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

/// What an attestation is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The token says of every backing key that it was made there and can't leave.
    Good,
    /// Forged, made for somebody else, or of keys that are not as they must be.
    Bad,
    /// It proves nothing, or it can't be told what.
    Unproven,
}

/// What vouches for hardware.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// The names of attestation keys that are known to be in TPMs.
    pub attestation_keys: Vec<Vec<u8>>,
    /// Certificates, in DER, that have signed those of cards.
    pub roots: Vec<Vec<u8>>,
}

/// What was found out about an attestation.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What it says, if the key has signed it and it can be read.
    pub statement: Option<Statement>,
    /// What is wrong.
    pub findings: Vec<String>,
    /// What it does not prove.
    pub doubts: Vec<String>,
    #[serde(skip)]
    trusted: Trusted,
}

impl Report {
    /// Checks an attestation, as it stands in a file, with the key that signs the appliance's
    /// checkpoints, with the nonce that it must have, if one was given, and with what vouches for
    /// hardware.
    pub fn of(bytes: &[u8], key: &Verifier, nonce: Option<&str>, trusted: &Trusted) -> Self {
        let mut report = Self { trusted: trusted.clone(), ..Self::default() };
        let attestation = serde_json::from_slice::<Attestation>(bytes);
        let Ok(Attestation { statement, note }) = attestation else {
            report.find("this is no attestation");
            return report;
        };
        match statement::check(key, &statement, &note) {
            Signed::Good(_) => report.read(&statement, nonce),
            Signed::Bad => report.find("the signature does not hold: it was altered"),
            Signed::Absent => report.find("this key has not signed it"),
        }
        report
    }

    fn read(&mut self, statement: &str, nonce: Option<&str>) {
        match serde_json::from_str::<Statement>(statement) {
            Ok(statement) if statement.version == VERSION => self.judge(statement, nonce),
            _ => self.doubt("it is of a version that this program does not read"),
        }
    }

    /// The outcome.
    pub fn verdict(&self) -> Verdict {
        match (self.findings.as_slice(), self.doubts.as_slice()) {
            ([], []) => Verdict::Good,
            ([], _) => Verdict::Unproven,
            _ => Verdict::Bad,
        }
    }

    fn judge(&mut self, statement: Statement, nonce: Option<&str>) {
        if let Some(wanted) = nonce {
            let given = statement.nonce.as_deref();
            if !given.is_some_and(|given| given.eq_ignore_ascii_case(wanted)) {
                self.find("it was not made for this nonce");
            }
        }
        if statement.backing_keys.is_empty() {
            self.find("it names no backing key");
        }
        let nonce = statement.nonce.as_deref().map(nonce_bytes);
        if nonce == Some(None) {
            // No appliance repeats such a one, and hardware could not have signed it.
            self.find("its nonce is not 16 to 64 bytes in hexadecimal");
        }
        let nonce = nonce.flatten().unwrap_or_default();
        for key in &statement.backing_keys {
            self.judge_key(key);
            self.judge_proof(key, &nonce);
        }
        for key in &statement.backing_keys {
            if !statement.tokens.iter().any(|token| token.serial == key.token) {
                self.find(format!("backing key {}: nothing is said of its token", key.id));
            }
        }
        if statement.tokens.iter().any(|token| token.profile.software) {
            self.doubt("software token, proves nothing");
        }
        self.statement = Some(statement);
    }

    fn judge_key(&mut self, key: &BackingKey) {
        let id = &key.id;
        let (Some(told), None) = (&key.attributes, key.fault) else {
            let what = match key.fault {
                Some(Fault::Missing) => "the token does not have it",
                Some(Fault::Altered) => "its attributes are not those that it was made with",
                Some(Fault::Substituted) => "another key stands in its place",
                None => "nothing is said of it",
            };
            self.find(format!("backing key {id}: {what}"));
            return;
        };
        let own = key.scheme.mechanisms();
        let foreign = told.mechanisms.iter().find(|name| !own.contains(&name.as_str()));
        let inside = told.local && told.never_extractable && told.always_sensitive;
        if !told.sensitive {
            self.find(format!("backing key {id}: its value can be read (not sensitive)"));
        }
        if told.extractable {
            self.find(format!("backing key {id}: it can be taken out (extractable)"));
        }
        if let Some(name) = foreign {
            self.find(format!("backing key {id}: it may be used otherwise ({name})"));
        }
        if key.imported {
            self.doubt(format!(
                "backing key {id} was brought in from outside: there may be copies elsewhere"
            ));
        } else if !inside {
            self.find(format!(
                "backing key {id}: it was not made in the token, or was not always kept there \
                 (local, never extractable and always sensitive are not all true)"
            ));
        }
    }

    /// What the hardware has signed about a key.
    fn judge_proof(&mut self, key: &BackingKey, nonce: &[u8]) {
        let told = key.attributes.as_ref().and_then(|told| KeyCheck::parse(&told.key_check_value));
        match &key.proof {
            Some(Proof::Tpm(certified)) => self.judge_tpm(key, certified, nonce, told),
            Some(Proof::Card(attested)) => self.judge_card(key, attested, told),
            None => {
                let Trusted { attestation_keys, roots } = &self.trusted;
                if !(attestation_keys.is_empty() && roots.is_empty()) {
                    let id = &key.id;
                    self.doubt(format!(
                        "backing key {id}: no hardware has signed anything about it"
                    ));
                }
            }
        }
    }

    fn judge_tpm(
        &mut self,
        BackingKey { id, scheme, imported, .. }: &BackingKey,
        certified: &Certified,
        nonce: &[u8],
        told: Option<KeyCheck>,
    ) {
        if let Err(why) = certified.check(nonce, *scheme, *imported, told) {
            self.find(format!("backing key {id}: {why}"));
        }
        let by = name(&certified.attestation_key.0);
        if self.trusted.attestation_keys.is_empty() {
            self.doubt(format!(
                "backing key {id}: the attestation key {} was not shown to be in a TPM",
                hex(&by)
            ));
        } else if !self.trusted.attestation_keys.contains(&by) {
            let by = hex(&by);
            self.find(format!("backing key {id}: signed by {by}, which is not enrolled"));
        }
    }

    fn judge_card(
        &mut self,
        BackingKey { id, token, .. }: &BackingKey,
        attested: &Attested,
        told: Option<KeyCheck>,
    ) {
        if let Err(why) = attested.check(told, token) {
            self.find(format!("backing key {id}: {why}"));
        }
        if self.trusted.roots.is_empty() {
            self.doubt(format!(
                "backing key {id}: nothing was given that vouches for the card which certifies it"
            ));
        } else if !attested.is_under(&self.trusted.roots) {
            self.find(format!(
                "backing key {id}: none of the roots has signed its card's certificate"
            ));
        }
    }

    fn find(&mut self, what: impl Into<String>) {
        self.findings.push(what.into());
    }

    fn doubt(&mut self, what: impl Into<String>) {
        self.doubts.push(what.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An Ed25519 key that nothing here is signed with.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    fn attributes() -> Attributes {
        Attributes {
            local: true,
            sensitive: true,
            extractable: false,
            never_extractable: true,
            always_sensitive: true,
            mechanisms: vec!["CKM_SHA256_HMAC".into()],
            key_check_value: "00".into(),
        }
    }

    fn statement(key: BackingKey) -> Statement {
        Statement {
            version: VERSION,
            key_arn: "arn:aws:kms:eu-central-1:111122223333:key/k".into(),
            time: "2026-01-01T00:00:00Z".into(),
            nonce: Some("AB".repeat(16)),
            tokens: vec![Token {
                label: "l".into(),
                serial: "s".into(),
                manufacturer: "m".into(),
                model: "m".into(),
                profile: Described { name: "p".into(), software: false, statement: String::new() },
            }],
            backing_keys: vec![key],
        }
    }

    fn backing(attributes: Attributes) -> BackingKey {
        BackingKey {
            id: "07".into(),
            token: "s".into(),
            key_material_id: "m".into(),
            scheme: Scheme::HmacKdf,
            imported: false,
            attributes: Some(attributes),
            fault: None,
            proof: None,
        }
    }

    fn judged(statement: Statement, nonce: Option<&str>) -> Report {
        let mut report = Report::default();
        report.judge(statement, nonce);
        report
    }

    #[test]
    fn a_key_that_was_made_in_hardware_and_stays_there_is_good() {
        let good = || statement(backing(attributes()));
        assert_eq!(judged(good(), None).verdict(), Verdict::Good);
        assert_eq!(judged(good(), Some(&"ab".repeat(16))).verdict(), Verdict::Good);
        assert_eq!(judged(good(), Some(&"cd".repeat(16))).verdict(), Verdict::Bad);
        assert_eq!(
            judged(Statement { nonce: None, ..good() }, Some("")).verdict(),
            Verdict::Bad,
            "no nonce is none"
        );
        for nonce in ["", "ab", "no nonce"] {
            let with = Statement { nonce: Some(nonce.into()), ..good() };
            assert_eq!(judged(with, Some(nonce)).verdict(), Verdict::Bad, "`{nonce}`");
        }
        let mut without = attributes();
        without.mechanisms.clear();
        assert_eq!(judged(statement(backing(without)), None).verdict(), Verdict::Good);
    }

    #[test]
    fn every_attribute_that_is_not_as_it_must_be_is_found() {
        let loosened: [fn(&mut Attributes); 6] = [
            |a| a.local = false,
            |a| a.sensitive = false,
            |a| a.extractable = true,
            |a| a.never_extractable = false,
            |a| a.always_sensitive = false,
            |a| a.mechanisms.push("CKM_SHA_1_HMAC".into()),
        ];
        for loosen in loosened {
            let mut attributes = attributes();
            loosen(&mut attributes);
            let report = judged(statement(backing(attributes)), None);
            assert_eq!((report.findings.len(), report.verdict()), (1, Verdict::Bad), "{report:?}");
        }
        for fault in [None, Some(Fault::Missing), Some(Fault::Altered), Some(Fault::Substituted)] {
            let key = BackingKey { attributes: None, fault, ..backing(attributes()) };
            assert_eq!(judged(statement(key), None).verdict(), Verdict::Bad);
        }
        let contradicted = BackingKey { fault: Some(Fault::Substituted), ..backing(attributes()) };
        assert_eq!(judged(statement(contradicted), None).verdict(), Verdict::Bad);
        let none = Statement { backing_keys: Vec::new(), ..statement(backing(attributes())) };
        assert_eq!(judged(none, None).verdict(), Verdict::Bad);
    }

    #[test]
    fn software_proves_nothing_and_what_came_from_outside_little() {
        let mut software = statement(backing(attributes()));
        software.tokens[0].profile.software = true;
        let report = judged(software, None);
        assert_eq!(report.verdict(), Verdict::Unproven);
        assert_eq!(report.doubts, ["software token, proves nothing"]);

        let outside = Attributes {
            local: false,
            never_extractable: false,
            always_sensitive: false,
            ..attributes()
        };
        let imported = BackingKey { imported: true, ..backing(outside.clone()) };
        let report = judged(statement(imported), None);
        assert_eq!(report.verdict(), Verdict::Unproven);
        assert!(report.doubts[0].contains("brought in from outside"));
        let loose = Attributes { extractable: true, ..outside };
        let imported = BackingKey { imported: true, ..backing(loose) };
        assert_eq!(judged(statement(imported), None).verdict(), Verdict::Bad);
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics_or_is_good(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            statement in ".{0,100}",
            note in ".{0,100}",
        ) {
            let key = Verifier::parse(KEY).expect("a key");
            let made = serde_json::to_vec(&Attestation { statement, note }).expect("JSON");
            for bytes in [bytes, made] {
                prop_assert_eq!(Report::of(&bytes, &key, None, &Trusted::default()).verdict(), Verdict::Bad);
            }
        }

        /// A signed statement with some of its text replaced: it is read, or it is not; nothing
        /// that is not read is good.
        #[test]
        fn whatever_was_signed_is_read_without_a_panic(
            at in any::<prop::sample::Index>(),
            len in 0_usize..40,
            with in ".{0,20}",
        ) {
            let whole = serde_json::to_string(&statement(backing(attributes()))).expect("JSON");
            let (head, rest) = whole.split_at(at.index(whole.len()));
            let (_, tail) = rest.split_at(rest.len().min(len));
            let text = [head, &with, tail].concat();
            let mut report = Report::default();
            report.read(&text, Some(&"ab".repeat(16)));
            prop_assert!(report.statement.is_some() || report.verdict() == Verdict::Unproven);
        }
    }
}
