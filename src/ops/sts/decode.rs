//! DecodeAuthorizationMessage, and the messages that it decodes.

use crate::json::Object;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Decision, Reason, Request, Values};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest message before it is sealed, in bytes: what the service model lets a message be, and
/// what a header holds.
const LONGEST: usize = 4096;

/// The condition keys whose values a message tells, as far as the request has them.
const TOLD: [&str; 16] = [
    "aws:CurrentTime",
    "aws:EpochTime",
    "aws:FederatedProvider",
    "aws:MultiFactorAuthPresent",
    "aws:PrincipalAccount",
    "aws:PrincipalArn",
    "aws:PrincipalType",
    "aws:RequestedRegion",
    "aws:SecureTransport",
    "aws:SourceIdentity",
    "aws:SourceIp",
    "aws:TokenIssueTime",
    "aws:UserAgent",
    "aws:ViaAWSService",
    "aws:userid",
    "aws:username",
];

/// DecodeAuthorizationMessage:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_DecodeAuthorizationMessage.html>.
pub struct DecodeAuthorizationMessage;

/// What [`DecodeAuthorizationMessage`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DecodeAuthorizationMessageInput {
    encoded_message: Option<String>,
}

impl Input for DecodeAuthorizationMessageInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("encodedMessage", &self.encoded_message);
        checks.length("encodedMessage", self.encoded_message.as_deref(), 1, 10_240);
    }
}

/// What [`DecodeAuthorizationMessage`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DecodeAuthorizationMessageOutput {
    decoded_message: String,
}

impl Operation for DecodeAuthorizationMessage {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "DecodeAuthorizationMessage";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/sts/DecodeAuthorizationMessage" };
    type Input = DecodeAuthorizationMessageInput;
    type Target = OwnAccount;
    type Output = DecodeAuthorizationMessageOutput;

    async fn locate(call: &Call, _: &DecodeAuthorizationMessageInput) -> Result<OwnAccount> {
        super::no_session_token(call)?;
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: DecodeAuthorizationMessageInput,
    ) -> Result<DecodeAuthorizationMessageOutput> {
        let invalid =
            || Error::new(Condition::InvalidAuthorizationMessage, "Message is not a valid message");
        let message = given(&input.encoded_message, "encodedMessage")?;
        let opened = call.messages.open(&call.caller.account, message).map_err(|_| invalid())?;
        let decoded_message = opened.expose_str().ok_or_else(invalid)?.to_owned();
        Ok(DecodeAuthorizationMessageOutput { decoded_message })
    }
}

/// Why a request was refused, sealed for the caller's account. Nothing if it can't be made: the
/// refusal stands without it.
pub(in crate::ops) fn encoded(
    call: &Call,
    request: &Request<'_>,
    resource: &str,
    decision: &Decision<'_>,
) -> Option<String> {
    let mut json = Vec::with_capacity(1024);
    tell(&mut json, request, resource, decision, &TOLD);
    if json.len() > LONGEST {
        json.clear();
        tell(&mut json, request, resource, decision, &[]);
    }
    if json.len() > LONGEST {
        return None;
    }
    call.messages.seal(&*call.world.random, &request.caller.account, json).ok()
}

/// The message, as AWS documents it.
fn tell(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    resource: &str,
    decision: &Decision<'_>,
    keys: &[&'static str],
) {
    let denied = if let Decision::ExplicitDeny(reason) = decision { Some(reason) } else { None };
    let mut object = Object::begin(out);
    object
        .raw("allowed", "false")
        .raw("explicitDeny", if denied.is_some() { "true" } else { "false" })
        .object("matchedStatements", |statements| {
            statements.list("items", denied, statement);
        })
        .object("failures", |failures| {
            failures.raw("items", "[]");
        })
        .object("context", |context| {
            context
                .object("principal", |principal| {
                    let caller = request.caller;
                    principal.text("id", &caller.principal_id).text("arn", &caller.arn);
                })
                .text("action", request.action)
                .text("resource", resource)
                .object("conditions", |conditions| {
                    let known = |key: &&'static str| {
                        Some((*key, request.facts.fact(&key.to_ascii_lowercase())?))
                    };
                    let known: Vec<_> = keys.iter().filter_map(known).collect();
                    conditions.list("items", known, condition);
                });
        })
        .end();
}

fn statement(out: &mut Vec<u8>, reason: &Reason<'_>) {
    let policy = reason.policy;
    let mut object = Object::begin(out);
    let id = policy.and_then(|policy| policy.sid(reason.statement)).unwrap_or_default();
    object.text("statementId", id).text("effect", "DENY");
    object.text("policy", policy.map(|policy| policy.name.as_str()).unwrap_or_default());
    object.end();
}

fn condition(out: &mut Vec<u8>, (key, values): (&'static str, Values<'_>)) {
    let values = match values {
        Values::One(one) => vec![one],
        Values::Many(many) => many,
    };
    let mut object = Object::begin(out);
    object
        .text("key", key)
        .object("values", |object| {
            object.list("items", values, |out, value| {
                Object::begin(out).text("value", &value).end();
            });
        })
        .end();
}
