use super::signer::{
    ACCESS_KEY, NOW, Owned, REGION, SECRET, Scope, TIMESTAMP, USUAL_HEADERS, presigned, sign_as,
    signed, unsigned,
};
use super::*;
use crate::clock::Time;
use crate::secret::Secret;
use http::HeaderValue;
use proptest::prelude::*;
use std::sync::Arc;

const EXPECTED: Expected<'static> =
    Expected { now: NOW, region: REGION, services: &["secretsmanager"] };

/// The three steps, as a caller takes them.
fn verdict(request: &Request<'_>, expected: &Expected<'_>) -> Result<(), AuthError> {
    let presented = Presented::parse(request)?;
    let checked = presented.check(expected)?;
    if presented.access_key_id() != ACCESS_KEY {
        return Err(AuthError::UnrecognizedClient);
    }
    checked.verify(&checked.derive(&Secret::copy_of(SECRET.as_bytes())).unwrap())
}

fn refusal(request: &Owned) -> AuthError {
    verdict(&request.request(), &EXPECTED).unwrap_err()
}

#[track_caller]
fn refused_with(request: &Owned, code: &str, message: &str) {
    let error = refusal(request);
    assert_eq!((error.code(), error.to_string().as_str()), (code, message));
}

const MISMATCH: &str = "The request signature we calculated does not match the signature you \
    provided. Check your AWS Secret Access Key and signing method. Consult the service \
    documentation for details.";

#[track_caller]
fn altered(change: impl FnOnce(&mut Owned)) {
    let mut request = signed();
    verdict(&request.request(), &EXPECTED).expect("valid before the change");
    change(&mut request);
    refused_with(&request, "InvalidSignatureException", MISMATCH);
}

mod vectors {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Suite {
        secret: String,
        vectors: Vec<Vector>,
    }

    #[derive(serde::Deserialize)]
    struct Vector {
        name: String,
        why: String,
        now: i64,
        region: String,
        service: String,
        method: String,
        path: String,
        query: String,
        headers: Vec<(String, String)>,
        authority: Option<String>,
        body: String,
        canonical: Option<String>,
        expected: String,
    }

    fn run(text: &str) -> usize {
        let suite: Suite = serde_json::from_str(text).unwrap();
        for vector in &suite.vectors {
            check(&suite.secret, vector);
        }
        suite.vectors.len()
    }

    fn check(secret: &str, vector: &Vector) {
        let Vector { name, why, .. } = vector;
        let mut headers = HeaderMap::new();
        for (name, value) in &vector.headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let request = Request {
            method: &vector.method.parse().unwrap(),
            path: &vector.path,
            query: &vector.query,
            headers: &headers,
            authority: vector.authority.as_deref(),
            body: vector.body.as_bytes(),
        };
        let services = [vector.service.as_str()];
        let expected =
            Expected { now: Time(vector.now), region: &vector.region, services: &services };
        let presented = Presented::parse(&request).unwrap_or_else(|e| panic!("{name}: {e}"));
        if let Some(canonical) = &vector.canonical {
            let payload = verify::hex(
                aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, request.body).as_ref(),
            );
            let mut out = Vec::new();
            canonical::canonical_request(&presented, &payload, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), *canonical, "{name}: {why}");
        }
        let outcome = presented.check(&expected).and_then(|checked| {
            checked.verify(&checked.derive(&Secret::copy_of(secret.as_bytes())).unwrap())
        });
        let outcome = outcome.map_or_else(|error| error.code(), |()| "ok");
        assert_eq!(outcome, vector.expected, "{name}: {why}");
    }

    #[test]
    fn the_published_suite_of_aws_holds() {
        let count = run(include_str!("../../../tests/vectors/sigv4/aws-suite.json"));
        assert!(count >= 60, "only {count} vectors");
    }

    #[test]
    fn what_botocore_signs_is_accepted() {
        let count = run(include_str!("../../../tests/vectors/sigv4/botocore.json"));
        assert!(count >= 8, "only {count} vectors");
    }
}

