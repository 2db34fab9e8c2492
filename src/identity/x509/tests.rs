use super::authority::{
    Authority, Client, Leaf, NOW, Owned, REGION, TIMESTAMP, ca_params, leaf_params,
};
use super::*;
use crate::clock::Time;
use crate::identity::sigv4::AuthError;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    date_time_ymd,
};
use std::fs;
use std::path::PathBuf;

const ID: &str = "11111111-2222-3333-4444-555555555555";
const ACCOUNT: &str = "111122223333";
const ROLE: &str = "arn:aws:iam::111122223333:role/web";
const YEAR: i64 = 365 * 86_400_000;

fn written(dir: &tempfile::TempDir, pem: &str, crl: Option<&str>) -> AnchorOptions {
    let certificates = dir.path().join("anchor.pem");
    fs::write(&certificates, pem).unwrap();
    let crl = crl.map(|text| {
        let path = dir.path().join("crl.pem");
        fs::write(&path, text).unwrap();
        path
    });
    let (id, account) = (ID.into(), ACCOUNT.into());
    AnchorOptions { id, account, name: "test".into(), certificates, crl }
}

fn anchor(pem: &str, crl: Option<&str>) -> TrustAnchor {
    written(&tempfile::tempdir().unwrap(), pem, crl).check().unwrap()
}

fn anchor_of(authority: &Authority) -> TrustAnchor {
    anchor(&authority.pem, None)
}

/// The verdict of a CA's anchor about a certificate that this CA issues.
fn verdict(change: impl FnOnce(&mut CertificateParams)) -> Result<Subject, Error> {
    let authority = Authority::root("CA");
    let mut params = leaf_params(1);
    change(&mut params);
    anchor_of(&authority).verify_chain(&authority.issue(&params, 1).der, &[], NOW)
}

#[track_caller]
fn subject(outcome: Result<Subject, Error>) -> Subject {
    outcome.expect("verifies")
}

mod chains {
    use super::*;

    #[test]
    fn a_certificate_of_the_anchors_ca_is_a_subject() {
        let subject = subject(verdict(|params| {
            params.serial_number = Some(vec![0, 0xab, 0x01].into());
        }));
        assert_eq!(subject.serial, "43777");
        assert_eq!(subject.serial_hex, "ab01");
        assert_eq!(subject.session_name(), "ab01");
        assert_eq!(subject.source_identity().as_deref(), Some("CN=web-1"));
        assert_eq!(subject.not_after, Time(1_798_761_600_000));
        assert_eq!(subject.name, "O=Example, CN=web-1");
        assert_eq!(subject.values("x509SAN/DNS").count(), 2);
        assert_eq!(subject.values("x509SAN/Email").next(), Some("web@example.com"));
    }

    #[test]
    fn an_rsa_key_does_as_well() {
        let authority = Authority::root("CA");
        let leaf = authority.issue_rsa(&leaf_params(1), 1);
        assert!(anchor_of(&authority).verify_chain(&leaf.der, &[], NOW).is_ok());
    }

    #[test]
    fn a_path_leads_over_intermediates_and_only_with_them() {
        let root = Authority::root("root");
        let (one, two) = (root.below("one"), root.below("two"));
        let below = one.below("three");
        let leaf = below.issue(&leaf_params(1), 1).der;
        let anchor = anchor_of(&root);
        let verify = |chain: &[&[u8]]| anchor.verify_chain(&leaf, chain, NOW).map(drop);
        assert_eq!(verify(&[&below.der, &one.der]), Ok(()));
        assert_eq!(verify(&[&two.der, &one.der, &below.der]), Ok(()));
        assert!(matches!(verify(&[&below.der]), Err(Error::Untrusted(_))));
        assert!(matches!(verify(&[]), Err(Error::Untrusted(_))));
        // An intermediate may be an anchor by itself.
        assert!(anchor_of(&below).verify_chain(&leaf, &[], NOW).is_ok());
    }

    #[test]
    fn five_intermediates_are_the_limit() {
        let root = Authority::root("root");
        let leaf = root.issue(&leaf_params(1), 1).der;
        let many: Vec<&[u8]> = vec![&root.der; 6];
        let anchor = anchor_of(&root);
        assert!(anchor.verify_chain(&leaf, &many[1..], NOW).is_ok());
        assert_eq!(anchor.verify_chain(&leaf, &many, NOW), Err(Error::TooMany));
        let long = vec![0; MAX_CERTIFICATE + 1];
        assert_eq!(anchor.verify_chain(&leaf, &[&long], NOW), Err(Error::TooLong));
        assert_eq!(anchor.verify_chain(&long, &[], NOW), Err(Error::TooLong));
    }

