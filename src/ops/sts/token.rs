//! GetSessionToken.

use super::assume::{check_second_factor, no_second_factor};
use super::{Credentials, Oneself, end, terms, with_session};
use crate::envelope::session::{Kind, Session};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::Checks;
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::PrincipalKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a user's session lasts if nothing is said, in seconds.
const DURATION: i64 = 43_200;
/// The longest session, in seconds.
const LONGEST: i64 = 129_600;
/// The longest session of a root, in seconds.
const LONGEST_OF_ROOT: i64 = 3600;

/// GetSessionToken, which no policy allows or denies:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>.
pub struct GetSessionToken;

/// What [`GetSessionToken`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetSessionTokenInput {
    duration_seconds: Option<i64>,
    serial_number: Option<String>,
    token_code: Option<String>,
}

impl Input for GetSessionTokenInput {
    fn check(&self, checks: &mut Checks) {
        checks.range("durationSeconds", self.duration_seconds, terms::SHORTEST, LONGEST);
        check_second_factor(checks, self.serial_number.as_ref(), self.token_code.as_ref());
    }
}

/// What [`GetSessionToken`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetSessionTokenOutput {
    credentials: Credentials,
}

impl Operation for GetSessionToken {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "GetSessionToken";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/sts/GetSessionToken" };
    type Input = GetSessionTokenInput;
    type Target = Oneself;
    type Output = GetSessionTokenOutput;

    async fn locate(call: &Call, _: &GetSessionTokenInput) -> Result<Oneself> {
        Ok(Oneself::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<Oneself>,
        input: GetSessionTokenInput,
    ) -> Result<GetSessionTokenOutput> {
        let caller = &call.caller;
        let kind = match caller.kind {
            _ if caller.session.is_some() => return Err(with_session(call)),
            PrincipalKind::Root => Kind::Root,
            PrincipalKind::User => Kind::User,
            PrincipalKind::AssumedRole
            | PrincipalKind::WebIdentity
            | PrincipalKind::Certificate
            | PrincipalKind::System => return Err(with_session(call)),
        };
        no_second_factor(input.serial_number.as_ref(), input.token_code.as_ref())?;
        let longest = if kind == Kind::Root { LONGEST_OF_ROOT } else { LONGEST };
        let seconds = input.duration_seconds.unwrap_or(DURATION).min(longest);
        let session = Session {
            account: caller.account.clone(),
            kind,
            issuer_arn: caller.arn.clone(),
            issuer_id: caller.principal_id.clone(),
            name: String::new(),
            policies: Vec::new(),
            tags: Vec::new(),
            transitive: Vec::new(),
            issued: call.now,
            expires: end(call.now, seconds),
            source_identity: None,
            provider: None,
            chained: false,
        };
        let output = GetSessionTokenOutput { credentials: Credentials::make(call, &session)? };
        call.answering(&output)?;
        Ok(output)
    }
}
