use super::issuer::{Answer, Key, Server, encode};
use super::*;
use crate::clock::Time;
use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const URL: &str = "https://issuer.example";
const ACCOUNT: &str = "111122223333";
const AUDIENCE: &str = "sts.amazonaws.com";
/// 2026-01-01T00:00:00Z.
const NOW: Time = Time(1_767_225_600_000);

fn written(jwks: &str) -> Options {
    Options {
        url: URL.into(),
        audiences: vec!["other".into(), AUDIENCE.into()],
        jwks: jwks.into(),
        ca: None,
        accounts: Vec::new(),
    }
}

fn issuers(jwks: &str) -> Issuers {
    Issuers::new(Options::check_all(vec![written(jwks)]).unwrap())
}

fn claims() -> Value {
    json!({
        "iss": URL, "sub": "system:serviceaccount:prod:web", "aud": [AUDIENCE],
        "exp": NOW.seconds() + 3600, "iat": NOW.seconds(), "nbf": NOW.seconds(),
    })
}

fn header(key: &Key, kid: &str) -> Value {
    json!({"alg": key.algorithm(), "kid": kid, "typ": "JWT"})
}

fn after(milliseconds: i64) -> Time {
    Time(NOW.0 + milliseconds)
}

/// An issuer with one key in a file.
struct Filed {
    _dir: tempfile::TempDir,
    path: PathBuf,
    issuers: Issuers,
    key: Key,
}

impl Filed {
    fn new(key: Key) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        let filed = Self { issuers: issuers(path.to_str().unwrap()), _dir: dir, path, key };
        filed.publish(&[filed.key.jwk("k")]);
        filed
    }

    fn publish(&self, keys: &[Value]) {
        fs::write(&self.path, json!({"keys": keys}).to_string()).unwrap();
    }

    async fn verify(&self, token: &str) -> Result<Claims, Error> {
        self.issuers.verify(token, ACCOUNT, NOW).await
    }

    /// The verdict about usual claims with these in addition or instead; null takes one away.
    async fn claiming(&self, changes: Value) -> Result<Claims, Error> {
        let mut claims = claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.verify(&self.key.token(&header(&self.key, "k"), &claims)).await
    }
}

mod verdicts {
    use super::*;

    #[tokio::test]
    async fn every_type_of_key_proves_its_tokens() {
        for key in [Key::rsa(), Key::p256(), Key::p384(), Key::ed()] {
            let filed = Filed::new(key);
            let claims = filed.claiming(json!({})).await.unwrap();
            assert_eq!(claims.issuer, URL);
            assert_eq!(claims.subject, "system:serviceaccount:prod:web");
            assert_eq!(claims.audience, AUDIENCE);
            assert_eq!(claims.expires, after(3_600_000));
        }
    }

    #[tokio::test]
    async fn all_that_aws_reads_of_a_token_is_read() {
        let filed = Filed::new(Key::p256());
        let claims = filed.claiming(json!({
            "aud": "one", "azp": "other", "amr": ["pwd", "mfa"],
            "https://aws.amazon.com/source_identity": "jane",
            "https://aws.amazon.com/tags": {
                "principal_tags": {"Project": ["red"], "Team": "ops"},
                "transitive_tag_keys": ["Team"],
            },
        }));
        let tag = |key: &str, value: &str, transitive| Tag {
            key: key.into(),
            value: value.into(),
            transitive,
        };
        let expected = Claims {
            issuer: URL.into(),
            subject: "system:serviceaccount:prod:web".into(),
            audiences: vec!["one".into()],
            audience: "other".into(),
            authorized_party: Some("other".into()),
            methods: vec!["pwd".into(), "mfa".into()],
            expires: after(3_600_000),
            tags: vec![tag("Project", "red", false), tag("Team", "ops", true)],
            source_identity: Some("jane".into()),
        };
        assert_eq!(claims.await.unwrap(), expected);
    }

