//! Rotation functions: which ARN is whose.
//!
//! A function has an ARN like one of AWS Lambda's, `arn:aws:lambda:REGION:ACCOUNT:function:NAME`, of
//! this region. Its name says who it is: one of ours (`strongroom-...`), or one that the configuration
//! names, behind the Invoke API of something that runs Lambda functions.

use crate::name::Arn;
use crate::ops::call::Target;
use http::Uri;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name that stands for every function which has no entry of its own.
pub const ANY: &str = "*";
/// What the names of our own functions begin with.
const OWN: &str = "strongroom-";
/// How long an invocation may take, in seconds: AWS Lambda's own bound, and ours if nothing is said.
const DEADLINE: (u64, u64) = (900, 60);

/// `[[function]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The function's name; `*` for every other name.
    pub name: String,
    /// The URL whose `/2015-03-31/functions/NAME/invocations` runs it: `https://`, or `http://` on
    /// loopback.
    pub endpoint: String,
    /// A file of the certificates of authorities to trust; without it the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// How long one step may take, 1 to 900 seconds.
    #[serde(default = "deadline")]
    pub deadline_seconds: u64,
    /// Whether it is given temporary credentials for the secret, in its client context.
    #[serde(default = "yes")]
    pub credentials: bool,
}

fn deadline() -> u64 {
    DEADLINE.1
}

fn yes() -> bool {
    true
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The name.
    #[error(
        "function `{0}`: a name has 1 to 64 letters, digits, hyphens and underscores, or is `*`"
    )]
    Name(String),
    /// A name of ours.
    #[error("function `{0}`: names that begin with `{OWN}` are of the functions that are built in")]
    Own(String),
    /// Two of one name.
    #[error("function `{0}` is there twice")]
    Twice(String),
    /// The endpoint.
    #[error("function `{0}`: its endpoint is an `https://` URL, or an `http://` one on loopback")]
    Endpoint(String),
    /// The deadline.
    #[error("function `{0}`: deadline_seconds is 1 to {bound}", bound = DEADLINE.0)]
    Deadline(String),
}

/// A function behind a Lambda Invoke endpoint.
#[derive(Clone, Debug)]
pub struct Lambda {
    /// The endpoint.
    pub endpoint: Uri,
    /// Roots other than the system's.
    pub ca: Option<PathBuf>,
    /// How long a step may take.
    pub deadline: Duration,
    /// Whether it is given credentials.
    pub credentials: bool,
}

/// One that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// A new password in the secret, told to no target.
    Password,
    /// A user of a database gets a new password.
    SingleUser,
    /// Two users of a database take turns: the one that is not in use gets a new password.
    AlternatingUsers,
    /// An account gets a new SSH key pair.
    SshKey,
}

impl BuiltIn {
    fn named(name: &str) -> Option<Self> {
        match name {
            "strongroom-password" => Some(Self::Password),
            "strongroom-single-user" => Some(Self::SingleUser),
            "strongroom-alternating-users" => Some(Self::AlternatingUsers),
            "strongroom-ssh-key" => Some(Self::SshKey),
            _ => None,
        }
    }
}

/// Who does the steps of a rotation.
pub enum Function<'a> {
    /// Something outside, with its name and qualifier.
    Lambda(&'a Lambda, &'a str, Option<&'a str>),
    /// This program.
    BuiltIn(BuiltIn),
}

/// Every function that is known.
pub struct Functions {
    region: String,
    known: Vec<(String, Lambda)>,
}

impl Options {
    /// Every function that has no entry of its own, at this endpoint.
    pub fn any(endpoint: &str) -> Self {
        Self {
            name: ANY.to_owned(),
            endpoint: endpoint.to_owned(),
            ca: None,
            deadline_seconds: DEADLINE.1,
            credentials: true,
        }
    }

    /// Makes a relative path count from `base`.
    pub fn resolve(&mut self, base: &Path) {
        if let Some(ca) = &mut self.ca {
            *ca = base.join(&*ca);
        }
    }

    fn check(self) -> Result<(String, Lambda), OptionsError> {
        if self.name != ANY && !is_name(&self.name) {
            return Err(OptionsError::Name(self.name));
        }
        if self.name.starts_with(OWN) {
            return Err(OptionsError::Own(self.name));
        }
        if !(1..=DEADLINE.0).contains(&self.deadline_seconds) {
            return Err(OptionsError::Deadline(self.name));
        }
        let endpoint = self.endpoint.parse().ok().filter(is_endpoint);
        let Some(endpoint) = endpoint else { return Err(OptionsError::Endpoint(self.name)) };
        let deadline = Duration::from_secs(self.deadline_seconds);
        let lambda = Lambda { endpoint, ca: self.ca, deadline, credentials: self.credentials };
        Ok((self.name, lambda))
    }
}