mod accepted {
    use super::*;

    #[test]
    fn a_signed_request_and_its_claims() {
        let request = signed();
        let request = request.request();
        let presented = Presented::parse(&request).unwrap();
        assert_eq!(presented.access_key_id(), ACCESS_KEY);
        assert_eq!(presented.date(), "20260101");
        assert_eq!(presented.region(), REGION);
        assert_eq!(presented.service(), "secretsmanager");
        assert_eq!(presented.session_token(), None);
        assert_eq!(presented.signed_at(), NOW);
        assert!(!presented.is_presigned());
        assert_eq!(verdict(&request, &EXPECTED), Ok(()));
    }

    #[test]
    fn five_minutes_of_skew_both_ways_and_no_second_more() {
        let at = |milliseconds| {
            let expected = Expected { now: Time(NOW.0 + milliseconds), ..EXPECTED };
            verdict(&signed().request(), &expected)
        };
        assert_eq!(at(300_000), Ok(()));
        assert_eq!(at(-300_000), Ok(()));
        let late = at(600_000).unwrap_err();
        assert_eq!(late.code(), "InvalidSignatureException");
        assert_eq!(
            late.to_string(),
            "Signature expired: 20260101T000000Z is now earlier than 20260101T000500Z \
             (20260101T001000Z - 5 min.)"
        );
        let early = at(-301_000).unwrap_err();
        assert_eq!(early.code(), "InvalidSignatureException");
        assert_eq!(
            early.to_string(),
            "Signature not yet current: 20260101T000000Z is still later than 20251231T235959Z \
             (20251231T235459Z + 5 min.)"
        );
        assert!(at(301_000).is_err());
    }

    #[test]
    fn http2_signs_the_authority_as_host() {
        let mut request = unsigned();
        request.headers.remove("host");
        request.authority = Some("sm.example:8443".into());
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, USUAL_HEADERS);
        assert_eq!(verdict(&request.request(), &EXPECTED), Ok(()));
        request.authority = Some("sm.example:8444".into());
        assert_eq!(refusal(&request), AuthError::Mismatch);
    }

    #[test]
    fn blanks_in_headers_fold_and_repeated_headers_join() {
        let mut request = unsigned();
        request.set("my-header", "a b c");
        request.headers.append("my-header", HeaderValue::from_static("d"));
        let names = "content-type;host;my-header;x-amz-date;x-amz-target";
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, names);
        request.set("my-header", "  a   b\t c ");
        request.headers.append("my-header", HeaderValue::from_static("d"));
        assert_eq!(verdict(&request.request(), &EXPECTED), Ok(()));
        request.set("my-header", "d");
        request.headers.append("my-header", HeaderValue::from_static("a b c"));
        assert_eq!(refusal(&request), AuthError::Mismatch);
    }

    #[test]
    fn the_date_header_serves_where_there_is_no_amz_date() {
        let mut request = unsigned();
        request.set("date", "Thu, 01 Jan 2026 00:00:00 GMT");
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, "date;host;x-amz-target");
        request.headers.remove("x-amz-date");
        assert_eq!(verdict(&request.request(), &EXPECTED), Ok(()));
        request.set("date", "Thu, 01 Jan 2026 00:00:01 GMT");
        assert_eq!(refusal(&request), AuthError::Mismatch);
    }

    #[test]
    fn a_session_token_may_be_signed_or_added_afterwards() {
        let mut request = unsigned();
        request.set("x-amz-security-token", "token");
        let names = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target";
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, names);
        assert_eq!(verdict(&request.request(), &EXPECTED), Ok(()));
        let received = request.request();
        assert_eq!(Presented::parse(&received).unwrap().session_token(), Some("token"));
        request.set("x-amz-security-token", "another");
        assert_eq!(refusal(&request), AuthError::Mismatch);
        let mut request = signed();
        request.set("x-amz-security-token", "token");
        assert_eq!(verdict(&request.request(), &EXPECTED), Ok(()));
    }

    #[test]
    fn a_presigned_url_lives_as_long_as_it_says() {
        let request = presigned("/v1/secrets", "3600", "");
        let at = |seconds: i64| {
            verdict(&request.request(), &Expected { now: Time(NOW.0 + seconds * 1000), ..EXPECTED })
        };
        assert_eq!(at(0), Ok(()));
        assert_eq!(at(3600), Ok(()));
        let late = at(3601).unwrap_err();
        assert_eq!(
            late.to_string(),
            "Signature expired: 20260101T000000Z is now earlier than 20260101T000001Z \
             (20260101T010001Z - 60 min.)"
        );
        assert!(matches!(at(-301), Err(AuthError::NotYetCurrent { .. })));
    }
}

