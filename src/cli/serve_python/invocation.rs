//! One invocation: a Python process of its own, in the bounds of [`confined`], so that one's credentials
//! are not there for the next.

use super::{Invoked, ServePython};
use crate::clock::{World, random_uuid};
use crate::name::Arn;
use crate::rotate::confined::{self, Ended, How, Task};
use crate::server::Error;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What Python runs.
const BOOTSTRAP: &str = include_str!("bootstrap.py");
/// The most bytes of an event and of an answer: AWS Lambda's own.
pub(super) const LONGEST: usize = 6 << 20;
/// The variables that a client context may bring.
const GIVEN: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
/// Where the handler finds the appliance: the first is what AWS's samples read, the second what SDKs do,
/// and the third is for all services.
const ENDPOINTS: [&str; 3] =
    ["SECRETS_MANAGER_ENDPOINT", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"];

/// Credentials for one invocation.
#[derive(Default)]
pub(super) struct Given(BTreeMap<String, String>);

impl Given {
    /// Those that a client context brings.
    pub(super) fn of(mut custom: BTreeMap<String, String>) -> Self {
        custom.retain(|name, value| GIVEN.contains(&name.as_str()) && !value.contains('\0'));
        Self(custom)
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// What became of an invocation: JSON.
pub(super) enum Outcome {
    /// What the handler returned.
    Returned(Bytes),
    /// What it raised, or what became of its process.
    Failed(Bytes),
}

impl Outcome {
    /// A failure that no handler tells of.
    fn crash(id: &str, kind: &str, why: &str) -> Self {
        let message = format!("RequestId: {id} Error: {why}");
        Self::Failed(json!({"errorType": kind, "errorMessage": message}).to_string().into())
    }
}

/// A handler and what it is run with.
pub(super) struct Handler {
    file: PathBuf,
    folder: PathBuf,
    name: String,
    python: String,
    region: Option<String>,
    timeout: Duration,
    environment: BTreeMap<OsString, OsString>,
    world: World,
}

/// What Python reads.
#[derive(Serialize)]
struct Input<'a> {
    event: &'a RawValue,
    context: Context<'a>,
}

/// What a handler's context is made of.
#[derive(Serialize)]
struct Context<'a> {
    aws_request_id: &'a str,
    function_name: &'a str,
    function_version: &'a str,
    invoked_function_arn: String,
    deadline_ms: i64,
}

/// What an event of a rotation's says of its secret.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfSecret {
    secret_id: String,
}

impl Handler {
    /// The one that the command line names.
    pub(super) fn of(given: ServePython) -> Result<Self, Error> {
        let (file, name) = match given.handler.rsplit_once(':') {
            Some((file, name)) => (Path::new(file), name),
            None => (Path::new(&given.handler), "lambda_handler"),
        };
        let file = file.canonicalize().map_err(|e| Error::io(file, e))?;
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = given.endpoint_url.or_else(|| ENDPOINTS.into_iter().find_map(set));
        let endpoint = endpoint.ok_or_else(|| {
            Error::Refused("say where the handler finds the appliance: --endpoint-url".to_owned())
        })?;
        let mut environment: BTreeMap<_, _> = std::env::vars_os().collect();
        let [first, second, _] = ENDPOINTS;
        environment.extend([first, second].map(|name| (name.into(), OsString::from(&endpoint))));
        let region = given.region.or_else(|| set("AWS_REGION"));
        Ok(Self {
            folder: file.parent().unwrap_or(Path::new("/")).to_owned(),
            file,
            name: name.to_owned(),
            python: given.python,
            region: region.or_else(|| set("AWS_DEFAULT_REGION")),
            timeout: Duration::from_secs(given.timeout.into()),
            environment,
            world: World::system(),
        })
    }

