//! CreateRotationFunction, ListRotationFunctions, DeleteRotationFunction: functions that an account
//! registers while the appliance is served. Strongroom's own operations; policies speak of them as of AWS
//! Lambda's (`lambda:CreateFunction` on the function's ARN), so that a right to everything of Secrets
//! Manager's is none to have the appliance speak to whatever address.

use super::functions::options::{DEADLINE, registered};
use super::functions::{FunctionTarget, is_name};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::roots::Roots;
use crate::store::functions::Registered;
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Functions that an account may register.
const MOST: i64 = 100;
/// The longest URL, and the longest text of certificates, in characters.
const LONGEST: (usize, usize) = (2048, 16 * 1024);

fn check_name(checks: &mut Checks, name: Option<&String>) {
    let name = name.map(String::as_str);
    checks.length("functionName", name, 1, 64);
    checks.pattern("functionName", name, "[a-zA-Z0-9-_]+", is_name);
}

fn target(call: &Call, name: &str) -> FunctionTarget {
    FunctionTarget::named(&call.region, &call.caller.account, name)
}

/// CreateRotationFunction.
pub struct CreateRotationFunction;

/// What [`CreateRotationFunction`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateRotationFunctionInput {
    function_name: Option<String>,
    /// The URL before `/2015-03-31/functions/NAME/invocations`.
    endpoint: Option<String>,
    /// Whom to trust there (PEM), in the place of the system's authorities.
    certificate_authorities: Option<String>,
    /// How long a step may take.
    deadline_seconds: Option<i64>,
    /// Whether it is given credentials for the secret; so if nothing is said.
    credentials: Option<bool>,
    /// Whether it takes the place of one that has this name.
    replace: Option<bool>,
}

impl Input for CreateRotationFunctionInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("functionName", &self.function_name);
        check_name(checks, self.function_name.as_ref());
        checks.required("endpoint", &self.endpoint);
        checks.length("endpoint", self.endpoint.as_deref(), 1, LONGEST.0);
        let authorities = self.certificate_authorities.as_deref();
        checks.length("certificateAuthorities", authorities, 1, LONGEST.1);
        let most = i64::try_from(DEADLINE.0).unwrap_or(i64::MAX);
        checks.range("deadlineSeconds", self.deadline_seconds, 1, most);
    }
}

/// What [`CreateRotationFunction`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateRotationFunctionOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
}

impl Operation for CreateRotationFunction {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "CreateRotationFunction";
    const ACCESS: Access = Access::Write;
    const ACTION: &'static str = "CreateFunction";
    const ROUTE: Route = Route { method: "POST", path: "/functions" };
    type Input = CreateRotationFunctionInput;
    type Target = FunctionTarget;
    type Output = CreateRotationFunctionOutput;

    async fn locate(call: &Call, input: &CreateRotationFunctionInput) -> Result<FunctionTarget> {
        Ok(target(call, given(&input.function_name, "functionName")?))
    }

    async fn run(
        call: &Call,
        target: Allowed<FunctionTarget>,
        input: CreateRotationFunctionInput,
    ) -> Result<CreateRotationFunctionOutput> {
        let replace = input.replace.unwrap_or(false);
        let function = checked(call, input)?;
        let (arn, name) = (target.arn().to_owned(), function.name.clone());
        let output = CreateRotationFunctionOutput { arn, name };
        call.answering(&output)?;
        call.commit(move |rows| put(rows, &function, replace)).await?;
        Ok(output)
    }
}

/// What is to be registered, by the rules of the configuration.
fn checked(call: &Call, input: CreateRotationFunctionInput) -> Result<Registered> {
    let refused = |text: String| Error::new(Condition::InvalidParameter, text);
    let name = given(&input.function_name, "functionName")?.clone();
    if call.rotations.functions.names(&name) {
        let text = format!("The appliance's configuration has a function {name}, which counts.");
        return Err(refused(text));
    }
    let deadline = input.deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let function = Registered {
        account: call.caller.account.clone(),
        name,
        endpoint: given(&input.endpoint, "endpoint")?.clone(),
        ca: input.certificate_authorities,
        deadline: deadline.unwrap_or(DEADLINE.1),
        credentials: input.credentials.unwrap_or(true),
        created: call.now,
    };
    registered(&function).map_err(|error| refused(error.to_string()))?;
    if function.ca.clone().is_some_and(|pem| Roots::Pem(pem).certificates().is_err()) {
        return Err(refused("CertificateAuthorities holds no certificates (PEM).".to_owned()));
    }
    Ok(function)
}