mod altered {
    use super::*;

    #[test]
    fn body() {
        altered(|request| request.body[3] ^= 1);
        altered(|request| request.body.push(b' '));
        altered(|request| request.body.clear());
    }

    #[test]
    fn method_path_and_query() {
        altered(|request| request.method = Method::PUT);
        altered(|request| request.path = "/v1".into());
        altered(|request| request.query = "a".into());
    }

    #[test]
    fn headers() {
        altered(|request| request.set("x-amz-target", "secretsmanager.DeleteSecret"));
        altered(|request| request.set("host", "127.0.0.1:8444"));
        altered(|request| request.set("x-amz-date", "20260101T000001Z"));
        altered(|request| {
            request.headers.append("x-amz-target", HeaderValue::from_static("x"));
        });
        altered(|request| {
            request.headers.remove("content-type");
        });
        altered(|request| request.authority = Some("evil.example".into()));
    }

    #[test]
    fn signature_by_one_bit() {
        let text = signed().headers["authorization"].to_str().unwrap().to_owned();
        let start = text.find("Signature=").unwrap() + "Signature=".len();
        for at in start..text.len() {
            altered(|request| {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1;
                request.set("authorization", std::str::from_utf8(&bytes).unwrap());
            });
        }
        let (rest, digits) = text.split_at(start);
        let capitals = format!("{rest}{}", digits.to_uppercase());
        altered(|request| request.set("authorization", &capitals));
        altered(|request| {
            request.set("authorization", text.strip_suffix(char::is_alphanumeric).unwrap())
        });
    }

    #[test]
    fn the_secret() {
        let request = signed();
        let request = request.request();
        let presented = Presented::parse(&request).unwrap();
        let checked = presented.check(&EXPECTED).unwrap();
        let key = checked.derive(&Secret::copy_of(b"another")).unwrap();
        assert_eq!(checked.verify(&key), Err(AuthError::Mismatch));
    }
}

mod refused {
    use super::*;

    const INCOMPLETE: &str = "IncompleteSignatureException";
    const INVALID: &str = "InvalidSignatureException";
    /// base64(SHA-256("Bearer abc")), computed with OpenSSL's command.
    const BEARER: &str = "w1Xc6WwWEogNEZQP/dkBTThsJT4MNlKmzQanIm970rY=";

    #[test]
    fn no_signature_at_all() {
        let code = "MissingAuthenticationTokenException";
        refused_with(&unsigned(), code, "Missing Authentication Token");
    }

    #[test]
    fn both_forms_at_once() {
        let mut request = presigned("/", "60", "");
        request.headers.extend(signed().headers);
        refused_with(
            &request,
            INVALID,
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP \
             header.",
        );
    }

    #[test]
    fn a_bearer_token_without_repeating_it() {
        let mut request = unsigned();
        request.set("authorization", "Bearer abc");
        let message = format!(
            "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with \
             SHA-256 and encoded with Base64): '{BEARER}'."
        );
        refused_with(&request, INCOMPLETE, &message);
    }