    #[tokio::test]
    async fn an_issuer_that_can_not_nest_claims_sets_tags_too() {
        let filed = Filed::new(Key::p256());
        let flat = json!({
            "https://aws.amazon.com/tags/principal_tags/Project": "red",
            "https://aws.amazon.com/tags/principal_tags/Team": ["ops"],
            "https://aws.amazon.com/tags/transitive_tag_keys": "Team",
        });
        let tags = filed.claiming(flat.clone()).await.unwrap().tags;
        let seen: Vec<_> =
            tags.iter().map(|t| (t.key.as_str(), t.value.as_str(), t.transitive)).collect();
        assert_eq!(seen, [("Project", "red", false), ("Team", "ops", true)]);
        let mut both = flat;
        both["https://aws.amazon.com/tags"] = json!({"principal_tags": {"Team": "dev"}});
        let refused = Err(Error::Malformed("https://aws.amazon.com/tags"));
        assert_eq!(filed.claiming(both).await, refused);
        let number = json!({"https://aws.amazon.com/tags/principal_tags/Project": 1});
        assert_eq!(filed.claiming(number).await, refused);
    }

    #[tokio::test]
    async fn an_audience_of_ours_is_needed_and_the_authorized_party_comes_first() {
        let filed = Filed::new(Key::p256());
        assert_eq!(filed.claiming(json!({"aud": "unknown"})).await, Err(Error::Audience));
        assert_eq!(filed.claiming(json!({"aud": []})).await, Err(Error::Audience));
        assert_eq!(filed.claiming(json!({"aud": null})).await, Err(Error::Missing("aud")));
        assert_eq!(filed.claiming(json!({"azp": "unknown"})).await, Err(Error::Audience));
        let many = filed.claiming(json!({"aud": ["unknown", AUDIENCE, "other"]})).await;
        assert_eq!(many.unwrap().audience, AUDIENCE);
        assert_eq!(Error::Audience.to_string(), "Incorrect token audience");
    }

    #[tokio::test]
    async fn time_counts_with_a_minutes_leeway_for_what_lies_ahead() {
        let filed = Filed::new(Key::p256());
        let now = NOW.seconds();
        for exp in [now, now - 1, 0] {
            let expired = filed.claiming(json!({"exp": exp})).await;
            assert_eq!(expired, Err(Error::Expired { now: NOW, expires: exp }));
        }
        assert!(filed.claiming(json!({"exp": now + 1})).await.is_ok());
        assert!(filed.claiming(json!({"exp": f64::from(2_000_000_000) + 0.5})).await.is_ok());
        assert_eq!(filed.claiming(json!({"exp": null})).await, Err(Error::Missing("exp")));
        for exp in [json!(-1), json!(1e300), json!(u64::MAX)] {
            let outcome = filed.claiming(json!({"exp": exp})).await;
            assert_eq!(outcome, Err(Error::Malformed("exp")));
        }
        assert_eq!(filed.claiming(json!({"exp": "9999999999"})).await, Err(Error::NotAJwt));
        assert!(filed.claiming(json!({"nbf": now + 60, "iat": now + 60})).await.is_ok());
        let early = filed.claiming(json!({"nbf": now + 61})).await;
        assert_eq!(early, Err(Error::NotYetValid(now + 61)));
        let future = filed.claiming(json!({"iat": now + 61})).await;
        assert_eq!(future, Err(Error::IssuedInFuture(now + 61)));
    }

    #[tokio::test]
    async fn claims_that_must_be_there_are_missed() {
        let filed = Filed::new(Key::p256());
        for claim in ["sub", "iss"] {
            let refused = filed.claiming(json!({claim: null})).await.unwrap_err();
            assert_eq!(refused, Error::Missing(claim));
            assert_eq!(refused.to_string(), format!("Missing a required claim: {claim}"));
        }
        assert_eq!(filed.claiming(json!({"sub": ""})).await, Err(Error::Missing("sub")));
        let tags = json!({"https://aws.amazon.com/tags": {"principal_tags": {"a": ["b", "c"]}}});
        let refused = filed.claiming(tags).await;
        assert_eq!(refused, Err(Error::Malformed("https://aws.amazon.com/tags")));
    }