    /// Runs it.
    pub(super) async fn run(&self, invoked: &Invoked, event: &RawValue, given: Given) -> Outcome {
        let Ok(id) = random_uuid(&*self.world.random) else {
            return Outcome::crash("-", "Runtime.StartError", "no randomness");
        };
        let of: Option<OfSecret> = serde_json::from_str(event.get()).ok();
        let secret = of.as_ref().and_then(|of| Arn::parse(&of.secret_id));
        let region = self.region.as_deref().or(secret.map(|arn| arn.region));
        let region = region.unwrap_or("us-east-1");
        let account = secret.map_or("000000000000", |arn| arn.account);
        let lasts = i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
        let context = Context {
            aws_request_id: &id,
            function_name: &invoked.name,
            function_version: "$LATEST",
            invoked_function_arn: invoked.arn(region, account),
            deadline_ms: self.world.clock.now().0.saturating_add(lasts),
        };
        let input = serde_json::to_vec(&Input { event, context }).unwrap_or_default();
        let task = Task {
            host: confined::this_program(),
            program: self.command(),
            environment: self.environment(invoked, region, given),
            folder: &self.folder,
            input: &input,
            deadline: self.timeout,
            answer: Some(LONGEST),
            listen: false,
        };
        match confined::run(task).await {
            Ok(ended) => self.outcome(ended, &id),
            Err(error) => Outcome::crash(&id, "Runtime.StartError", &error.to_string()),
        }
    }

    fn command(&self) -> Vec<OsString> {
        let python = [self.python.as_str(), "-c", BOOTSTRAP].map(OsString::from);
        let handler = [self.file.clone().into_os_string(), OsString::from(&self.name)];
        python.into_iter().chain(handler).collect()
    }

    /// The runner's own environment; if credentials are given, they take the place of those that are in it.
    fn environment(
        &self,
        invoked: &Invoked,
        region: &str,
        Given(given): Given,
    ) -> Vec<(OsString, OsString)> {
        let mut all = self.environment.clone();
        if !given.is_empty() {
            let other = |name: &OsString| name == "AWS_PROFILE" || GIVEN.iter().any(|n| name == n);
            all.retain(|name, _| !other(name));
        }
        let function = [
            ("AWS_REGION", region),
            ("AWS_DEFAULT_REGION", region),
            ("AWS_LAMBDA_FUNCTION_NAME", &invoked.name),
            ("_HANDLER", &self.name),
        ];
        all.extend(function.map(|(name, value)| (name.into(), value.into())));
        all.insert("LAMBDA_TASK_ROOT".into(), self.folder.clone().into());
        all.extend(given.into_iter().map(|(name, value)| (name.into(), value.into())));
        all.into_iter().collect()
    }

    /// What AWS Lambda answers for this end.
    fn outcome(&self, ended: Ended, id: &str) -> Outcome {
        let exit = |why: &str| Outcome::crash(id, "Runtime.ExitError", why);
        match ended.how {
            How::Exited(0) => answered(ended.answer, id),
            How::Exited(n) => exit(&format!("Runtime exited with error: exit status {n}")),
            How::Killed(n) => exit(&format!("Runtime exited with error: signal {n}")),
            How::NotStarted(why) => Outcome::crash(id, "Runtime.StartError", &why),
            How::Late => {
                let why = format!("Task timed out after {}.00 seconds", self.timeout.as_secs());
                Outcome::crash(id, "Sandbox.Timedout", &why)
            }
        }
    }
}

/// What the bootstrap wrote.
fn answered(answer: Vec<u8>, id: &str) -> Outcome {
    if answer.len() > LONGEST {
        let why = format!("Response payload size exceeded maximum allowed ({LONGEST} bytes)");
        return Outcome::crash(id, "Function.ResponseSizeTooLarge", &why);
    }
    let answer = Bytes::from(answer);
    match answer.first() {
        Some(b'R') => Outcome::Returned(answer.slice(1..)),
        Some(b'E') => Outcome::Failed(answer.slice(1..)),
        _ => {
            let why = "Runtime exited without providing a reason";
            Outcome::crash(id, "Runtime.ExitError", why)
        }
    }
}
