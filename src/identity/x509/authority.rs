//! A certification authority for tests.

use crate::clock::Time;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// 2026-01-01T00:00:00Z.
pub(super) const NOW: Time = Time(1_767_225_600_000);
pub(super) const TIMESTAMP: &str = "20260101T000000Z";
pub(super) const REGION: &str = "eu-central-1";

/// A CA, valid from 2020 to 2030.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) der: Vec<u8>,
    pub(super) pem: String,
}

/// A certificate with its key.
pub(super) struct Leaf {
    pub(super) der: Vec<u8>,
    pub(super) key: KeyPair,
    pub(super) serial: u64,
}

pub(super) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
    params
}

/// A certificate as Roles Anywhere wants it, valid in 2025 and 2026.
pub(super) fn leaf_params(serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, "web-1");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params.serial_number = Some(SerialNumber::from(serial));
    params.subject_alt_names = vec![
        SanType::DnsName("web-1.example".try_into().unwrap()),
        SanType::DnsName("www.example".try_into().unwrap()),
        SanType::URI("spiffe://example/web".try_into().unwrap()),
        SanType::Rfc822Name("web@example.com".try_into().unwrap()),
    ];
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

impl Authority {
    pub(super) fn root(name: &str) -> Self {
        Self::of(ca_params(name), None)
    }

    pub(super) fn below(&self, name: &str) -> Self {
        Self::of(ca_params(name), Some(self))
    }

    pub(super) fn of(params: CertificateParams, parent: Option<&Self>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = match parent {
            None => params.self_signed(&key),
            Some(parent) => params.signed_by(&key, &parent.issuer),
        };
        let certificate = certificate.unwrap();
        let (der, pem) = (certificate.der().to_vec(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    pub(super) fn issue(&self, params: &CertificateParams, serial: u64) -> Leaf {
        self.issue_to(params, serial, KeyPair::generate().unwrap())
    }

    pub(super) fn issue_rsa(&self, params: &CertificateParams, serial: u64) -> Leaf {
        self.issue_to(params, serial, KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap())
    }

    fn issue_to(&self, params: &CertificateParams, serial: u64, key: KeyPair) -> Leaf {
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Leaf { der, key, serial }
    }

    /// A revocation list (PEM), good until `until` (year).
    pub(super) fn revoke(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 6, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 6, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A request that owns its parts, so that a test can alter them after signing.
pub(super) struct Owned {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Owned {
    pub(super) fn request(&self) -> crate::identity::sigv4::Request<'_> {
        crate::identity::sigv4::Request {
            method: &Method::POST,
            path: &self.path,
            query: "",
            headers: &self.headers,
            authority: None,
            body: &self.body,
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
}

/// A client of CreateSession. What it signs needs no normalising.
pub(super) struct Client<'l> {
    pub(super) leaf: &'l Leaf,
    pub(super) chain: Vec<&'l [u8]>,
    pub(super) scope: String,
    pub(super) serial: String,
}

impl<'l> Client<'l> {
    pub(super) fn new(leaf: &'l Leaf, chain: &[&'l [u8]]) -> Self {
        let scope = format!("20260101/{REGION}/rolesanywhere/aws4_request");
        Self { leaf, chain: chain.to_vec(), scope, serial: leaf.serial.to_string() }
    }

    fn algorithm(&self) -> &'static str {
        if self.leaf.key.algorithm() == &PKCS_RSA_SHA256 {
            "AWS4-X509-RSA-SHA256"
        } else {
            "AWS4-X509-ECDSA-SHA256"
        }
    }

    pub(super) fn signed(&self) -> Owned {
        self.signed_with(&self.leaf.key)
    }

    pub(super) fn signed_with(&self, key: &KeyPair) -> Owned {
        let body = br#"{"profileArn": "p", "roleArn": "r", "trustAnchorArn": "t"}"#.to_vec();
        let mut request = Owned { path: "/sessions".into(), headers: HeaderMap::new(), body };
        request.set("content-type", "application/json");
        request.set("host", "127.0.0.1:8443");
        request.set("x-amz-date", TIMESTAMP);
        request.set("x-amz-x509", &STANDARD.encode(&self.leaf.der));
        if !self.chain.is_empty() {
            let chain: Vec<String> = self.chain.iter().map(|der| STANDARD.encode(der)).collect();
            request.set("x-amz-x509-chain", &chain.join(","));
        }
        let mut names: Vec<&str> = request.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let mut canonical = "POST\n/sessions\n\n".to_owned();
        for name in &names {
            canonical += &format!("{name}:{}\n", request.headers[*name].to_str().unwrap());
        }
        let signed = names.join(";");
        canonical += &format!("\n{signed}\n{}", hex(digest(&SHA256, &request.body).as_ref()));
        let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let (algorithm, scope) = (self.algorithm(), &self.scope);
        let message = format!("{algorithm}\n{TIMESTAMP}\n{scope}\n{hashed}");
        let signature = hex(&sign(key, message.as_bytes()));
        let serial = &self.serial;
        request.set(
            "authorization",
            &format!(
                "{algorithm} Credential={serial}/{scope}, SignedHeaders={signed}, \
                 Signature={signature}"
            ),
        );
        request
    }
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let pkcs8 = key.serialized_der();
    if key.algorithm() == &PKCS_RSA_SHA256 {
        let key = RsaKeyPair::from_pkcs8(pkcs8).unwrap();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
        signature
    } else {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).unwrap();
        key.sign(&random, message).unwrap().as_ref().to_vec()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