    #[tokio::test]
    async fn an_issuer_must_be_trusted_letter_by_letter_and_by_the_account() {
        let filed = Filed::new(Key::p256());
        for issuer in ["https://issuer.example/", "http://issuer.example", "https://ISSUER.example"]
        {
            let refused = filed.claiming(json!({"iss": issuer})).await.unwrap_err();
            assert_eq!(refused, Error::UnknownIssuer(issuer.into()));
            let text = format!("No OpenIDConnect provider found in your account for {issuer}");
            assert_eq!(refused.to_string(), text);
        }
        let mut options = written(filed.path.to_str().unwrap());
        options.accounts = vec![ACCOUNT.into()];
        let issuers = Issuers::new(Options::check_all(vec![options]).unwrap());
        let token = filed.key.token(&header(&filed.key, "k"), &claims());
        assert!(issuers.verify(&token, ACCOUNT, NOW).await.is_ok());
        let foreign = issuers.verify(&token, "999999999999", NOW).await;
        assert_eq!(foreign, Err(Error::UnknownIssuer(URL.into())));
        let long = ["https://", &"x".repeat(10_000)].concat();
        let token = filed.key.token(&header(&filed.key, "k"), &json!({"iss": long}));
        let Err(Error::UnknownIssuer(shown)) = issuers.verify(&token, ACCOUNT, NOW).await else {
            panic!("refused")
        };
        assert_eq!(shown.len(), 255);
    }
}

mod signatures {
    use super::*;

    #[tokio::test]
    async fn an_algorithm_without_a_private_key_is_refused() {
        let filed = Filed::new(Key::p256());
        for algorithm in ["none", "None", "HS256", "HS512", "ES256K", "ES512", "RS1", "es256", ""] {
            let header = json!({"alg": algorithm, "kid": "k"});
            let refused = filed.verify(&filed.key.token(&header, &claims())).await;
            assert_eq!(refused, Err(Error::Algorithm(algorithm.into())));
        }
        let header = encode(json!({"alg": "none"}).to_string());
        let unsigned = format!("{header}.{}.", encode(claims().to_string()));
        assert_eq!(filed.verify(&unsigned).await, Err(Error::Algorithm("none".into())));
    }

    #[tokio::test]
    async fn the_algorithm_must_be_one_of_the_keys_type() {
        let filed = Filed::new(Key::p256());
        let rsa = Key::rsa();
        filed.publish(&[filed.key.jwk("ec"), rsa.jwk("rsa"), Key::ed().jwk("ed")]);
        for (kid, algorithm) in
            [("ec", "RS256"), ("ec", "EdDSA"), ("ec", "ES384"), ("rsa", "ES256"), ("ed", "PS256")]
        {
            let header = json!({"alg": algorithm, "kid": kid});
            let refused = filed.verify(&filed.key.token(&header, &claims())).await;
            assert_eq!(refused, Err(Error::KeyMismatch), "{kid} {algorithm}");
        }
        // Published for RS256 alone.
        let header = json!({"alg": "RS512", "kid": "rsa"});
        assert_eq!(filed.verify(&rsa.token(&header, &claims())).await, Err(Error::KeyMismatch));
    }

    #[tokio::test]
    async fn whoever_alters_a_token_breaks_its_signature() {
        for key in [Key::rsa(), Key::p256(), Key::p384(), Key::ed()] {
            let filed = Filed::new(key);
            let token = filed.key.token(&header(&filed.key, "k"), &claims());
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let (head, _) = signed.split_once('.').unwrap();
            let mut other = claims();
            other["sub"] = json!("system:serviceaccount:prod:admin");
            let forged = format!("{head}.{}.{signature}", encode(other.to_string()));
            assert_eq!(filed.verify(&forged).await, Err(Error::Signature));
            for signature in ["", "AAAA", &encode([0; 64]), &encode([0; 256])] {
                let forged = format!("{signed}.{signature}");
                assert_eq!(filed.verify(&forged).await, Err(Error::Signature));
            }
        }
    }

    #[tokio::test]
    async fn another_key_under_the_same_id_proves_nothing() {
        let filed = Filed::new(Key::p256());
        let stranger = Key::p256();
        let token = stranger.token(&header(&stranger, "k"), &claims());
        assert_eq!(filed.verify(&token).await, Err(Error::Signature));
        // Nor does a key that the token brings along.
        let mut header = header(&stranger, "k");
        header["jwk"] = stranger.jwk("k");
        let token = stranger.token(&header, &claims());
        assert_eq!(filed.verify(&token).await, Err(Error::Signature));
    }

    #[tokio::test]
    async fn a_key_of_an_unknown_id_or_of_none_is_looked_for() {
        let filed = Filed::new(Key::p256());
        let token = filed.key.token(&header(&filed.key, "other"), &claims());
        let refused = filed.verify(&token).await.unwrap_err();
        assert_eq!(refused, Error::UnknownKey);
        assert!(refused.to_string().starts_with("Couldn't retrieve verification key"));
        let unnamed = filed.key.token(&json!({"alg": "ES256"}), &claims());
        assert!(filed.verify(&unnamed).await.is_ok());
        filed.publish(&[filed.key.jwk("k"), Key::p256().jwk("l"), Key::rsa().jwk("m")]);
        assert_eq!(filed.verify(&unnamed).await, Err(Error::UnknownKey));
    }