    #[test]
    fn another_ca_of_the_same_name_does_not_vouch() {
        let (ours, theirs) = (Authority::root("CA"), Authority::root("CA"));
        let leaf = theirs.issue(&leaf_params(1), 1).der;
        let outcome = anchor_of(&ours).verify_chain(&leaf, &[&theirs.der], NOW);
        assert!(matches!(outcome, Err(Error::Untrusted(_))), "{outcome:?}");
        assert_eq!(outcome.unwrap_err().code(), "AccessDeniedException");
    }

    #[test]
    fn time_counts_for_the_certificate_and_for_its_cas() {
        let expired = |p: &mut CertificateParams| p.not_after = date_time_ymd(2025, 12, 31);
        assert_eq!(verdict(expired), Err(Error::Expired));
        let early = |p: &mut CertificateParams| p.not_before = date_time_ymd(2026, 1, 2);
        assert_eq!(verdict(early), Err(Error::NotYetValid));
        let mut params = ca_params("short");
        params.not_after = date_time_ymd(2025, 12, 31);
        let root = Authority::root("root");
        let below = Authority::of(params.clone(), Some(&root));
        let leaf = below.issue(&leaf_params(1), 1).der;
        let outcome = anchor_of(&root).verify_chain(&leaf, &[&below.der], NOW);
        assert_eq!(outcome, Err(Error::Expired));
        // Nor does an anchor count whose own certificate has expired.
        let alone = Authority::of(params, None);
        let leaf = alone.issue(&leaf_params(1), 1).der;
        let outcome = anchor_of(&alone).verify_chain(&leaf, &[], NOW);
        assert!(matches!(outcome, Err(Error::Untrusted(_))), "{outcome:?}");
        assert!(anchor_of(&alone).verify_chain(&leaf, &[], Time(NOW.0 - YEAR / 2)).is_ok());
    }