    #[test]
    fn parameters_that_are_missing() {
        let mut request = signed();
        request.headers.remove("x-amz-date");
        request.set("authorization", "AWS4-HMAC-SHA256 Signature=00");
        let error = refusal(&request);
        assert_eq!(error.code(), INCOMPLETE);
        let start = "Authorization header requires 'Credential' parameter. Authorization header \
                     requires 'SignedHeaders' parameter. Authorization header requires existence \
                     of either a 'X-Amz-Date' or a 'Date' header. (Hashed with SHA-256 and encoded \
                     with Base64) Authorization=";
        assert!(error.to_string().starts_with(start), "{error}");
        let mut request = presigned("/", "60", "");
        request.query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260101T000000Z".into();
        refused_with(
            &request,
            INCOMPLETE,
            "AWS query-string parameters must include 'X-Amz-Credential'. AWS query-string \
             parameters must include 'X-Amz-Signature'. AWS query-string parameters must include \
             'X-Amz-SignedHeaders'. Re-examine the query-string parameters.",
        );
    }

    #[test]
    fn dates_that_are_none() {
        for date in ["2026", "20261301T000000Z", "20260101T000000", "20260101T000000z", "é"] {
            let mut request = signed();
            let value = HeaderValue::from_bytes(date.as_bytes()).unwrap();
            request.headers.insert("x-amz-date", value);
            let message = format!(
                "Date must be in ISO-8601 'basic format'. Got '{date}'. See \
                 http://en.wikipedia.org/wiki/ISO_8601"
            );
            refused_with(&request, INCOMPLETE, &message);
        }
    }

    #[test]
    fn other_algorithms_and_malformed_credentials() {
        let mut request = signed();
        let text = request.headers["authorization"].to_str().unwrap().to_owned();
        request.set("authorization", &text.replace("SHA256", "SHA512"));
        let message = "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA512'.";
        refused_with(&request, INCOMPLETE, message);
        request.set("authorization", &text.replace(ACCESS_KEY, "a/b"));
        refused_with(
            &request,
            INCOMPLETE,
            "Credential must have exactly 5 slash-delimited elements, e.g. \
             keyid/date/region/service/term, got \
             'a/b/20260101/eu-central-1/secretsmanager/aws4_request'",
        );
    }

    #[test]
    fn another_scope() {
        let with = |change: fn(&mut Scope)| {
            let (mut request, mut scope) = (unsigned(), Scope::usual());
            change(&mut scope);
            sign_as(&mut request, &scope, TIMESTAMP, USUAL_HEADERS);
            request
        };
        refused_with(
            &with(|scope| scope.region = "us-east-1".into()),
            INVALID,
            "Credential should be scoped to a valid region. ",
        );
        refused_with(
            &with(|scope| scope.service = "kms".into()),
            INVALID,
            "Credential should be scoped to correct service: 'secretsmanager'. ",
        );
        refused_with(
            &with(|scope| scope.terminator = "aws5_request".into()),
            INVALID,
            "Credential should be scoped with a valid terminator: 'aws4_request', not \
             'aws5_request'. ",
        );
        refused_with(
            &with(|scope| scope.date = "20251231".into()),
            INVALID,
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
             HTTP: '20251231' != '20260101', from '20260101T000000Z'. ",
        );
    }