    #[tokio::test]
    async fn keys_that_can_not_be_used_say_why() {
        let filed = Filed::new(Key::p256());
        let mut encrypting = filed.key.jwk("enc");
        encrypting["use"] = json!("enc");
        let mut signing = filed.key.jwk("ops");
        signing["key_ops"] = json!(["sign"]);
        let weak = json!({"kty": "RSA", "kid": "weak", "n": encode([0xff; 255]), "e": "AQAB"});
        let padded = json!({"kty": "RSA", "kid": "padded", "n": encode([&[0; 8][..], &[0xff; 255]].concat()), "e": "AQAB"});
        let large = json!({"kty": "RSA", "kid": "large", "n": encode([0xff; 1025]), "e": "AQAB"});
        let broken = json!({"kty": "RSA", "kid": "broken", "n": "?", "e": "AQAB"});
        let short = json!({"kty": "EC", "kid": "short", "crv": "P-256", "x": "AA", "y": "AA"});
        let secret = json!({"kty": "oct", "kid": "secret", "k": "AAAA"});
        let off = json!({"kty": "EC", "kid": "off", "crv": "P-256", "x": encode([1; 32]), "y": encode([1; 32])});
        filed.publish(&[
            encrypting,
            signing,
            weak,
            padded,
            large,
            broken,
            short,
            secret,
            off,
            json!({"kid": "no type"}),
            json!("no key"),
        ]);
        let with = async |kid: &str| {
            let algorithm = if ["weak", "padded", "large", "broken"].contains(&kid) {
                "RS256"
            } else {
                "ES256"
            };
            let header = json!({"alg": algorithm, "kid": kid});
            filed.verify(&filed.key.token(&header, &claims())).await.unwrap_err()
        };
        assert_eq!(with("enc").await, Error::KeyMismatch);
        assert_eq!(with("ops").await, Error::KeyMismatch);
        let weak = Error::UnusableKey("an RSA key must have 2048 bits at least");
        assert_eq!((with("weak").await, with("padded").await), (weak.clone(), weak));
        assert_eq!(
            with("large").await,
            Error::UnusableKey("an RSA key must have 8192 bits at most")
        );
        assert!(matches!(with("broken").await, Error::UnusableKey(_)));
        assert!(matches!(with("short").await, Error::UnusableKey(_)));
        assert!(matches!(with("secret").await, Error::UnusableKey(_)));
        assert_eq!(with("off").await, Error::Signature);
        assert_eq!(with("no type").await, Error::UnknownKey);
    }

    #[tokio::test]
    async fn tokens_that_openssl_signed() {
        #[derive(serde::Deserialize)]
        struct Suite {
            now: i64,
            jwks: Value,
            tokens: Vec<Signed>,
        }
        #[derive(serde::Deserialize)]
        struct Signed {
            name: String,
            token: String,
        }
        let text = include_str!("../../../tests/vectors/oidc/openssl.json");
        let suite: Suite = serde_json::from_str(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        fs::write(&path, suite.jwks.to_string()).unwrap();
        let issuers = issuers(path.to_str().unwrap());
        for Signed { name, token } in &suite.tokens {
            let claims = issuers.verify(token, ACCOUNT, Time(suite.now)).await;
            let claims = claims.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(claims.subject, "system:serviceaccount:prod:web");
        }
        assert_eq!(suite.tokens.len(), 9);
    }
}

mod forms {
    use super::*;

    fn parsed(token: &str) -> Result<String, Error> {
        Token::parse(token).map(|token| token.issuer().to_owned())
    }

    #[test]
    fn aws_limits_hold() {
        assert_eq!(parsed("a.b"), Err(Error::Size(3)));
        assert_eq!(parsed(&"a".repeat(20_001)), Err(Error::Size(20_001)));
        assert_eq!(parsed(&"a".repeat(20_000)), Err(Error::NotAJwt));
    }

