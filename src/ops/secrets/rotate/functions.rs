//! Rotation functions: which ARN is whose.
//!
//! A function has an ARN like one of AWS Lambda's, `arn:aws:lambda:REGION:ACCOUNT:function:NAME`, of
//! this region. Its name says who it is: one of ours (`strongroom-...`), one that the configuration
//! names, for all accounts, or one that the account has registered. It is behind the Invoke API of
//! something that runs Lambda functions, or a program of this machine; a program is named in the
//! configuration alone, since who names one runs code here.

pub mod options;

use crate::name::Arn;
use crate::ops::call::Target;
use crate::roots::Roots;
use crate::store::{self, functions::Registered};
use http::Uri;
use options::{Options, OptionsError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The name that stands for every function which has no entry of its own.
pub const ANY: &str = "*";
/// What the names of our own functions begin with.
const OWN: &str = "strongroom-";
/// A function behind a Lambda Invoke endpoint.
#[derive(Clone, Debug)]
pub struct Lambda {
    /// The endpoint.
    pub endpoint: Uri,
    /// Whose certificate it has.
    pub trust: Roots,
    /// How long a step may take.
    pub deadline: Duration,
    /// Whether it is given credentials.
    pub credentials: bool,
}

/// A function that is a program of this machine.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its path and its arguments.
    pub command: Vec<String>,
    /// Where it finds the appliance, if not at the first plain address.
    pub appliance: Option<String>,
    /// Whom it is to trust there.
    pub appliance_ca: Option<PathBuf>,
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
    Lambda(Arc<Lambda>, &'a str, Option<&'a str>),
    /// A program.
    Program(Arc<Program>),
    /// This program.
    BuiltIn(BuiltIn),
}

/// One that the configuration names.
#[derive(Clone)]
enum Named {
    Lambda(Arc<Lambda>),
    Program(Arc<Program>),
}

/// The functions of all accounts.
pub struct Functions {
    region: String,
    named: Vec<(String, Named)>,
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Functions {
    /// Those of a configuration, and ours. `plain` says whether the appliance listens on loopback in the
    /// clear, where programs find it.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn new(region: &str, options: Vec<Options>, plain: bool) -> Result<Self, OptionsError> {
        let mut named: Vec<(String, Named)> = Vec::with_capacity(options.len());
        for option in options {
            let (name, function) = option.check(plain)?;
            if named.iter().any(|(other, _)| *other == name) {
                return Err(OptionsError::Twice(name));
            }
            named.push((name, function));
        }
        Ok(Self { region: region.to_owned(), named })
    }

    /// Whether the configuration has an entry for this name alone.
    pub(super) fn names(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    fn named(&self, name: &str) -> Option<&Named> {
        Some(&self.named.iter().find(|(known, _)| known == name)?.1)
    }

    /// The function of an ARN; none if there is no such function here. `registered` finds what an
    /// account has registered under a name.
    ///
    /// # Errors
    /// Those of `registered`.
    pub fn find<'a>(
        &self,
        arn: &'a str,
        registered: impl FnOnce(&str, &str) -> store::Result<Option<Arc<Registered>>>,
    ) -> store::Result<Option<Function<'a>>> {
        let Some((account, name, qualifier)) = self.parse(arn) else { return Ok(None) };
        if name.starts_with(OWN) {
            let own = BuiltIn::named(name).filter(|_| qualifier.is_none());
            return Ok(own.map(Function::BuiltIn));
        }
        if let Some(named) = self.named(name) {
            return Ok(named.function(name, qualifier));
        }
        if let Some(found) = registered(account, name)? {
            // What was registered was checked.
            let lambda = options::registered(&found).ok().map(Arc::new);
            return Ok(lambda.map(|lambda| Function::Lambda(lambda, name, qualifier)));
        }
        Ok(self.named(ANY).and_then(|named| named.function(name, qualifier)))
    }

    /// The account, the name and the qualifier in a function's ARN.
    fn parse<'a>(&self, arn: &'a str) -> Option<(&'a str, &'a str, Option<&'a str>)> {
        let arn = Arn::parse(arn)?;
        let ours = arn.partition == "aws" && arn.service == "lambda" && arn.region == self.region;
        let rest = arn.resource.strip_prefix("function:").filter(|_| ours)?;
        let (name, qualifier) = match rest.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier)),
            None => (rest, None),
        };
        let whole = is_name(name) && qualifier.is_none_or(is_qualifier);
        whole.then_some((arn.account, name, qualifier))
    }
}