    #[test]
    fn headers_that_should_have_been_signed() {
        let mut request = unsigned();
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, "x-amz-date;x-amz-target");
        let message = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.";
        refused_with(&request, INVALID, message);
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, "host;x-amz-date");
        let message = "'x-amz-target' must be a 'SignedHeader' in the AWS Authorization.";
        refused_with(&request, INVALID, message);
    }

    #[test]
    fn an_absent_signed_header_does_not_stand_in_for_an_unsigned_one() {
        let mut request = unsigned();
        let names = "host;x-amz-absent;x-amz-date";
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, names);
        refused_with(&request, INVALID, MISMATCH);
    }

    #[test]
    fn signed_headers_out_of_order_repeated_or_in_capitals() {
        for names in [
            "host;content-type;x-amz-date;x-amz-target",
            "content-type;host;host;x-amz-date;x-amz-target",
            "content-type;Host;host;x-amz-date;x-amz-target",
        ] {
            let mut request = unsigned();
            sign_as(&mut request, &Scope::usual(), TIMESTAMP, names);
            assert_eq!(refusal(&request), AuthError::Mismatch, "{names}");
        }
    }

    #[test]
    fn a_payload_that_is_not_signed() {
        for hash in ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", &"0".repeat(64)] {
            let mut request = unsigned();
            request.set("x-amz-content-sha256", hash);
            let names = "content-type;host;x-amz-content-sha256;x-amz-date;x-amz-target";
            sign_as(&mut request, &Scope::usual(), TIMESTAMP, names);
            assert_eq!(refusal(&request), AuthError::Mismatch, "{hash}");
        }
    }

    #[test]
    fn expiry_that_is_no_time_or_too_long() {
        for (expires, message) in [
            ("1h", "X-Amz-Expires should be a number"),
            ("", "X-Amz-Expires should be a number"),
            ("-1", "X-Amz-Expires must be non-negative"),
            (
                "604801",
                "X-Amz-Expires must be less than a week (in seconds); that is, the given \
                 X-Amz-Expires must be less than 604800 seconds",
            ),
        ] {
            refused_with(&presigned("/", expires, ""), INCOMPLETE, message);
        }
        assert_eq!(verdict(&presigned("/", "604800", "").request(), &EXPECTED), Ok(()));
    }

    #[test]
    fn what_is_stated_twice() {
        let mut request = signed();
        let text = request.headers["authorization"].to_str().unwrap().to_owned();
        request.set("authorization", &format!("{text}, Signature=00"));
        assert_eq!(refusal(&request), AuthError::Repeated("Signature"));
        let mut request = signed();
        request.headers.append("authorization", HeaderValue::from_str(&text).unwrap());
        assert_eq!(refusal(&request), AuthError::Repeated("Authorization"));
        let request = presigned("/", "60", "&X-Amz-Date=20260101T000000Z");
        assert_eq!(refusal(&request), AuthError::Repeated("X-Amz-Date"));
        let mut request = signed();
        request.headers.append("host", HeaderValue::from_static("127.0.0.1:8443"));
        assert_eq!(refusal(&request), AuthError::Repeated("Host"));
    }

    #[test]
    fn whatever_is_beyond_a_limit() {
        let too_large = |request: &Owned| matches!(refusal(request), AuthError::TooLarge { .. });
        let mut request = signed();
        request.set("authorization", &"a".repeat(MAX_AUTHORIZATION + 1));
        assert!(too_large(&request));
        let mut request = signed();
        request.query = "a".repeat(MAX_QUERY + 1);
        assert!(too_large(&request));
        request.query = "a&".repeat(MAX_PARAMETERS + 1);
        assert!(too_large(&request));
        let mut request = signed();
        request.path = "/".repeat(MAX_PATH + 1);
        assert!(too_large(&request));
        let mut request = unsigned();
        let names: Vec<_> = (0..=MAX_SIGNED_HEADERS).map(|n| format!("h{n:03}")).collect();
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, &names.join(";"));
        assert!(too_large(&request));
        let mut request = unsigned();
        request.set("a", &"a".repeat(MAX_CANONICAL));
        sign_as(&mut request, &Scope::usual(), TIMESTAMP, "a;host;x-amz-date;x-amz-target");
        assert!(too_large(&request));
    }

    #[test]
    fn broken_percent_escapes() {
        for query in ["a=%", "a=%4", "a=%zz", "%e"] {
            altered(|request| request.query = query.into());
        }
    }

    #[test]
    fn tokens_have_the_texts_that_aws_gives_them() {
        assert_eq!(AuthError::UnrecognizedClient.code(), "UnrecognizedClientException");
        assert_eq!(
            AuthError::UnrecognizedClient.to_string(),
            "The security token included in the request is invalid."
        );
        assert_eq!(AuthError::ExpiredToken.code(), "ExpiredTokenException");
        assert_eq!(
            AuthError::ExpiredToken.to_string(),
            "The security token included in the request is expired"
        );
    }
}

mod cache {
    use super::*;

