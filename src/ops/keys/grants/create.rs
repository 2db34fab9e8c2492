//! CreateGrant.

use super::terms::{ConstraintsShape, OPERATIONS, at_least_as_strict, check_operations};
use super::{check_principal, check_service, held, no_service, token};
use crate::clock::random_bytes;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnPolicy, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::holder::find;
use crate::ops::keys::terms::unless_dry;
use crate::ops::keys::{KeyTarget, check_grant_tokens, check_key_id, locate_key, usable};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Request, Values};
use crate::store::grants::{Constraints, Grant};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Grants that one key may have (AWS's quota).
const MOST_PER_KEY: i64 = 50_000;

/// CreateGrant: <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateGrant.html>.
pub struct CreateGrant;

/// What [`CreateGrant`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateGrantInput {
    key_id: Option<String>,
    grantee_principal: Option<String>,
    retiring_principal: Option<String>,
    operations: Option<Vec<String>>,
    #[serde(default, deserialize_with = "crate::ops::shape::object")]
    constraints: Option<ConstraintsShape>,
    grant_tokens: Option<Vec<String>>,
    name: Option<String>,
    dry_run: Option<bool>,
    grantee_service_principal: Option<String>,
    retiring_service_principal: Option<String>,
}

impl Input for CreateGrantInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        check_principal(checks, "granteePrincipal", self.grantee_principal.as_deref());
        check_principal(checks, "retiringPrincipal", self.retiring_principal.as_deref());
        let service = self.grantee_service_principal.as_deref();
        check_service(checks, "granteeServicePrincipal", service);
        let service = self.retiring_service_principal.as_deref();
        check_service(checks, "retiringServicePrincipal", service);
        checks.required("operations", &self.operations);
        check_names(checks, self.operations.as_deref().unwrap_or_default());
        if let Some(constraints) = &self.constraints {
            constraints.check(checks);
        }
        check_grant_tokens(checks, self.grant_tokens.as_deref());
        check_name(checks, self.name.as_deref());
    }

    /// The condition keys that are about a new grant:
    /// <https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html>.
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        match key {
            "kms:granteeprincipal" => self.grantee_principal.as_deref().map(Values::one),
            "kms:retiringprincipal" => self.retiring_principal.as_deref().map(Values::one),
            "kms:grantoperations" => {
                let names = self.operations.iter().flatten();
                Some(Values::Many(names.map(|name| Cow::Borrowed(name.as_str())).collect()))
            }
            "kms:grantisforawsresource" => Some(Values::truth(false)),
            _ => self.of_constraints(key),
        }
    }
}

fn check_names(checks: &mut Checks, operations: &[String]) {
    if operations.iter().all(|name| OPERATIONS.contains(&name.as_str())) {
        return;
    }
    let shown: String = operations.join(", ").chars().take(256).collect();
    let rule = format!(
        "Member must satisfy constraint: [Member must satisfy enum value set: [{}]]",
        OPERATIONS.join(", ")
    );
    checks.fail(&format!("'[{shown}]'"), "operations", &rule);
}

fn check_name(checks: &mut Checks, name: Option<&str>) {
    checks.length("name", name, 1, 256);
    let fits = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":/_-".contains(&b))
    };
    checks.pattern("name", name, "^[a-zA-Z0-9:/_-]+$", fits);
}

impl CreateGrantInput {
    /// `kms:GrantConstraintType`, and the encryption context that the constraints name.
    fn of_constraints(&self, key: &str) -> Option<Values<'_>> {
        let constraints = self.constraints.as_ref()?;
        if let Some(values) = constraints.fact(key) {
            return Some(values);
        }
        if key == "kms:encryptioncontextkeys" {
            let names: Vec<_> = constraints.pairs().map(|(n, _)| Cow::Borrowed(&**n)).collect();
            return (!names.is_empty()).then_some(Values::Many(names));
        }
        let wanted = key.strip_prefix("kms:encryptioncontext:")?;
        let found = constraints.pairs().find(|(name, _)| name.to_lowercase() == wanted);
        found.map(|(_, value)| Values::one(value))
    }

    /// What the new grant is to allow.
    fn terms(&self) -> Result<(Vec<String>, Constraints)> {
        no_service([&self.grantee_service_principal, &self.retiring_service_principal])?;
        if self.grantee_principal.is_none() {
            let text = "Either GranteePrincipal or GranteeServicePrincipal must be specified.";
            return Err(Error::new(Condition::Validation, text));
        }
        let operations = check_operations(given(&self.operations, "operations")?)?;
        let constraints = self.constraints.as_ref().map(ConstraintsShape::read).transpose()?;
        Ok((operations, constraints.unwrap_or_default()))
    }
}

