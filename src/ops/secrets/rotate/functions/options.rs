//! Functions as they are written, and what they may be: in the configuration, or by whom registers one.

use super::{ANY, Lambda, Named, OWN, Program, is_name};
use crate::roots::Roots;
use crate::store::functions::Registered;
use http::Uri;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long an invocation may take, in seconds: AWS Lambda's own bound, and ours if nothing is said.
pub(in crate::ops::secrets::rotate) const DEADLINE: (u64, u64) = (900, 60);

/// `[[function]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The function's name; `*` for every other name.
    pub name: String,
    /// The URL whose `/2015-03-31/functions/NAME/invocations` runs it: `https://`, or `http://` on
    /// loopback.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// A file of the certificates of authorities to trust; without it the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Instead of an endpoint: a program of this machine, by its absolute path, and its arguments.
    #[serde(default)]
    pub program: Option<Vec<String>>,
    /// Where a program finds this appliance; by default at its first plain address.
    #[serde(default)]
    pub appliance_url: Option<String>,
    /// The file of authorities that a program is to trust there.
    #[serde(default)]
    pub appliance_ca: Option<PathBuf>,
    /// How long one step may take, 1 to 900 seconds.
    #[serde(default = "deadline")]
    pub deadline_seconds: u64,
    /// Whether it is given temporary credentials for the secret: in its client context, or a program
    /// in its environment.
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
    /// Neither or both.
    #[error("function `{0}`: it has an `endpoint` and perhaps a `ca`, or else a `program`")]
    Which(String),
    /// The program.
    #[error("function `{0}`: a program is an absolute path and its arguments, of one function")]
    Program(String),
    /// Where a program finds the appliance.
    #[error(
        "function `{0}`: `appliance_url` is an `https://` URL, or an `http://` one on loopback; it \
         can be left out where the appliance listens on loopback in the clear (`listen_plain`)"
    )]
    Appliance(String),
    /// The deadline.
    #[error("function `{0}`: deadline_seconds is 1 to {bound}", bound = DEADLINE.0)]
    Deadline(String),
}

impl Options {
    /// A function at this endpoint, with what is so if nothing is said.
    pub fn at(name: &str, endpoint: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: Some(endpoint.to_owned()),
            ca: None,
            program: None,
            appliance_url: None,
            appliance_ca: None,
            deadline_seconds: DEADLINE.1,
            credentials: true,
        }
    }

    /// Makes a relative path count from `base`.
    pub fn resolve(&mut self, base: &Path) {
        for file in [&mut self.ca, &mut self.appliance_ca].into_iter().flatten() {
            *file = base.join(&*file);
        }
    }

    /// `plain` says whether the appliance listens on loopback in the clear.
    pub(super) fn check(self, plain: bool) -> Result<(String, Named), OptionsError> {
        self.check_common()?;
        let named = if self.program.is_some() {
            Named::Program(Arc::new(self.program(plain)?))
        } else {
            Named::Lambda(Arc::new(self.lambda()?))
        };
        Ok((self.name, named))
    }

    fn check_common(&self) -> Result<(), OptionsError> {
        let name = || self.name.clone();
        if self.name != ANY && !is_name(&self.name) {
            return Err(OptionsError::Name(name()));
        }
        if self.name.starts_with(OWN) {
            return Err(OptionsError::Own(name()));
        }
        if !(1..=DEADLINE.0).contains(&self.deadline_seconds) {
            return Err(OptionsError::Deadline(name()));
        }
        Ok(())
    }

    fn lambda(&self) -> Result<Lambda, OptionsError> {
        if self.appliance_url.is_some() || self.appliance_ca.is_some() {
            return Err(OptionsError::Which(self.name.clone()));
        }
        let endpoint = self.endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| OptionsError::Which(self.name.clone()))?;
        let endpoint = endpoint.parse().ok().filter(is_endpoint);
        Ok(Lambda {
            endpoint: endpoint.ok_or_else(|| OptionsError::Endpoint(self.name.clone()))?,
            trust: self.ca.clone().map_or(Roots::System, Roots::File),
            deadline: Duration::from_secs(self.deadline_seconds),
            credentials: self.credentials,
        })
    }

    fn program(&self, plain: bool) -> Result<Program, OptionsError> {
        let command = self.program.clone().unwrap_or_default();
        let absolute = command.first().is_some_and(|path| Path::new(path).is_absolute());
        let whole = command.iter().all(|word| !word.contains('\0'));
        if self.endpoint.is_some() || self.ca.is_some() {
            return Err(OptionsError::Which(self.name.clone()));
        }
        if self.name == ANY || !absolute || !whole {
            return Err(OptionsError::Program(self.name.clone()));
        }
        let url = |url: &String| url.parse().is_ok_and(|url: Uri| is_endpoint(&url));
        if !self.appliance_url.as_ref().map_or(plain, url) {
            return Err(OptionsError::Appliance(self.name.clone()));
        }
        Ok(Program {
            command,
            appliance: self.appliance_url.clone(),
            appliance_ca: self.appliance_ca.clone(),
            deadline: Duration::from_secs(self.deadline_seconds),
            credentials: self.credentials,
        })
    }
}