    #[test]
    fn a_key_is_derived_once_for_each_revision_and_scope() {
        let keys = SigningKeys::new(16);
        let request = signed();
        let request = request.request();
        let presented = Presented::parse(&request).unwrap();
        let checked = presented.check(&EXPECTED).unwrap();
        let secret = || Ok::<_, DerivationFailed>(Secret::copy_of(SECRET.as_bytes()));
        let first = keys.signing_key(&checked, 1, secret).unwrap();
        let again = keys.signing_key(&checked, 1, || Err(DerivationFailed)).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(checked.verify(&again), Ok(()));
        assert!(keys.signing_key(&checked, 2, || Err(DerivationFailed)).is_err());
        keys.clear();
        assert!(keys.signing_key(&checked, 1, || Err(DerivationFailed)).is_err());
    }
}

mod properties {
    use super::*;

    fn arbitrary_query() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("X-Amz-Algorithm=AWS4-HMAC-SHA256".to_owned()),
            Just("X-Amz-Credential=a%2Fb%2Fc%2Fd%2Fe".to_owned()),
            Just("X-Amz-Signature=00".to_owned()),
            Just("X-Amz-SignedHeaders=host".to_owned()),
            Just("X-Amz-Date=20260101T000000Z".to_owned()),
            "X-Amz-[A-Za-z]{0,9}=.{0,20}",
            "[-+%&=a-f0-9é]{0,12}",
        ];
        proptest::collection::vec(piece, 0..9).prop_map(|pieces| pieces.join("&"))
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(
            path in ".{0,40}",
            query in arbitrary_query(),
            authorization in proptest::option::of(
                "(AWS4-HMAC-SHA256 )?((Credential|SignedHeaders|Signature)?=?[ -~]{0,20},? ?){0,5}"
            ),
            date in "[ -~]{0,20}",
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut request = Owned { path, query, body, ..signed() };
            request.set("x-amz-date", &date);
            if let Some(authorization) = authorization {
                request.set("authorization", &authorization);
            }
            prop_assert!(verdict(&request.request(), &EXPECTED).is_err());
        }

        /// Everything that the signature covers: no byte of it can be another one.
        #[test]
        fn a_single_changed_byte_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..7) {
            let mut request = signed();
            let covered = ["content-type", "host", "x-amz-date", "x-amz-target", "authorization"];
            let lengths: Vec<usize> = covered.iter().map(|n| request.headers[*n].len()).collect();
            let total = lengths.iter().sum::<usize>() + request.body.len();
            let mut at = at.index(total);
            if at < request.body.len() {
                request.body[at] ^= 1 << bit;
            } else {
                at -= request.body.len();
                for (name, length) in covered.iter().zip(lengths) {
                    if at < length {
                        let mut value = request.headers[*name].as_bytes().to_vec();
                        let old = value[at];
                        value[at] ^= 1 << bit;
                        // Between parameters a comma and a space mean the same.
                        prop_assume!(!(*name == "authorization" && matches!(old, b',' | b' ')));
                        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
                        request.headers.insert(*name, value);
                        break;
                    }
                    at -= length;
                }
            }
            prop_assert!(verdict(&request.request(), &EXPECTED).is_err());
        }

        /// In a URL only the case of an escape's digits may change: it stands for the same byte.
        #[test]
        fn a_single_changed_byte_of_a_url_is_refused(
            at in any::<prop::sample::Index>(),
            bit in 0_u8..7,
        ) {
            let original = presigned("/v1/secrets", "60", "&a=b%20c&d=e");
            prop_assert_eq!(verdict(&original.request(), &EXPECTED), Ok(()));
            let mut request = original.clone();
            let mut bytes = format!("{}?{}", request.path, request.query).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let Ok(url) = String::from_utf8(bytes) else { return Ok(()) };
            let (path, query) = url.split_once('?').unwrap_or((&url, ""));
            prop_assume!(
                path != original.path || query.replace("%2f", "%2F") != original.query
            );
            (request.path, request.query) = (path.to_owned(), query.to_owned());
            prop_assert!(verdict(&request.request(), &EXPECTED).is_err());
        }
    }
}