    #[test]
    fn what_aws_asks_of_an_end_entity_certificate() {
        let ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(verdict(ca), Err(Error::IsCa));
        let other = |p: &mut CertificateParams| {
            p.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        };
        assert_eq!(verdict(other), Err(Error::NoDigitalSignature));
        let none = |p: &mut CertificateParams| p.key_usages.clear();
        assert_eq!(verdict(none), Err(Error::NoDigitalSignature));
        let server = |p: &mut CertificateParams| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        };
        assert_eq!(verdict(server), Err(Error::NoClientAuth));
        let unsaid = |p: &mut CertificateParams| {
            p.extended_key_usages.clear();
            p.is_ca = IsCa::NoCa;
        };
        assert!(verdict(unsaid).is_ok());
    }

    #[test]
    fn an_end_entity_certificate_issues_nothing() {
        let root = Authority::root("root");
        let mut params = ca_params("no CA");
        params.is_ca = IsCa::ExplicitNoCa;
        let fake = Authority::of(params, Some(&root));
        let leaf = fake.issue(&leaf_params(1), 1).der;
        let outcome = anchor_of(&root).verify_chain(&leaf, &[&fake.der], NOW);
        assert!(matches!(outcome, Err(Error::Untrusted(_))), "{outcome:?}");
    }

    #[test]
    fn an_altered_certificate_is_refused() {
        let authority = Authority::root("CA");
        let leaf = authority.issue(&leaf_params(1), 1).der;
        let anchor = anchor_of(&authority);
        for at in 0..leaf.len() {
            let mut altered = leaf.clone();
            altered[at] ^= 1;
            assert!(anchor.verify_chain(&altered, &[], NOW).is_err(), "byte {at}");
        }
        let longer = [leaf.as_slice(), &[0]].concat();
        assert_eq!(anchor.verify_chain(&longer, &[], NOW), Err(Error::Malformed));
        assert_eq!(anchor.verify_chain(&[], &[], NOW), Err(Error::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(leaf in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
            let authority = Authority::root("CA");
            prop_assert!(anchor_of(&authority).verify_chain(&leaf, &[&other], NOW).is_err());
        }
    }
}

mod revocation {
    use super::*;

    #[test]
    fn a_listed_certificate_is_revoked_and_others_are_not() {
        let authority = Authority::root("CA");
        let anchor = anchor(&authority.pem, Some(&authority.revoke(&[7], 2027)));
        let verify = |serial| {
            let leaf = authority.issue(&leaf_params(serial), serial).der;
            anchor.verify_chain(&leaf, &[], NOW).map(drop)
        };
        assert_eq!(verify(7), Err(Error::Revoked));
        assert_eq!(verify(8), Ok(()));
    }

    #[test]
    fn a_list_that_is_out_of_date_or_of_another_ca_tells_nothing() {
        let (authority, other) = (Authority::root("CA"), Authority::root("other"));
        let leaf = authority.issue(&leaf_params(1), 1).der;
        let unknown = |crl: String| {
            let outcome = anchor(&authority.pem, Some(&crl)).verify_chain(&leaf, &[], NOW);
            assert!(matches!(outcome, Err(Error::RevocationUnknown(_))), "{outcome:?}");
        };
        unknown(authority.revoke(&[], 2026));
        unknown(other.revoke(&[], 2027));
        // Of the same name, with another key.
        unknown(Authority::root("CA").revoke(&[], 2027));
    }

    #[test]
    fn every_ca_of_the_path_needs_a_list() {
        let root = Authority::root("root");
        let mut params = ca_params("below");
        params.serial_number = Some(99.into());
        let below = Authority::of(params, Some(&root));
        let leaf = below.issue(&leaf_params(1), 1).der;
        let verify = |lists: &[String]| {
            let anchor = anchor(&root.pem, Some(&lists.concat()));
            anchor.verify_chain(&leaf, &[&below.der], NOW).map(drop)
        };
        assert_eq!(verify(&[root.revoke(&[], 2027), below.revoke(&[], 2027)]), Ok(()));
        assert!(matches!(verify(&[root.revoke(&[], 2027)]), Err(Error::RevocationUnknown(_))));
        let revoked = verify(&[root.revoke(&[99], 2027), below.revoke(&[], 2027)]);
        assert_eq!(revoked, Err(Error::Revoked));
    }

    #[test]
    fn a_replaced_file_counts_after_a_refresh_and_a_broken_one_changes_nothing() {
        let authority = Authority::root("CA");
        let dir = tempfile::tempdir().unwrap();
        let anchor =
            written(&dir, &authority.pem, Some(&authority.revoke(&[], 2027))).check().unwrap();
        let leaf = authority.issue(&leaf_params(7), 7).der;
        let verify = || anchor.verify_chain(&leaf, &[], NOW).map(drop);
        assert_eq!(verify(), Ok(()));
        anchor.refresh().unwrap();
        fs::write(dir.path().join("crl.pem"), authority.revoke(&[7], 2027)).unwrap();
        assert_eq!(verify(), Ok(()));
        anchor.refresh().unwrap();
        assert_eq!(verify(), Err(Error::Revoked));
        fs::write(dir.path().join("crl.pem"), "broken").unwrap();
        assert!(anchor.refresh().is_err());
        assert_eq!(verify(), Err(Error::Revoked));
        fs::remove_file(dir.path().join("crl.pem")).unwrap();
        assert!(anchor.refresh().is_err());
        assert_eq!(verify(), Err(Error::Revoked));
    }
}

mod subjects {
    use super::*;

    fn tags(change: impl FnOnce(&mut CertificateParams)) -> Vec<(String, String)> {
        subject(verdict(change)).tags()
    }

    fn pairs(tags: &[(&str, &str)]) -> Vec<(String, String)> {
        tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn tags_are_those_that_aws_maps_by_default() {
        let expected = pairs(&[
            ("x509Subject/O", "Example"),
            ("x509Subject/CN", "web-1"),
            ("x509Issuer/CN", "CA"),
            ("x509SAN/DNS", "web-1.example"),
            ("x509SAN/URI", "spiffe://example/web"),
        ]);
        assert_eq!(tags(|_| ()), expected);
    }

    #[test]
    fn a_value_that_no_tag_can_have_is_left_out() {
        let named = |name: String| {
            let tags = tags(|p| {
                p.subject_alt_names.clear();
                p.distinguished_name.push(DnType::CommonName, name.as_str());
            });
            tags.into_iter().find(|(name, _)| name == "x509Subject/CN").map(|(_, value)| value)
        };
        assert_eq!(named("Müller & Söhne".into()), None);
        assert_eq!(named("Müller und Söhne".into()).as_deref(), Some("Müller und Söhne"));
        assert_eq!(named("ü".repeat(256)), Some("ü".repeat(256)));
        assert_eq!(named("u".repeat(257)), None);
    }

    #[test]
    fn a_source_identity_needs_one_common_name_of_its_characters() {
        let named = |name: &str| {
            let change = |p: &mut CertificateParams| {
                p.distinguished_name.push(DnType::CommonName, name);
            };
            subject(verdict(change)).source_identity()
        };
        assert_eq!(named("a.b").as_deref(), Some("CN=a.b"));
        assert_eq!(named("a b"), None);
        assert_eq!(named(&"a".repeat(62)), None);
        let nameless = |p: &mut CertificateParams| {
            p.distinguished_name.remove(DnType::CommonName);
        };
        assert_eq!(subject(verdict(nameless)).source_identity(), None);
    }
}

mod signatures {
    use super::*;

    fn issued() -> (Authority, Leaf) {
        let authority = Authority::root("CA");
        let leaf = authority.issue(&leaf_params(4711), 4711);
        (authority, leaf)
    }

    fn verify(request: &Owned) -> Result<signed::Proven, Error> {
        signed::verify(&request.request(), REGION, NOW)
    }

    const MISMATCH: Error = Error::Request(AuthError::Mismatch);

    #[test]
    fn a_signed_request_proves_its_certificate() {
        let (authority, leaf) = issued();
        let request = Client::new(&leaf, &[&authority.der]).signed();
        let proven = verify(&request).unwrap();
        assert_eq!(proven.leaf, leaf.der);
        assert_eq!(proven.chain, std::slice::from_ref(&authority.der));
        let anchor = anchor_of(&authority);
        let subject = subject(anchor.verify_chain(&proven.leaf, &proven.intermediates(), NOW));
        assert_eq!(subject.serial, "4711");
    }

    #[test]
    fn an_rsa_key_signs_too() {
        let authority = Authority::root("CA");
        let leaf = authority.issue_rsa(&leaf_params(4711), 4711);
        let proven = verify(&Client::new(&leaf, &[]).signed()).unwrap();
        assert_eq!(proven.chain, Vec::<Vec<u8>>::new());
    }

    #[test]
    fn whatever_is_altered_after_signing_is_refused() {
        let (authority, leaf) = issued();
        let client = Client::new(&leaf, &[&authority.der]);
        let altered = |change: &dyn Fn(&mut Owned)| {
            let mut request = client.signed();
            change(&mut request);
            verify(&request).unwrap_err()
        };
        assert_eq!(altered(&|r| r.body.push(b' ')), MISMATCH);
        assert_eq!(altered(&|r| r.path = "/session".into()), MISMATCH);
        assert_eq!(altered(&|r| r.set("content-type", "text/plain")), MISMATCH);
        assert_eq!(altered(&|r| r.set("host", "elsewhere")), MISMATCH);
        assert_eq!(altered(&|r| r.set("x-amz-date", "20260101T000001Z")), MISMATCH);
        assert_eq!(altered(&|r| drop(r.headers.remove("x-amz-x509-chain"))), MISMATCH);
        // Nor does a `Date` stand in for it.
        let redated = altered(&|r| {
            r.headers.remove("x-amz-date");
            r.set("date", TIMESTAMP);
        });
        assert_eq!(redated, MISMATCH);
        let added = altered(&|r| r.set("x-amz-target", "other"));
        assert_eq!(added, AuthError::HeaderNotSigned("x-amz-target".into()).into());
        let hash = "0".repeat(64);
        let claimed = altered(&|r| r.set("x-amz-content-sha256", &hash));
        assert!(matches!(claimed, Error::Request(AuthError::HeaderNotSigned(_))));
    }

    #[test]
    fn a_forged_signature_and_the_key_of_another_certificate_are_refused() {
        let (authority, leaf) = issued();
        let other = authority.issue(&leaf_params(4711), 4711);
        let client = Client::new(&leaf, &[]);
        assert_eq!(verify(&client.signed_with(&other.key)), Err(MISMATCH));
        let mut request = client.signed();
        let authorization = request.headers["authorization"].to_str().unwrap().to_owned();
        let (head, _) = authorization.split_once("Signature=").unwrap();
        for signature in ["", "0", "zz", "00", &"ab".repeat(5000)] {
            request.set("authorization", &format!("{head}Signature={signature}"));
            let refused = verify(&request).unwrap_err();
            assert!(matches!(refused, Error::Request(_)), "{signature}: {refused}");
        }
        // The certificate of one who holds another key.
        let mut request = client.signed();
        let theirs = Client::new(&other, &[]).signed();
        request.headers.insert("x-amz-x509", theirs.headers["x-amz-x509"].clone());
        assert_eq!(verify(&request), Err(MISMATCH));
    }

    #[test]
    fn serial_number_scope_and_algorithm_must_be_the_certificates_and_ours() {
        let (_, leaf) = issued();
        let mut client = Client::new(&leaf, &[]);
        client.serial = "4712".into();
        assert_eq!(verify(&client.signed()), Err(Error::Serial));
        client.serial = "1267".into(); // in hex
        assert_eq!(verify(&client.signed()), Err(Error::Serial));
        for scope in [
            "20260101/eu-west-1/rolesanywhere/aws4_request",
            "20260101/eu-central-1/sts/aws4_request",
            "20260101/eu-central-1/rolesanywhere/aws4",
            "20260102/eu-central-1/rolesanywhere/aws4_request",
        ] {
            let mut client = Client::new(&leaf, &[]);
            client.scope = scope.into();
            let refused = verify(&client.signed()).unwrap_err();
            assert!(matches!(refused, Error::Request(AuthError::Scope(_))), "{scope}");
        }
        let renamed = |algorithm: &str| {
            let mut request = Client::new(&leaf, &[]).signed();
            let value = request.headers["authorization"].to_str().unwrap().to_owned();
            request.set("authorization", &value.replace("AWS4-X509-ECDSA-SHA256", algorithm));
            verify(&request).unwrap_err()
        };
        assert_eq!(renamed("AWS4-X509-RSA-SHA256"), Error::KeyType);
        for algorithm in ["AWS4-HMAC-SHA256", "AWS4-X509-ECDSA-SHA1", "aws4-x509-ecdsa-sha256"] {
            assert_eq!(renamed(algorithm), AuthError::Algorithm(algorithm.into()).into());
        }
    }

    #[test]
    fn five_minutes_of_skew_and_no_second_more() {
        let (_, leaf) = issued();
        let request = Client::new(&leaf, &[]).signed();
        let at = |ms: i64| signed::verify(&request.request(), REGION, Time(NOW.0 + ms)).map(drop);
        assert_eq!(at(300_000), Ok(()));
        assert_eq!(at(-300_000), Ok(()));
        assert!(matches!(at(301_000), Err(Error::Request(AuthError::Expired { .. }))));
        assert!(matches!(at(-301_000), Err(Error::Request(AuthError::NotYetCurrent { .. }))));
    }

    #[test]
    fn the_certificates_headers_are_read_within_their_limits() {
        let (authority, leaf) = issued();
        let with = |name: &str, value: &str| {
            let mut request = Client::new(&leaf, &[&authority.der]).signed();
            request.set(name, value);
            verify(&request).unwrap_err()
        };
        assert_eq!(with("x-amz-x509", "?"), Error::Header("X-Amz-X509"));
        assert_eq!(with("x-amz-x509", ""), Error::Header("X-Amz-X509"));
        assert_eq!(with("x-amz-x509", "AAAA"), Error::Malformed);
        assert_eq!(with("x-amz-x509", "AAAA,AAAA"), Error::TooMany);
        assert_eq!(with("x-amz-x509-chain", ","), Error::Header("X-Amz-X509-Chain"));
        assert_eq!(with("x-amz-x509-chain", &["AAAA"; 6].join(",")), Error::TooMany);
        let long = "A".repeat(MAX_CERTIFICATE / 3 * 4 + 8);
        assert_eq!(with("x-amz-x509", &long), Error::TooLong);
        let mut request = Client::new(&leaf, &[]).signed();
        let again = request.headers["x-amz-x509"].clone();
        request.headers.append("x-amz-x509", again);
        assert_eq!(verify(&request), Err(AuthError::Repeated("X-Amz-X509").into()));
        let mut request = Client::new(&leaf, &[]).signed();
        request.headers.remove("x-amz-x509");
        assert_eq!(verify(&request), Err(Error::NoCertificate));
        request.headers.remove("authorization");
        assert_eq!(verify(&request), Err(AuthError::MissingToken.into()));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(leaf in "[ -~]{0,200}", chain in "[ -~]{0,200}", auth in "[ -~]{0,200}") {
            let authority = Authority::root("CA");
            let issued = authority.issue(&leaf_params(1), 1);
            let mut request = Client::new(&issued, &[]).signed();
            for (name, value) in
                [("x-amz-x509", &leaf), ("x-amz-x509-chain", &chain), ("authorization", &auth)]
            {
                let mut one = Client::new(&issued, &[]).signed();
                one.set(name, value);
                prop_assert!(verify(&one).is_err());
                request.set(name, value);
            }
            prop_assert!(verify(&request).is_err());
        }
    }
}

mod options {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        trust_anchor: Vec<AnchorOptions>,
        #[serde(default)]
        profile: Vec<ProfileOptions>,
        #[serde(default)]
        client_certificate: Vec<RuleOptions>,
    }

    /// What becomes of this text beside a trust anchor.
    fn check(text: &str) -> Result<Trust, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), Authority::root("CA").pem).unwrap();
        let anchor = format!(
            "[[trust_anchor]]\nid = '{ID}'\naccount = '{ACCOUNT}'\nname = 'CA'\n\
             certificates = 'ca.pem'\n"
        );
        let mut written: Written = toml::from_str(&(anchor + text)).map_err(|e| e.to_string())?;
        written.trust_anchor.iter_mut().for_each(|anchor| anchor.resolve(dir.path()));
        Trust::check(written.trust_anchor, written.profile, written.client_certificate)
            .map_err(|error| error.to_string())
    }

    fn profile(more: &str) -> String {
        format!(
            "[[profile]]\nid = '{ID}'\naccount = '{ACCOUNT}'\nname = 'p'\n{}{more}\n",
            if more.contains("role_arns") {
                String::new()
            } else {
                format!("role_arns = ['{ROLE}']\n")
            }
        )
    }

    fn rule(conditions: &str, more: &str) -> String {
        format!(
            "[[client_certificate]]\ntrust_anchor = '{ID}'\nrole_arn = '{ROLE}'\n{more}\n\
             match = {{ {conditions} }}\n"
        )
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = check(text).err().expect("refused");
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_is_written_is_what_counts() {
        let usual = check(&profile("")).unwrap();
        assert_eq!(usual.profiles[0].duration_seconds, 3600);
        let text = profile("duration_seconds = 900") + &rule("'x509Subject/CN' = 'web-*'", "");
        let trust = check(&text).unwrap();
        let [anchor] = trust.anchors.as_slice() else { panic!("one") };
        let arn = format!("arn:aws:rolesanywhere:eu-central-1:{ACCOUNT}:trust-anchor/{ID}");
        assert_eq!(anchor.arn(REGION), arn);
        let [profile] = trust.profiles.as_slice() else { panic!("one") };
        assert_eq!(profile.arn(REGION), arn.replace("trust-anchor", "profile"));
        assert_eq!((profile.duration_seconds, profile.accept_role_session_name), (900, false));
    }

    #[test]
    fn each_fault_has_its_sentence() {
        refused(
            "[[trust_anchor]]\nid = 'x'\naccount = '111122223333'\nname = ''\n\
                 certificates = 'ca.pem'",
            "`x` is no UUID",
        );
        refused("crl = 'none.pem'", "none.pem");
        refused("crl = 'ca.pem'", "revocation lists (PEM)");
        refused("colour = 1", "unknown field `colour`");
        refused(&(profile("") + &profile("")), "is there twice");
        refused(&profile("duration_seconds = 899"), "from 900 to 43200");
        refused(&profile("duration_seconds = 43201"), "from 900 to 43200");
        refused(&profile("role_arns = []"), "from 1 to 250 roles");
        refused(
            &profile("role_arns = ['arn:aws:iam::999999999999:role/x']"),
            "no role of the account",
        );
        refused(
            &profile("role_arns = ['arn:aws:iam::111122223333:user/x']"),
            "no role of the account",
        );
        refused(&profile("session_policy = '[]'"), "`session_policy`: ");
        refused(&profile("session_policy = '{}'"), "`session_policy`: ");
        refused(&profile("managed_policy_arns = ['x']"), "ARNs of policies");
        refused(&rule("", ""), "needs conditions");
        refused(&rule("'x509Subject/XX' = 'a'", ""), "needs conditions");
        refused(&rule("'x509Subject/CN' = ''", ""), "needs conditions");
        let cn = "'x509Subject/CN' = 'a'";
        refused(&rule(cn, "session_name = '{x}'"), "no session name");
        refused(&rule(cn, "session_name = '{serial'"), "no session name");
        refused(&rule(cn, "session_name = ''"), "no session name");
        refused(&rule(cn, "").replace(ID, "other"), "`other`, which is not there");
        refused(&rule(cn, "").replace(ACCOUNT, "999999999999"), "no role of the account");
    }

    #[test]
    fn an_anchors_file_must_hold_ca_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::root("CA");
        let leaf = authority.issue(&leaf_params(1), 1);
        let pem = |label: &str, der: &[u8]| {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
        };
        let error = |pem: &str| written(&dir, pem, None).check().err().unwrap().to_string();
        assert!(error(&pem("CERTIFICATE", &leaf.der)).contains("not a CA's"));
        assert!(error(&pem("CERTIFICATE", b"rubbish")).contains("not a CA's"));
        assert!(error("").contains("from 1 to 100 certificates"));
        let missing = AnchorOptions {
            certificates: PathBuf::from("/nowhere/ca.pem"),
            ..written(&dir, "", None)
        };
        assert!(missing.check().err().unwrap().to_string().contains("/nowhere/ca.pem"));
        let two = written(&dir, &(authority.pem.clone() + &Authority::root("other").pem), None);
        assert!(two.check().unwrap().verify_chain(&leaf.der, &[], NOW).is_ok());
    }

    fn mapped(
        text: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Option<Mapped>, Error> {
        Rule::apply(&check(text).unwrap().rules, ID, &subject(verdict(change)))
    }

    #[test]
    fn a_rule_gives_its_role_to_what_fits_all_its_conditions() {
        let text = rule("'x509Subject/CN' = 'web-?', 'x509SAN/URI' = 'spiffe://example/*'", "");
        let found = mapped(&text, |p| p.serial_number = Some(vec![0xab, 0xcd].into()));
        let expected = Mapped { role_arn: ROLE.into(), session_name: "abcd".into() };
        assert_eq!(found, Ok(Some(expected)));
        let other = mapped(&text, |p| p.distinguished_name.push(DnType::CommonName, "web-12"));
        assert_eq!(other, Ok(None));
        assert_eq!(mapped(&text, |p| p.subject_alt_names.clear()), Ok(None));
        assert_eq!(
            Rule::apply(&check(&text).unwrap().rules, "other", &subject(verdict(|_| ()))),
            Ok(None)
        );
    }

    #[test]
    fn the_first_rule_that_fits_names_the_session() {
        let text = rule("'x509Subject/CN' = 'db'", "session_name = 'first'")
            + &rule("'x509SAN/DNS' = 'www.*'", "session_name = 'host-{x509Subject/CN}.{serial}'")
            + &rule("'x509Subject/CN' = '*'", "session_name = 'last'");
        let name = |outcome: Result<Option<Mapped>, Error>| outcome.unwrap().unwrap().session_name;
        assert_eq!(name(mapped(&text, |_| ())), "host-web-1.01");
        assert_eq!(name(mapped(&text, |p| p.subject_alt_names.clear())), "last");
    }

    #[test]
    fn a_client_gets_the_role_of_the_anchor_that_vouches_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let other = "99999999-2222-3333-4444-555555555555";
        let (ours, theirs, strange) =
            (Authority::root("ours"), Authority::root("theirs"), Authority::root("strange"));
        let anchor = |id: &str, authority: &Authority| {
            let certificates = dir.path().join(id);
            fs::write(&certificates, &authority.pem).unwrap();
            AnchorOptions { id: id.into(), certificates, ..written(&dir, "", None) }
        };
        let rules: Written = toml::from_str(
            &(rule("'x509Subject/CN' = 'web-*'", "session_name = 'ours'")
                + &rule("'x509Subject/CN' = 'web-*'", "session_name = 'theirs'")
                    .replace(ID, other)
                + "[[trust_anchor]]\nid = ''\naccount = ''\nname = ''\ncertificates = ''\n"),
        )
        .unwrap();
        let anchors = vec![anchor(ID, &ours), anchor(other, &theirs)];
        let trust = Trust::check(anchors, Vec::new(), rules.client_certificate).unwrap();
        let client = |authority: &Authority, params: &CertificateParams| {
            let leaf = authority.issue(params, 1).der;
            let found = trust.client(&leaf, &[], NOW)?;
            Ok(found.map(|c| (c.anchor.id.clone(), c.mapped.session_name, c.subject.serial)))
        };
        let expected = |id: &str, name: &str| Ok(Some((id.into(), name.into(), "1".into())));
        assert_eq!(client(&ours, &leaf_params(1)), expected(ID, "ours"));
        assert_eq!(client(&theirs, &leaf_params(1)), expected(other, "theirs"));
        assert!(matches!(client(&strange, &leaf_params(1)), Err(Error::Untrusted(_))));
        let mut params = leaf_params(1);
        params.distinguished_name.push(DnType::CommonName, "db");
        assert_eq!(client(&theirs, &params), Ok(None));
        params.not_after = date_time_ymd(2025, 12, 31);
        assert_eq!(client(&ours, &params), Err(Error::Expired));
        assert_eq!(client(&theirs, &params), Err(Error::Expired));
        trust.refresh();
        let none = Trust::check(Vec::new(), Vec::new(), Vec::new()).unwrap();
        assert!(none.client(&ours.der, &[], NOW).is_err());
    }

    #[test]
    fn what_can_not_be_a_session_name_is_refused() {
        let text = rule("'x509Subject/CN' = '*'", "session_name = '{x509SAN/URI}'");
        let refused = Error::SessionName("spiffe://example/web".into());
        assert_eq!(mapped(&text, |_| ()), Err(refused));
        let text = rule("'x509Subject/CN' = '*'", "session_name = '{x509Subject/L}'");
        assert_eq!(mapped(&text, |_| ()), Err(Error::SessionName(String::new())));
    }
}

