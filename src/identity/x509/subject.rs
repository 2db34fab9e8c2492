//! Whom a certificate names: the attributes that become principal tags, a session's name, its source
//! identity.

use super::Error;
use super::certificate::Certificate;
use crate::clock::Time;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Name;

/// The longest value of a session tag, in characters; AWS's limit.
const MAX_TAG_VALUE: usize = 256;

/// What a verified certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its serial number in decimal.
    pub serial: String,
    /// Its serial number in lower-case hex, two digits a byte.
    pub serial_hex: String,
    /// When it expires: no session may outlive it by more than its own duration.
    pub not_after: Time,
    /// Its subject's distinguished name, for people to read.
    pub name: String,
    /// `x509Subject/CN` and the like, in the certificate's order; a name may come more than once.
    attributes: Vec<(String, String)>,
}

/// The attribute types that have a short name, by their dotted object identifiers: RFC 4519, RFC
/// 2985 and X.520.
const SHORT_NAMES: [(&str, &str); 18] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "T"),
    ("2.5.4.17", "POSTALCODE"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "INITIALS"),
    ("2.5.4.44", "GENERATION"),
    ("2.5.4.46", "DNQUALIFIER"),
    ("2.5.4.65", "PSEUDONYM"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

const EMAIL: &str = "x509SAN/Email";

impl Subject {
    pub(super) fn read(certificate: &Certificate<'_>) -> Result<Self, Error> {
        let parsed = &certificate.0;
        let mut attributes = Vec::new();
        names("x509Subject", parsed.subject(), &mut attributes);
        names("x509Issuer", parsed.issuer(), &mut attributes);
        let alternatives = parsed.subject_alternative_name().map_err(|_| Error::Malformed)?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => attributes.push(pair("x509SAN/DNS", name)),
                GeneralName::URI(uri) => attributes.push(pair("x509SAN/URI", uri)),
                GeneralName::RFC822Name(address) => attributes.push(pair(EMAIL, address)),
                GeneralName::DirectoryName(name) => names("x509SAN/Name", name, &mut attributes),
                _ => {}
            }
        }
        let expires = parsed.validity().not_after.timestamp();
        Ok(Self {
            serial: certificate.serial(),
            serial_hex: certificate.serial_hex(),
            not_after: Time(expires.saturating_mul(1000)),
            name: parsed.subject().to_string(),
            attributes,
        })
    }

    /// The values of one attribute: `x509Subject/CN`, `x509Issuer/O`, `x509SAN/DNS`, `x509SAN/URI`,
    /// `x509SAN/Email`, `x509SAN/Name/CN` and the like.
    pub fn values<'s>(&'s self, attribute: &'s str) -> impl Iterator<Item = &'s str> + use<'s> {
        let of_name = move |(name, _): &&(String, String)| name == attribute;
        self.attributes.iter().filter(of_name).map(|(_, value)| value.as_str())
    }

    /// The principal tags that Roles Anywhere maps by default, each key once.
    ///
    /// Of the alternative names the first of each kind counts, and e-mail addresses don't, as AWS
    /// has it. Several values of the same part of a distinguished name are joined by `/`, so that
    /// no order of them can pass for one of them alone. What can't be the value of a tag is left
    /// out: a condition on it finds no tag.
    pub fn tags(&self) -> Vec<(String, String)> {
        let mut tags: Vec<(String, String)> = Vec::new();
        for (name, value) in self.attributes.iter().filter(|(name, _)| name != EMAIL) {
            match tags.iter_mut().find(|(known, _)| known == name) {
                None => tags.push((name.clone(), value.clone())),
                Some(_) if name.starts_with("x509SAN/") => {}
                Some((_, joined)) => *joined = [joined.as_str(), "/", value].concat(),
            }
        }
        tags.retain(|(_, value)| is_tag_value(value));
        tags
    }

    /// The role session name that a session has by default.
    pub fn session_name(&self) -> &str {
        &self.serial_hex
    }

    /// The source identity of a session: `CN=` and the common name. Nothing without exactly one
    /// common name, or if it has characters that a source identity can't have.
    pub fn source_identity(&self) -> Option<String> {
        let mut names = self.values("x509Subject/CN");
        let (Some(name), None) = (names.next(), names.next()) else { return None };
        Some(["CN=", name].concat()).filter(|identity| is_session_name(identity))
    }
}

/// Whether an attribute of this name can be had from certificates at all.
pub(super) fn is_attribute(name: &str) -> bool {
    let short = |name: &str| SHORT_NAMES.iter().any(|(_, known)| *known == name);
    match name.split_once('/') {
        Some(("x509Subject" | "x509Issuer", part)) => short(part),
        Some(("x509SAN", "DNS" | "URI" | "Email")) => true,
        Some(("x509SAN", part)) => part.strip_prefix("Name/").is_some_and(short),
        _ => false,
    }
}

/// Whether this can be a role session name or a source identity: `[\w+=,.@-]{2,64}`.
pub(super) fn is_session_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    (2..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// Whether this can be a tag's value: `[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,256}`.
fn is_tag_value(text: &str) -> bool {
    let fits = |c: char| {
        c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
    };
    text.chars().count() <= MAX_TAG_VALUE && text.chars().all(fits)
}

/// The parts of a distinguished name that have a short name and a text.
fn names(prefix: &str, name: &X509Name<'_>, out: &mut Vec<(String, String)>) {
    for attribute in name.iter_attributes() {
        let oid = attribute.attr_type().to_id_string();
        let short = SHORT_NAMES.iter().find(|(known, _)| *known == oid);
        if let (Some((_, short)), Ok(value)) = (short, attribute.as_str()) {
            out.push(([prefix, "/", short].concat(), value.to_owned()));
        }
    }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
