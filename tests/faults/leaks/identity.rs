//! The secrets of identities: access keys, sessions, tokens of issuers, grants, signatures, and what
//! stands in a policy document that is none.

use super::planted::Planted;
use super::{Errors, unsigned};
use crate::appliance::Appliance;
use crate::client::{Client, Credentials, Reply, form, presign};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::fs;

const ISSUER: &str = "https://issuer.example";
const ACCOUNT: &str = "000000000000";
/// A session's name, which is recorded: where it is found, a secret would have been found too.
pub(super) const RECORDED: &str = "recorded-session-name";

/// An issuer of tokens whose keys the appliance reads from a file.
pub(super) struct Issuer(EcdsaKeyPair);

impl Issuer {
    /// A new one, and what the appliance's configuration says of it.
    pub(super) fn publish(appliance: &Appliance) -> (Self, String) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "x": x, "y": y});
        let jwks = json!({"keys": [jwk]}).to_string();
        fs::write(appliance.path("jwks.json"), jwks).expect("written");
        let issuer = format!("url = \"{ISSUER}\"\naudiences = [\"leaks\"]\njwks = \"jwks.json\"");
        (Self(key), format!("[[identity.issuer]]\n{issuer}\n"))
    }

    /// A token that is good until then, and its signature.
    fn token(&self, expires: i64) -> (String, String) {
        let head = json!({"alg": "ES256", "kid": "one"});
        let claims = json!({"iss": ISSUER, "aud": "leaks", "sub": "somebody", "exp": expires});
        let [head, claims] = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{head}.{claims}");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed");
        let signature = URL_SAFE_NO_PAD.encode(signature);
        (format!("{signed}.{signature}"), signature)
    }
}

/// Makes and uses credentials of every kind, and uses some wrongly; answers the errors.
pub(super) fn identities(appliance: &Appliance, issuer: &Issuer, planted: &mut Planted) -> Errors {
    let mut admin = appliance.client();
    let user = user(&mut admin, appliance, planted);
    let mut client = Client::new(&appliance.address, &user);
    let session = succeeded(client.form("sts", "GetSessionToken", &[]));
    let session = temporary(&session, &user, "GetSessionToken", planted);
    let mut errors = sessions(appliance, &session, planted);
    errors.extend(web_identity(appliance, issuer, planted));
    errors.extend(grants(&mut admin, planted));
    planted.add("signature", signature(&admin.authorization));
    errors
}