mod vectors {
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use std::collections::BTreeMap;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    #[derive(serde::Deserialize)]
    struct Suite {
        now: i64,
        ca: String,
        certificates: Vec<Issued>,
        requests: Vec<Sent>,
    }

    #[derive(serde::Deserialize)]
    struct Issued {
        name: String,
        why: String,
        pem: String,
        expected: String,
    }

    #[derive(serde::Deserialize)]
    struct Sent {
        name: String,
        why: String,
        headers: BTreeMap<String, String>,
        body: String,
        algorithm: String,
        serial_hex: String,
    }

    fn suite() -> Suite {
        let text = include_str!("../../../tests/vectors/x509/openssl.json");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn certificates_that_openssl_made() {
        let suite = suite();
        let anchor = anchor(&suite.ca, None);
        for Issued { name, why, pem, expected } in &suite.certificates {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let outcome = anchor.verify_chain(&der, &[], Time(suite.now));
            let outcome = outcome.map_or_else(|error| format!("{error:?}"), |_| "ok".into());
            assert_eq!(&outcome, expected, "{name}: {why}");
        }
        assert_eq!(suite.certificates.len(), 6);
    }

    #[test]
    fn requests_that_openssl_signed() {
        let suite = suite();
        let anchor = anchor(&suite.ca, None);
        for Sent { name, why, headers, body, algorithm, serial_hex } in &suite.requests {
            let header = |(name, value): (&String, &String)| {
                (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
            };
            let headers: HeaderMap = headers.iter().map(header).collect();
            assert!(headers["authorization"].to_str().unwrap().starts_with(algorithm));
            let owned = Owned { path: "/sessions".into(), headers, body: body.clone().into() };
            let now = Time(suite.now);
            let proven = signed::verify(&owned.request(), REGION, now)
                .unwrap_or_else(|error| panic!("{name}: {why}: {error}"));
            let chain = proven.intermediates();
            let subject = subject(anchor.verify_chain(&proven.leaf, &chain, now));
            assert_eq!(&subject.serial_hex, serial_hex, "{name}");
            let tag = |wanted: &str| {
                let tags = subject.tags();
                tags.into_iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
            };
            assert_eq!(tag("x509Subject/OU").as_deref(), Some("Ops/Web"));
            assert_eq!(tag("x509SAN/Name/CN").as_deref(), Some("web in a directory"));
            assert_eq!(tag("x509SAN/Email"), None);
        }
        assert_eq!(suite.requests.len(), 3);
    }
}