impl Named {
    /// A program has no versions.
    fn function<'a>(&self, name: &'a str, qualifier: Option<&'a str>) -> Option<Function<'a>> {
        match self {
            Self::Lambda(lambda) => Some(Function::Lambda(lambda.clone(), name, qualifier)),
            Self::Program(program) => {
                qualifier.is_none().then(|| Function::Program(program.clone()))
            }
        }
    }
}

/// A version or an alias of a function.
fn is_qualifier(text: &str) -> bool {
    text == "$LATEST" || (text.len() <= 128 && is_name(text))
}

/// A function as what a caller may or may not have invoked (`lambda:InvokeFunction`), registered or taken
/// away.
pub struct FunctionTarget {
    arn: String,
    owner: String,
}

impl FunctionTarget {
    pub(super) fn of(arn: &str) -> Self {
        let owner = Arn::parse(arn).map_or("", |arn| arn.account).to_owned();
        Self { arn: arn.to_owned(), owner }
    }

    /// The function of this name of an account's; `*`: all of them.
    pub(super) fn named(region: &str, account: &str, name: &str) -> Self {
        let arn = format!("arn:aws:lambda:{region}:{account}:function:{name}");
        Self { arn, owner: account.to_owned() }
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
    use crate::clock::Time;

    const ACCOUNT: &str = "111122223333";

    fn found(functions: &Functions, arn: &str) -> Option<String> {
        let registered = |account: &str, name: &str| {
            let known = account == ACCOUNT && ["registered", "mine"].contains(&name);
            Ok(known.then(|| {
                Arc::new(Registered {
                    account: account.to_owned(),
                    name: name.to_owned(),
                    endpoint: "https://registered".to_owned(),
                    ca: None,
                    deadline: 60,
                    credentials: true,
                    created: Time(0),
                })
            }))
        };
        functions.find(arn, registered).expect("found").map(|function| match function {
            Function::Lambda(lambda, name, qualifier) => {
                format!("{} {name} {}", lambda.endpoint, qualifier.unwrap_or("-"))
            }
            Function::Program(program) => program.command.join(" "),
            Function::BuiltIn(built_in) => format!("{built_in:?}"),
        })
    }

    #[test]
    fn an_arn_finds_the_function_of_its_name_in_this_region() {
        let all = |options| Functions::new("eu-central-1", options, true).expect("functions");
        let mine = || Options::at("mine", "http://127.0.0.1:1");
        let program = Options {
            program: Some(vec!["/bin/a".to_owned(), "b".to_owned()]),
            endpoint: None,
            ..Options::at("program", "")
        };
        let some = all(vec![mine(), program]);
        let arn = |rest: &str| format!("arn:aws:lambda:eu-central-1:{ACCOUNT}:function:{rest}");
        let at_mine = Some("http://127.0.0.1:1/ mine -".to_owned());
        assert_eq!(found(&some, &arn("mine")), at_mine, "and not what was registered");
        let version = found(&some, &arn("mine:$LATEST"));
        assert_eq!(version.as_deref(), Some("http://127.0.0.1:1/ mine $LATEST"));
        assert_eq!(found(&some, &arn("program")).as_deref(), Some("/bin/a b"));
        assert_eq!(found(&some, &arn("program:1")), None);
        assert_eq!(found(&some, &arn("other")), None);
        assert_eq!(found(&some, &arn("mine").replace("eu-", "us-")), None);
        assert_eq!(found(&some, "mine"), None);
        assert_eq!(found(&some, &arn("../mine")), None);
        let registered = found(&some, &arn("registered:blue"));
        assert_eq!(registered.as_deref(), Some("https://registered/ registered blue"));
        assert_eq!(found(&some, &arn("registered").replace(ACCOUNT, "999999999999")), None);
        let others = all(vec![mine(), Options::at(ANY, "https://b")]);
        assert_eq!(found(&others, &arn("mine")), at_mine);
        assert_eq!(found(&others, &arn("x")).as_deref(), Some("https://b/ x -"));
        let registered = found(&others, &arn("registered"));
        assert_eq!(registered.as_deref(), Some("https://registered/ registered -"));
        assert_eq!(found(&others, &arn("strongroom-password")).as_deref(), Some("Password"));
        assert_eq!(found(&others, &arn("strongroom-else")), None);
    }
}