/// A KMS key with the grant that is to be made on it.
pub struct Proposed {
    key: KeyTarget,
    operations: Vec<String>,
    constraints: Constraints,
}

impl Target for Proposed {
    fn arn(&self) -> &str {
        self.key.arn()
    }
    fn owner(&self) -> &str {
        self.key.owner()
    }
    fn policy(&self) -> Result<OwnPolicy> {
        self.key.policy()
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        self.key.fact(call, key)
    }
    /// By a grant one may make grants that allow no more than it does.
    fn granted(&self, call: &Call, request: &Request<'_>) -> Result<Option<String>> {
        let Ok(key) = self.key.key() else { return Ok(None) };
        held::granted(call, &key.id, request, &|grant| self.is_within(grant))
    }
}

impl Proposed {
    fn is_within(&self, grant: &Grant) -> bool {
        self.operations.iter().all(|name| grant.operations.contains(name))
            && at_least_as_strict(&self.constraints, &grant.constraints)
    }
}

/// What [`CreateGrant`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateGrantOutput {
    grant_token: String,
    grant_id: String,
}

impl Operation for CreateGrant {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "CreateGrant";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}/grants" };
    type Input = CreateGrantInput;
    type Target = Proposed;
    type Output = CreateGrantOutput;

    async fn locate(call: &Call, input: &CreateGrantInput) -> Result<Proposed> {
        token::check(call, input.grant_tokens.as_deref())?;
        let (operations, constraints) = input.terms()?;
        let key = locate_key(call, given(&input.key_id, "keyId")?)?;
        Ok(Proposed { key, operations, constraints })
    }

    async fn run(
        call: &Call,
        target: Allowed<Proposed>,
        input: CreateGrantInput,
    ) -> Result<CreateGrantOutput> {
        let new = drafted(call, target.into_inner(), &input)?;
        unless_dry(input.dry_run)?;
        if let Some(known) = call.records.read(|rows| same(rows, &new))? {
            return answer(call, &known);
        }
        let output = answer(call, &new)?;
        let region = call.region.clone();
        call.commit(move |rows| make(rows, &region, &new)).await?;
        Ok(output)
    }
}

/// The answer that tells of a grant, noted for the audit record, which leaves the token out.
fn answer(call: &Call, grant: &Grant) -> Result<CreateGrantOutput> {
    let grant_token = token::issue(call, grant)?;
    let output = CreateGrantOutput { grant_token, grant_id: grant.id.clone() };
    call.answering(&output)?;
    Ok(output)
}

/// The grant as it will stand, its principals found and its key fit for use.
fn drafted(call: &Call, target: Proposed, input: &CreateGrantInput) -> Result<Grant> {
    let key = target.key.customers(call)?;
    usable(key.state, target.key.arn())?;
    let grantee = find(&call.records, given(&input.grantee_principal, "granteePrincipal")?)?;
    let retiring = input.retiring_principal.as_ref();
    let id: [u8; 32] = random_bytes(&*call.world.random)?;
    Ok(Grant {
        id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        key: key.id.clone(),
        account: key.account.clone(),
        issuer: call.caller.account.clone(),
        name: input.name.clone(),
        created: call.now,
        grantee,
        retiring: retiring.map(|arn| find(&call.records, arn)).transpose()?,
        operations: target.operations,
        constraints: target.constraints,
    })
}

/// The grant of the same name and terms that is there already: AWS takes that for a request that is
/// sent again.
fn same(rows: &mut Rows<'_>, new: &Grant) -> Result<Option<Grant>> {
    let Some(name) = &new.name else { return Ok(None) };
    let known = rows.grants_named(&new.key, name)?;
    Ok(known.into_iter().find(|grant| is_same(grant, new)))
}