/// A function that an account registers, by the rules of the configuration.
///
/// # Errors
/// What is wrong, in one sentence.
pub(in crate::ops::secrets::rotate) fn registered(
    function: &Registered,
) -> Result<Lambda, OptionsError> {
    if function.name == ANY {
        return Err(OptionsError::Name(function.name.clone()));
    }
    let written = Options {
        deadline_seconds: function.deadline,
        credentials: function.credentials,
        ..Options::at(&function.name, &function.endpoint)
    };
    written.check_common()?;
    let trust = function.ca.clone().map_or(Roots::System, Roots::Pem);
    Ok(Lambda { trust, ..written.lambda()? })
}

/// Credentials go there: in the open they may go nowhere but to this machine.
pub(crate) fn is_endpoint(url: &Uri) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::ops::secrets::rotate::functions::Functions;

    fn refused(options: Vec<Options>) -> String {
        Functions::new("eu-central-1", options, false).map(drop).expect_err("refused").to_string()
    }

    #[test]
    fn what_a_configuration_may_not_say_is_told() {
        let option = Options::at;
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

    #[test]
    fn a_program_is_an_absolute_path_that_knows_where_the_appliance_is() {
        let written = |more: &str| -> Options {
            toml::from_str(&format!("name = 'a'\nprogram = ['/bin/a', 'b']\n{more}")).expect("TOML")
        };
        let at = "appliance_url = 'https://strongroom.example.com'";
        Functions::new("eu-central-1", vec![written(at)], false).map(drop).expect("taken");
        Functions::new("eu-central-1", vec![written("")], true).map(drop).expect("taken");
        for (options, why) in [
            (written(""), "can be left out where"),
            (written("appliance_url = 'http://example.com'"), "on loopback"),
            (written("endpoint = 'https://a'"), "or else a `program`"),
            (Options { name: ANY.to_owned(), ..written(at) }, "of one function"),
            (Options { program: Some(vec!["a".to_owned()]), ..written(at) }, "absolute path"),
            (Options { program: Some(Vec::new()), ..written(at) }, "absolute path"),
            (
                Options { program: Some(vec!["/a".to_owned(), "\0".to_owned()]), ..written(at) },
                "absolute",
            ),
            (Options { program: None, ..written(at) }, "or else a `program`"),
            (Options { endpoint: None, ..Options::at("a", "") }, "or else a `program`"),
        ] {
            let told = refused(vec![options]);
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn what_is_registered_obeys_the_rules_of_the_configuration() {
        let function = Registered {
            account: "111122223333".to_owned(),
            name: "mine".to_owned(),
            endpoint: "https://lambda.example.com".to_owned(),
            ca: Some("PEM".to_owned()),
            deadline: 60,
            credentials: true,
            created: Time(0),
        };
        let lambda = registered(&function).expect("taken");
        assert_eq!((lambda.trust, lambda.deadline.as_secs()), (Roots::Pem("PEM".to_owned()), 60));
        let bad = [
            Registered { name: ANY.to_owned(), ..function.clone() },
            Registered { name: "strongroom-x".to_owned(), ..function.clone() },
            Registered { name: "../x".to_owned(), ..function.clone() },
            Registered { endpoint: "http://10.0.0.1".to_owned(), ..function.clone() },
            Registered { deadline: 0, ..function.clone() },
            Registered { deadline: 901, ..function },
        ];
        for function in bad {
            assert!(registered(&function).is_err(), "{function:?}");
        }
    }
}