    #[test]
    fn what_is_no_token_is_refused_as_such() {
        let key = Key::ed();
        let good = key.token(&header(&key, "k"), &claims());
        assert_eq!(parsed(&good).as_deref(), Ok(URL));
        let (head, rest) = good.split_once('.').unwrap();
        for token in [
            "....".to_owned(),
            "abcd".to_owned(),
            format!("{head}=.{rest}"),
            format!("{head}.{rest}.{rest}"),
            format!("{head}.{rest}="),
            format!("{head}.{}.AAAA", encode("[]")),
            format!("{head}.{}.AAAA", encode("{")),
            format!("{head}.{}.AAAA", encode(r#"{"iss": "a", "iss": "b"}"#)),
            format!("{head}.{}.AAAA", encode(r#"{"iss": 1}"#)),
            format!("{head}.{}.AAAA", encode([0xff, 0xfe])),
            format!("{}.{rest}", encode(r#"["RS256", "k", null]"#)),
            format!("{}.{rest}", encode(r#"{"alg": "RS256", "alg": "none"}"#)),
            format!("{}.{rest}", encode("{}")),
            format!("{head}.{}.AAAA", encode("[".repeat(5000))),
        ] {
            assert_eq!(parsed(&token), Err(Error::NotAJwt), "{token}");
        }
    }

    #[test]
    fn critical_extensions_are_refused_whatever_they_are() {
        let key = Key::ed();
        for crit in [json!(["exp"]), json!([]), json!("x")] {
            let header = json!({"alg": "EdDSA", "kid": "k", "crit": crit});
            assert_eq!(parsed(&key.token(&header, &claims())), Err(Error::Critical));
        }
    }

    #[test]
    fn a_long_algorithm_is_not_repeated_in_full() {
        let key = Key::ed();
        let header = json!({"alg": "ü".repeat(500)});
        let refused = parsed(&key.token(&header, &claims()));
        assert_eq!(refused, Err(Error::Algorithm("ü".repeat(255))));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,300}", head in "\\PC{0,60}", claims in "\\PC{0,200}") {
            drop(parsed(&text));
            drop(parsed(&format!("{}.{}.AAAA", encode(&head), encode(&claims))));
            let header = encode(r#"{"alg": "RS256"}"#);
            drop(parsed(&format!("{header}.{}.AAAA", encode(&claims))));
            prop_assert!(keys::KeySet::parse(text.as_bytes()).is_err());
        }
    }

    #[test]
    fn errors_have_the_codes_that_sts_gives_them() {
        let now = NOW;
        for (error, code, status) in [
            (Error::NotAJwt, "InvalidIdentityToken", 400),
            (Error::Audience, "InvalidIdentityToken", 400),
            (Error::Expired { now, expires: 1 }, "ExpiredTokenException", 400),
            (Error::NotYetValid(1), "IDPRejectedClaim", 403),
            (Error::Unreachable, "IDPCommunicationError", 400),
            (Error::Size(1), "ValidationError", 400),
        ] {
            assert_eq!((error.code().as_str(), error.code().status()), (code, status));
        }
        let text = "Token expired: current date/time 1767225600 must be before the expiration \
                    date/time 1";
        assert_eq!(Error::Expired { now, expires: 1 }.to_string(), text);
    }
}

mod files {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_counts_at_once() {
        let filed = Filed::new(Key::p256());
        assert!(filed.claiming(json!({})).await.is_ok());
        let next = Key::ed();
        let token = next.token(&header(&next, "next"), &claims());
        assert_eq!(filed.verify(&token).await, Err(Error::UnknownKey));
        filed.publish(&[next.jwk("next")]);
        assert!(filed.verify(&token).await.is_ok());
        assert_eq!(filed.claiming(json!({})).await, Err(Error::UnknownKey));
    }

    #[tokio::test]
    async fn a_broken_or_missing_file_keeps_the_old_keys_for_a_day() {
        let filed = Filed::new(Key::p256());
        let token = {
            let mut claims = claims();
            claims["exp"] = json!(NOW.seconds() + 1_000_000);
            filed.key.token(&header(&filed.key, "k"), &claims)
        };
        let at = async |ms: i64| filed.issuers.verify(&token, ACCOUNT, after(ms)).await.map(drop);
        assert_eq!(at(0).await, Ok(()));
        fs::write(&filed.path, "broken").unwrap();
        assert_eq!(at(1000).await, Ok(()));
        fs::remove_file(&filed.path).unwrap();
        assert_eq!(at(source::KEPT - 1).await, Ok(()));
        assert_eq!(at(source::KEPT).await, Err(Error::Unreachable));
        filed.publish(&[filed.key.jwk("k")]);
        assert_eq!(at(source::KEPT).await, Ok(()));
    }

    #[tokio::test]
    async fn without_a_file_there_are_no_keys() {
        let issuers = issuers("/nowhere/jwks.json");
        let key = Key::ed();
        let token = key.token(&header(&key, "k"), &claims());
        assert_eq!(issuers.verify(&token, ACCOUNT, NOW).await, Err(Error::Unreachable));
    }

    #[tokio::test]
    async fn a_file_with_too_much_in_it_is_no_key_set() {
        let filed = Filed::new(Key::p256());
        let mut many = vec![filed.key.jwk("k")];
        many.extend((0..99).map(|n| json!({"kty": "x", "kid": n.to_string()})));
        filed.publish(&many);
        assert!(filed.claiming(json!({})).await.is_ok());
        many.push(json!({}));
        let filed = Filed::new(Key::p256());
        filed.publish(&many);
        assert_eq!(filed.claiming(json!({})).await, Err(Error::Unreachable));
        let filed = Filed::new(Key::p256());
        filed.publish(&[filed.key.jwk("k"), json!("x".repeat(fetch::MAX_ANSWER))]);
        assert_eq!(filed.claiming(json!({})).await, Err(Error::Unreachable));
    }
}

mod urls {
    use super::*;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    struct Site {
        server: Server,
        issuers: Arc<Issuers>,
        key: Key,
    }

    impl Site {
        async fn start() -> Self {
            let key = Key::p256();
            let server = Server::start(&[key.jwk("k")], None).await;
            let issuers = Arc::new(issuers(&server.url()));
            Self { server, issuers, key }
        }

        fn token(&self, kid: &str) -> String {
            let mut claims = claims();
            claims["exp"] = json!(NOW.seconds() + 1_000_000);
            claims["nbf"] = json!(0);
            claims["iat"] = json!(0);
            self.key.token(&header(&self.key, kid), &claims)
        }

        async fn at(&self, ms: i64, kid: &str) -> Result<(), Error> {
            self.issuers.verify(&self.token(kid), ACCOUNT, after(ms)).await.map(drop)
        }

        fn answer(&self, change: impl FnOnce(&mut Answer)) {
            change(&mut self.server.answer.lock());
        }
    }

    #[tokio::test]
    async fn keys_are_fetched_once_in_ten_minutes() {
        let site = Site::start().await;
        assert_eq!(site.server.hits(), 0);
        for ms in [0, 1, 1000, source::FRESH - 1] {
            assert_eq!(site.at(ms, "k").await, Ok(()));
            assert_eq!(site.server.hits(), 1);
        }
        assert_eq!(site.at(source::FRESH, "k").await, Ok(()));
        assert_eq!(site.server.hits(), 2);
        // What was read before the clock was set back far is read again.
        assert_eq!(site.at(-1_000_000, "k").await, Ok(()));
        assert_eq!(site.server.hits(), 3);
    }

    #[tokio::test]
    async fn a_rotated_key_is_fetched_when_a_token_names_it_and_not_more_often_than_allowed() {
        let site = Site::start().await;
        assert_eq!(site.at(0, "k").await, Ok(()));
        site.server.publish(&[site.key.jwk("next")]);
        // The last attempt is too young.
        assert_eq!(site.at(source::PAUSE - 1, "next").await, Err(Error::UnknownKey));
        assert_eq!(site.server.hits(), 1);
        assert_eq!(site.at(source::PAUSE, "next").await, Ok(()));
        assert_eq!(site.server.hits(), 2);
        assert_eq!(site.at(source::PAUSE + 1, "k").await, Err(Error::UnknownKey));
        for _ in 0..20 {
            let refused = site.at(source::PAUSE + 2, "invented").await;
            assert_eq!(refused, Err(Error::UnknownKey));
        }
        assert_eq!(site.server.hits(), 2);
    }

    #[tokio::test]
    async fn many_at_once_fetch_once() {
        let site = Arc::new(Site::start().await);
        site.answer(|answer| answer.delay = Duration::from_millis(100));
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                let site = site.clone();
                tokio::spawn(async move { site.at(n % 7, "k").await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
        assert_eq!(site.server.hits(), 1);
    }

    #[tokio::test]
    async fn known_keys_do_not_wait_for_a_fetch() {
        let site = Arc::new(Site::start().await);
        assert_eq!(site.at(0, "k").await, Ok(()));
        site.answer(|answer| answer.delay = Duration::from_secs(3));
        let slow = site.clone();
        let asking = tokio::spawn(async move { slow.at(source::PAUSE, "next").await });
        while site.server.hits() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begun = std::time::Instant::now();
        assert_eq!(site.at(source::PAUSE, "k").await, Ok(()));
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!(asking.await.unwrap(), Err(Error::UnknownKey));
    }

    #[tokio::test]
    async fn whoever_leaves_does_not_undo_the_fetch() {
        let site = Site::start().await;
        site.answer(|answer| answer.delay = Duration::from_millis(200));
        let left = tokio::time::timeout(Duration::from_millis(20), site.at(0, "k")).await;
        assert!(left.is_err());
        assert_eq!(site.at(0, "k").await, Ok(()));
        assert_eq!(site.server.hits(), 1);
    }

    #[tokio::test]
    async fn an_issuer_that_fails_keeps_its_keys_for_a_day() {
        let site = Site::start().await;
        assert_eq!(site.at(0, "k").await, Ok(()));
        site.answer(|answer| answer.status = StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(site.at(source::FRESH, "k").await, Ok(()));
        assert_eq!(site.server.hits(), 2);
        assert_eq!(site.at(source::FRESH + 1, "k").await, Ok(()));
        assert_eq!(site.server.hits(), 2);
        assert_eq!(site.at(source::KEPT - 1, "k").await, Ok(()));
        assert_eq!(site.at(source::KEPT, "k").await, Err(Error::Unreachable));
        site.answer(|answer| answer.status = StatusCode::OK);
        assert_eq!(site.at(source::KEPT + source::PAUSE, "k").await, Ok(()));
    }

    #[tokio::test]
    async fn an_issuer_that_never_answered_is_unreachable_and_soon_asked_again() {
        let site = Site::start().await;
        site.answer(|answer| answer.status = StatusCode::NOT_FOUND);
        assert_eq!(site.at(0, "k").await, Err(Error::Unreachable));
        site.answer(|answer| answer.status = StatusCode::OK);
        assert_eq!(site.at(source::FIRST_PAUSE - 1, "k").await, Err(Error::Unreachable));
        assert_eq!(site.server.hits(), 1);
        assert_eq!(site.at(source::FIRST_PAUSE, "k").await, Ok(()));
        let gone = issuers(&format!("http://{}/keys?v=1", {
            let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            closed.local_addr().unwrap()
        }));
        let refused = gone.verify(&site.token("k"), ACCOUNT, NOW).await;
        assert_eq!(refused, Err(Error::Unreachable));
    }

    #[tokio::test]
    async fn answers_that_are_no_keys_are_not_taken() {
        let refused = async |change: &dyn Fn(&Site)| {
            let site = Site::start().await;
            change(&site);
            assert_eq!(site.at(0, "k").await, Err(Error::Unreachable));
            assert_eq!(site.server.hits(), 1);
        };
        refused(&|site| site.answer(|a| a.body = b"<html>".to_vec())).await;
        refused(&|site| site.answer(|a| a.body = b"{\"keys\": 1}".to_vec())).await;
        refused(&|site| site.answer(|a| a.body.resize(fetch::MAX_ANSWER + 1, b' '))).await;
        let many: Vec<Value> = vec![json!({"kty": "RSA"}); 101];
        refused(&|site| site.server.publish(&many)).await;
        // A redirect is not followed, not even to where keys are.
        refused(&|site| {
            let url = site.server.url();
            site.answer(|a| {
                a.status = StatusCode::FOUND;
                a.headers = vec![("location", url)];
            });
        })
        .await;
        // A head without end.
        refused(&|site| {
            site.answer(|a| a.headers = vec![("x-filler", "x".repeat(20 * 1024))]);
        })
        .await;
        let full = Site::start().await;
        full.answer(|a| a.body.resize(fetch::MAX_ANSWER, b' '));
        assert_eq!(full.at(0, "k").await, Ok(()));
    }

    #[tokio::test]
    async fn an_issuer_that_hangs_is_given_up() {
        let site = Site::start().await;
        site.answer(|answer| answer.delay = Duration::from_secs(60));
        let begun = std::time::Instant::now();
        assert_eq!(site.at(0, "k").await, Err(Error::Unreachable));
        assert!((4..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn over_tls_the_certificate_must_come_from_the_roots_and_be_of_the_name() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let chain = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let signer = Key::p256();
        let tls = TlsAcceptor::from(Arc::new(config));
        let server = Server::start(&[signer.jwk("k")], Some(tls)).await;
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours.pem"), dir.path().join("theirs.pem"));
        fs::write(&ours, made.cert.pem()).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        fs::write(&theirs, other.cert.pem()).unwrap();
        let verdict = async |host: &str, ca: Option<&PathBuf>| {
            let url = format!("https://{host}:{}/keys?v=1", server.address.port());
            let options = Options { ca: ca.cloned(), ..written(&url) };
            let issuers = Issuers::new(Options::check_all(vec![options]).unwrap());
            let token = signer.token(&header(&signer, "k"), &claims());
            issuers.verify(&token, ACCOUNT, NOW).await.map(drop)
        };
        assert_eq!(verdict("localhost", Some(&ours)).await, Ok(()));
        assert_eq!(verdict("localhost", Some(&theirs)).await, Err(Error::Unreachable));
        assert_eq!(verdict("localhost", None).await, Err(Error::Unreachable));
        assert_eq!(verdict("127.0.0.1", Some(&ours)).await, Err(Error::Unreachable));
    }
}

mod options {
    use super::*;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Options), why: &str) {
        let mut options = written("/keys.json");
        change(&mut options);
        let error = Options::check_all(vec![options]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn each_fault_has_its_sentence() {
        for url in [
            "http://a",
            "https://",
            "issuer",
            "https://a?b",
            "https://a#b",
            "https://a@b",
            "ftp://a",
        ] {
            refused(|o| o.url = url.into(), "must begin with https://");
        }
        refused(|o| o.url = format!("https://{}", "a".repeat(250)), "must begin with https://");
        refused(|o| o.audiences.clear(), "from 1 to 100 audiences");
        refused(|o| o.audiences = vec![String::new()], "from 1 to 100 audiences");
        refused(|o| o.accounts = vec!["1".into()], "`1` is no account");
        for jwks in [
            "",
            "http://issuer.example/keys",
            "http://10.0.0.1/keys",
            "ftp://127.0.0.1/keys",
            "file:///keys",
            "https://user:password@issuer.example/keys",
            "https:///keys",
            "http://localhost.example/",
        ] {
            refused(|o| o.jwks = jwks.into(), "no https:// URL");
        }
        refused(|o| o.ca = Some("/ca.pem".into()), "no https:// URL");
        refused(
            |o| (o.jwks, o.ca) = ("https://a/keys".into(), Some("/nowhere/ca.pem".into())),
            "/nowhere/ca.pem",
        );
        let twice = Options::check_all(vec![written("/a"), written("/b")]);
        assert!(twice.unwrap_err().to_string().contains("is there twice"));
        let many = Options::check_all(vec![written("/a"); 101]);
        assert!(many.unwrap_err().to_string().contains("100 are the limit"));
    }

    #[test]
    fn keys_may_be_at_an_https_url_on_loopback_or_in_a_file() {
        for jwks in [
            "https://issuer.example/keys",
            "https://10.0.0.1:8443/keys",
            "http://127.0.0.1:8080/keys",
            "http://[::1]:8080/keys",
            "http://localhost/keys",
            "/etc/keys.json",
        ] {
            assert!(Options::check_all(vec![written(jwks)]).is_ok(), "{jwks}");
        }
    }

    #[test]
    fn paths_count_from_where_the_configuration_is() {
        let text = "url = 'https://a'\naudiences = ['b']\njwks = 'keys.json'\nca = 'ca.pem'\n";
        let mut options: Options = toml::from_str(text).unwrap();
        options.resolve(std::path::Path::new("/etc/strongroom"));
        assert_eq!(options.jwks, "/etc/strongroom/keys.json");
        assert_eq!(options.ca, Some("/etc/strongroom/ca.pem".into()));
        options.jwks = "https://a/keys".into();
        options.resolve(std::path::Path::new("/elsewhere"));
        assert_eq!(options.jwks, "https://a/keys");
        assert!(toml::from_str::<Options>(&format!("{text}colour = 1")).is_err());
    }
}