fn put(rows: &mut Rows<'_>, function: &Registered, replace: bool) -> Result<()> {
    let known = rows.function(&function.account, &function.name)?;
    if known.is_some() && !replace {
        let text = format!("The function {} already exists.", function.name);
        return Err(Error::new(Condition::AlreadyExists, text));
    }
    if known.is_none() && rows.count_functions(&function.account)? >= MOST {
        let text = format!("The account has {MOST} functions, the most that it can have.");
        return Err(Error::new(Condition::LimitExceeded, text));
    }
    let created = known.map_or(function.created, |known| known.created);
    Ok(rows.put_function(&Registered { created, ..function.clone() })?)
}

/// ListRotationFunctions.
pub struct ListRotationFunctions;

/// What [`ListRotationFunctions`] takes.
#[derive(Deserialize, JsonSchema)]
pub struct ListRotationFunctionsInput {}

impl Input for ListRotationFunctionsInput {
    fn check(&self, _: &mut Checks) {}
}

/// What [`ListRotationFunctions`] answers: there are so few that it needs no pages.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListRotationFunctionsOutput {
    functions: Vec<RotationFunction>,
}

/// A function that the account has registered.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RotationFunction {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authorities: Option<String>,
    deadline_seconds: u64,
    credentials: bool,
    created_date: Epoch,
}

impl Operation for ListRotationFunctions {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "ListRotationFunctions";
    const ACCESS: Access = Access::Read;
    const ACTION: &'static str = "ListFunctions";
    const ROUTE: Route = Route { method: "GET", path: "/functions" };
    type Input = ListRotationFunctionsInput;
    type Target = FunctionTarget;
    type Output = ListRotationFunctionsOutput;

    async fn locate(call: &Call, _: &ListRotationFunctionsInput) -> Result<FunctionTarget> {
        Ok(target(call, "*"))
    }

    async fn run(
        call: &Call,
        _: Allowed<FunctionTarget>,
        _: ListRotationFunctionsInput,
    ) -> Result<ListRotationFunctionsOutput> {
        let account = call.caller.account.clone();
        let found = call.records.scan(move |rows| rows.functions(&account)).await?;
        let shown = |function: Registered| RotationFunction {
            arn: target(call, &function.name).arn().to_owned(),
            name: function.name,
            endpoint: function.endpoint,
            certificate_authorities: function.ca,
            deadline_seconds: function.deadline,
            credentials: function.credentials,
            created_date: Epoch(function.created),
        };
        Ok(ListRotationFunctionsOutput { functions: found.into_iter().map(shown).collect() })
    }
}

/// DeleteRotationFunction.
pub struct DeleteRotationFunction;

/// What [`DeleteRotationFunction`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteRotationFunctionInput {
    function_name: Option<String>,
    /// Whether it goes although secrets are rotated by it. Their rotations then fail until there is one
    /// of its name again.
    force: Option<bool>,
}

impl Input for DeleteRotationFunctionInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("functionName", &self.function_name);
        check_name(checks, self.function_name.as_ref());
    }
}

impl Operation for DeleteRotationFunction {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "DeleteRotationFunction";
    const ACCESS: Access = Access::Write;
    const ACTION: &'static str = "DeleteFunction";
    const ROUTE: Route = Route { method: "DELETE", path: "/functions/{FunctionName}" };
    type Input = DeleteRotationFunctionInput;
    type Target = FunctionTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &DeleteRotationFunctionInput) -> Result<FunctionTarget> {
        Ok(target(call, given(&input.function_name, "functionName")?))
    }

    async fn run(
        call: &Call,
        target: Allowed<FunctionTarget>,
        input: DeleteRotationFunctionInput,
    ) -> Result<Empty> {
        let name = given(&input.function_name, "functionName")?.clone();
        let (account, arn) = (call.caller.account.clone(), target.arn().to_owned());
        let force = input.force.unwrap_or(false);
        call.commit(move |rows| {
            if rows.function(&account, &name)?.is_none() {
                let text = format!("The account has registered no function {name}.");
                return Err(Error::new(Condition::NotFound, text));
            }
            match rows.rotated_by(&account, &arn)?.filter(|_| !force) {
                Some(secret) => Err(in_use(&name, &secret)),
                None => Ok(rows.delete_function(&account, &name)?),
            }
        })
        .await?;
        Ok(Empty {})
    }
}

fn in_use(name: &str, secret: &str) -> Error {
    let text = format!(
        "You can't delete the function {name}: it rotates the secret {secret}. Turn that off, or \
         ask for it with Force."
    );
    Error::new(Condition::InvalidRequest, text)
}