/// Credentials go there: in the open they may go nowhere but to this machine.
fn is_endpoint(url: &Uri) -> bool {
    let Some(host) = url.host().map(|host| host.trim_matches(['[', ']'])) else { return false };
    match url.scheme_str() {
        Some("https") => true,
        Some("http") => {
            host.eq_ignore_ascii_case("localhost")
                || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        _ => false,
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Functions {
    /// Those of a configuration, and ours.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn new(region: &str, options: Vec<Options>) -> Result<Self, OptionsError> {
        let mut known: Vec<(String, Lambda)> = Vec::with_capacity(options.len());
        for option in options {
            let (name, lambda) = option.check()?;
            if known.iter().any(|(other, _)| *other == name) {
                return Err(OptionsError::Twice(name));
            }
            known.push((name, lambda));
        }
        Ok(Self { region: region.to_owned(), known })
    }

    /// The function of an ARN; none if there is no such function here.
    pub fn find<'a>(&'a self, arn: &'a str) -> Option<Function<'a>> {
        let arn = Arn::parse(arn)?;
        let ours = arn.partition == "aws" && arn.service == "lambda" && arn.region == self.region;
        let rest = arn.resource.strip_prefix("function:").filter(|_| ours)?;
        let (name, qualifier) = match rest.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier)),
            None => (rest, None),
        };
        if !is_name(name) || !qualifier.is_none_or(is_qualifier) {
            return None;
        }
        if name.starts_with(OWN) {
            let own = BuiltIn::named(name).filter(|_| qualifier.is_none());
            return own.map(Function::BuiltIn);
        }
        let named = |wanted: &str| self.known.iter().find(|(known, _)| known == wanted);
        let (_, lambda) = named(name).or_else(|| named(ANY))?;
        Some(Function::Lambda(lambda, name, qualifier))
    }
}

/// A version or an alias of a function.
fn is_qualifier(text: &str) -> bool {
    text == "$LATEST" || (text.len() <= 128 && is_name(text))
}

/// A function as what a caller may or may not have invoked (`lambda:InvokeFunction`).
pub(super) struct FunctionTarget {
    arn: String,
    owner: String,
}

impl FunctionTarget {
    pub(super) fn of(arn: &str) -> Self {
        let owner = Arn::parse(arn).map_or("", |arn| arn.account).to_owned();
        Self { arn: arn.to_owned(), owner }
    }
}

impl Target for FunctionTarget {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, endpoint: &str) -> Options {
        let text = format!("name = '{name}'\nendpoint = '{endpoint}'");
        toml::from_str(&text).expect("TOML")
    }

    fn found(functions: &Functions, arn: &str) -> Option<String> {
        functions.find(arn).map(|function| match function {
            Function::Lambda(lambda, name, qualifier) => {
                format!("{} {name} {}", lambda.endpoint, qualifier.unwrap_or("-"))
            }
            Function::BuiltIn(built_in) => format!("{built_in:?}"),
        })
    }

    #[test]
    fn an_arn_finds_the_function_of_its_name_in_this_region() {
        let all = |options| Functions::new("eu-central-1", options).expect("functions");
        let one = all(vec![option("mine", "http://127.0.0.1:1")]);
        let arn = |rest: &str| format!("arn:aws:lambda:eu-central-1:111122223333:function:{rest}");
        let mine = Some("http://127.0.0.1:1/ mine -".to_owned());
        assert_eq!(found(&one, &arn("mine")), mine);
        let version = found(&one, &arn("mine:$LATEST"));
        assert_eq!(version.as_deref(), Some("http://127.0.0.1:1/ mine $LATEST"));
        assert_eq!(found(&one, &arn("other")), None);
        assert_eq!(found(&one, &arn("mine").replace("eu-", "us-")), None);
        assert_eq!(found(&one, "mine"), None);
        assert_eq!(found(&one, &arn("../mine")), None);
        let others = all(vec![option("mine", "http://127.0.0.1:1"), option("*", "https://b")]);
        assert_eq!(found(&others, &arn("mine")), mine);
        assert_eq!(found(&others, &arn("x")).as_deref(), Some("https://b/ x -"));
        assert_eq!(found(&others, &arn("strongroom-password")).as_deref(), Some("Password"));
        assert_eq!(found(&others, &arn("strongroom-else")), None);
    }

    #[test]
    fn what_a_configuration_may_not_say_is_told() {
        let refused = |options: Vec<Options>| {
            Functions::new("eu-central-1", options).map(drop).expect_err("refused").to_string()
        };
        assert!(refused(vec![option("a b", "http://127.0.0.1")]).contains("`a b`: a name"));
        assert!(refused(vec![option("strongroom-x", "http://[::1]")]).contains("built in"));
        for url in ["http://example.com", "ftp://127.0.0.1", "/path", ""] {
            assert!(refused(vec![option("a", url)]).contains("on loopback"), "{url}");
        }
        let twice = || option("a", "http://localhost:1");
        assert!(refused(vec![twice(), twice()]).contains("twice"));
        let late = Options { deadline_seconds: 901, ..twice() };
        assert!(refused(vec![late]).contains("1 to 900"));
    }
}