fn make(rows: &mut Rows<'_>, region: &str, new: &Grant) -> Result<()> {
    let arn = crate::name::key_arn(region, &new.account, &new.key);
    let gone = || Error::new(Condition::NotFound, format!("Key '{arn}' does not exist"));
    usable(rows.key(&new.key)?.ok_or_else(gone)?.state, &arn)?;
    if same(rows, new)?.is_some() {
        // The record names another grant already; the same request again finds this one.
        return Err(Error::new(Condition::Throttled, "Rate exceeded")
            .logged("the same grant was made at the same moment"));
    }
    if rows.count_grants(&new.key)? >= MOST_PER_KEY {
        let text = format!("{arn} has {MOST_PER_KEY} grants, the most that a KMS key can have");
        return Err(Error::new(Condition::LimitExceeded, text));
    }
    Ok(rows.put_grant(new)?)
}

/// Whether two grants differ in no more than their ids and when they were made.
fn is_same(one: &Grant, other: &Grant) -> bool {
    let operations = |grant: &Grant| grant.operations.iter().cloned().collect::<BTreeSet<_>>();
    let like_one = Grant {
        id: one.id.clone(),
        created: one.created,
        operations: one.operations.clone(),
        ..other.clone()
    };
    like_one == *one && operations(one) == operations(other)
}

#[cfg(test)]
mod tests {
    use super::super::terms::tests::{grant, subset};
    use super::*;
    use crate::ops::shape::decode;

    fn input(json: &str) -> CreateGrantInput {
        decode(json.as_bytes()).expect("decodes")
    }

    #[test]
    fn a_request_that_is_sent_again_is_told_by_its_terms() {
        let made = grant(&["Decrypt", "Encrypt"]);
        let again = Grant {
            id: "1b".repeat(32),
            created: crate::clock::Time(7),
            ..grant(&["Encrypt", "Decrypt"])
        };
        assert!(is_same(&made, &again));
        assert!(!is_same(&made, &grant(&["Decrypt"])));
        assert!(!is_same(&made, &Grant { constraints: subset(&[("a", "1")]), ..again.clone() }));
        assert!(!is_same(&made, &Grant { retiring: Some(made.grantee.clone()), ..again }));
    }

    #[test]
    fn condition_keys_tell_of_the_new_grant() {
        let input = input(
            r#"{"GranteePrincipal": "arn:g", "RetiringPrincipal": "arn:r",
                "Operations": ["Decrypt", "Encrypt"],
                "Constraints": {"EncryptionContextSubset": {"Dept": "IT"}}}"#,
        );
        let one = |key: &str, value: &'static str| {
            assert_eq!(input.fact(key), Some(Values::one(value)), "{key}");
        };
        one("kms:granteeprincipal", "arn:g");
        one("kms:retiringprincipal", "arn:r");
        one("kms:grantconstrainttype", "EncryptionContextSubset");
        one("kms:grantisforawsresource", "false");
        one("kms:encryptioncontext:dept", "IT");
        let many = |names: &[&'static str]| {
            Some(Values::Many(names.iter().map(|&name| Cow::Borrowed(name)).collect()))
        };
        assert_eq!(input.fact("kms:grantoperations"), many(&["Decrypt", "Encrypt"]));
        assert_eq!(input.fact("kms:encryptioncontextkeys"), many(&["Dept"]));
        assert_eq!(input.fact("kms:grantconstraintsourcearn"), None);
        assert_eq!(input.fact("kms:encryptioncontext:other"), None);
    }

    #[test]
    fn a_grant_needs_a_grantee_and_no_service() {
        let terms = |json: &str| input(json).terms().map_err(|error| error.condition);
        assert!(terms(r#"{"GranteePrincipal": "a", "Operations": ["Decrypt"]}"#).is_ok());
        for bad in [
            r#"{"Operations": ["Decrypt"]}"#,
            r#"{"GranteePrincipal": "a", "Operations": []}"#,
            r#"{"GranteeServicePrincipal": "a.b.c", "Operations": ["Decrypt"]}"#,
        ] {
            assert_eq!(terms(bad).expect_err(bad), Condition::Validation);
        }
    }
}