/// The text of an answer that is no error.
fn succeeded(reply: Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

/// What stands in an element of an XML answer.
fn element(xml: &str, name: &str) -> String {
    let found = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<'));
    found.unwrap_or_else(|| panic!("no {name}: {xml}")).0.to_owned()
}

/// The signature at the end of a header or of a URL.
fn signature(text: &str) -> Vec<u8> {
    let (_, signature) = text.rsplit_once("Signature=").expect("a signature");
    signature.as_bytes().to_vec()
}

/// A user who may do everything, with an access key.
fn user(admin: &mut Client, appliance: &Appliance, planted: &mut Planted) -> Credentials {
    let named = ("UserName", "leaks");
    succeeded(admin.form("iam", "CreateUser", &[named]));
    let all = ("PolicyArn", "arn:aws:iam::aws:policy/AdministratorAccess");
    succeeded(admin.form("iam", "AttachUserPolicy", &[named, all]));
    let made = succeeded(admin.form("iam", "CreateAccessKey", &[named]));
    let secret = element(&made, "SecretAccessKey");
    planted.add("CreateAccessKey's secret access key", secret.clone().into_bytes());
    Credentials { id: element(&made, "AccessKeyId"), secret, ..appliance.credentials.clone() }
}

/// The credentials of an answer of STS.
fn temporary(xml: &str, like: &Credentials, what: &str, planted: &mut Planted) -> Credentials {
    let [id, secret, token] =
        ["AccessKeyId", "SecretAccessKey", "SessionToken"].map(|name| element(xml, name));
    planted.add(&format!("{what}'s secret access key"), secret.clone().into_bytes());
    planted.add(&format!("{what}'s session token"), token.clone().into_bytes());
    Credentials { id, secret, token, region: like.region.clone() }
}

/// Uses a session in a header and in a URL, and roles with it.
fn sessions(appliance: &Appliance, session: &Credentials, planted: &mut Planted) -> Errors {
    let mut client = Client::new(&appliance.address, session);
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"},
        {"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity", "Principal":
            {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/issuer.example")}}]});
    let trust = trust.to_string();
    let role = [("RoleName", "leaks"), ("AssumeRolePolicyDocument", &*trust)];
    // A session of GetSessionToken may not ask IAM.
    succeeded(appliance.client().form("iam", "CreateRole", &role));
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/leaks");
    let asked = [("RoleArn", &*arn), ("RoleSessionName", RECORDED)];
    let assumed = succeeded(client.form("sts", "AssumeRole", &asked));
    let assumed = temporary(&assumed, session, "AssumeRole", planted);
    planted.add("signature with a session", signature(&client.authorization));

    let query = form("sts", "GetCallerIdentity", &[]);
    let mut present = |credentials: &Credentials| {
        let url = presign(credentials, &appliance.address, "sts", &query);
        planted.add("signature of a URL", signature(&url));
        url
    };
    let url = present(&assumed);
    let unknown = Credentials { token: "planted-token-of-nobody".repeat(5), ..assumed.clone() };
    let forged = Credentials { secret: "planted-wrong-key".repeat(3), ..assumed };
    let urls = [present(&unknown), present(&forged), url[..url.len() - 1].to_owned()];
    for bad in [&unknown.token, &forged.secret] {
        planted.add("of nobody", bad.clone().into_bytes());
    }
    let mut stranger = Client::new(&appliance.address, &unknown);
    let told = succeeded(stranger.look(&url));
    assert!(told.contains(&format!("assumed-role/leaks/{RECORDED}")), "{told}");
    let mut errors: Errors =
        urls.iter().map(|url| refused("a presigned URL", stranger.look(url))).collect();
    errors.push(refused("an unknown session token", stranger.ask("kms:ListKeys", &json!({}))));
    errors
}

/// An error, and of what.
fn refused(what: &str, reply: Reply) -> (String, Vec<u8>) {
    assert!((400..500).contains(&reply.status), "{what}: {} {}", reply.status, reply.text());
    (what.to_owned(), reply.whole())
}

/// Tokens of the issuer, good ones and bad ones.
fn web_identity(appliance: &Appliance, issuer: &Issuer, planted: &mut Planted) -> Errors {
    let assume = |token: &str| {
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/leaks");
        let members = [("RoleArn", &*arn), ("RoleSessionName", "web"), ("WebIdentityToken", token)];
        let form = form("sts", "AssumeRoleWithWebIdentity", &members);
        unsigned(appliance, "/", "application/x-www-form-urlencoded", &form)
    };
    let now = jiff::Timestamp::now().as_second();
    let mut token = |expires: i64| {
        let (token, signature) = issuer.token(expires);
        planted.add("web identity token", token.clone().into_bytes());
        planted.add("signature of a web identity token", signature.into_bytes());
        token
    };
    let (good, expired, altered) = (token(now + 600), token(now - 600), token(now + 600));
    let altered = format!("{}AAAA", &altered[..altered.len() - 4]);
    let garbage = planted.plant("web identity token that is none");
    let parts = format!("{garbage}.{garbage}.{garbage}");
    let made = assume(&good);
    assert_eq!(made.status, 200, "{}", made.text());
    temporary(&made.text(), &appliance.credentials, "AssumeRoleWithWebIdentity", planted);
    let rest =
        json!({"RoleArn": good, "RoleSessionName": "web", "WebIdentityToken": {"a": garbage}});
    let rest = unsigned(
        appliance,
        "/v1/sts/AssumeRoleWithWebIdentity",
        "application/json",
        &rest.to_string(),
    );
    let bad = [&expired, &altered, &garbage, &parts];
    let mut errors: Errors =
        bad.iter().map(|token| refused("a web identity token", assume(token))).collect();
    errors.push(refused("a web identity token in the wrong place", rest));
    errors
}

/// Grant tokens, given out here and made up.
fn grants(admin: &mut Client, planted: &mut Planted) -> Errors {
    let key = admin.ask("kms:CreateKey", &json!({})).output()["KeyMetadata"]["KeyId"].clone();
    let user = format!("arn:aws:iam::{ACCOUNT}:user/leaks");
    let grant = json!({"KeyId": key, "GranteePrincipal": user, "Operations": ["Encrypt"]});
    let token = admin.ask("kms:CreateGrant", &grant).member("GrantToken");
    planted.add("grant token", token.clone().into_bytes());
    let mut encrypt = |token: &str| {
        let input = json!({"KeyId": key, "Plaintext": "AAAA", "GrantTokens": [token]});
        admin.ask("kms:Encrypt", &input)
    };
    encrypt(&token).output();
    let unknown = planted.plant("grant token of nobody");
    let encrypted = refused("an unknown grant token", encrypt(&unknown));
    let retired = admin.ask("kms:RetireGrant", &json!({"GrantToken": unknown}));
    let retired = refused("an unknown grant that is retired", retired);
    assert_eq!(admin.ask("kms:RetireGrant", &json!({"GrantToken": token})).status, 200);
    vec![encrypted, retired]
}

/// Documents that are no policies, each with a secret that somebody put there by mistake; answers
/// the errors. That the audit log repeats a document is AWS's way, so only errors must not.
pub(super) fn documents(appliance: &Appliance, planted: &mut Planted) -> Errors {
    let mut admin = appliance.client();
    let key = admin.ask("kms:CreateKey", &json!({})).output()["KeyMetadata"]["KeyId"].clone();
    let mut documents = Vec::new();
    let allows = json!({"Effect": "Allow", "Action": "kms:*", "Resource": "*"});
    for (member, statement) in [
        ("Version", None),
        ("Id", None),
        ("Note", None),
        ("", Some("Sid")),
        ("", Some("Effect")),
        ("", Some("Note")),
        ("", Some("Condition")),
    ] {
        let mut document = json!({"Version": "2012-10-17", "Statement": [allows]});
        match statement {
            None => document[member] = json!({"in": planted.plant(member)}),
            Some(name) => document["Statement"][0][name] = json!([planted.plant(name)]),
        }
        documents.push(document.to_string());
    }
    let text = planted.plant("a text");
    documents.push(format!("\"{text}\""));
    documents.push(format!("{{\"Version\": \"{text}"));
    documents.push(text);
    let mut errors = Vec::new();
    for document in &documents {
        let role = [("RoleName", "leaks"), ("PolicyDocument", document)];
        let role = admin.form("iam", "UpdateAssumeRolePolicy", &role);
        let named = [("PolicyName", "leaks"), ("PolicyDocument", document)];
        let made = admin.form("iam", "CreatePolicy", &named);
        let secret = json!({"SecretId": "leaks", "ResourcePolicy": document});
        let secret = admin.ask("secretsmanager:PutResourcePolicy", &secret);
        let of_key = json!({"KeyId": key, "Policy": document});
        let of_key = admin.ask("kms:PutKeyPolicy", &of_key);
        for (what, reply) in
            [("role", role), ("managed", made), ("secret", secret), ("key", of_key)]
        {
            errors.push(refused(&format!("{what}: {document}"), reply));
        }
    }
    errors
}
