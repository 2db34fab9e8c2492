//! What a grant may allow and under which constraints:
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_GrantConstraints.html>.

use crate::ops::error::{Condition, Error, Result};
use crate::ops::keys::facts::CONTEXT;
use crate::ops::shape::Checks;
use crate::policy::{Facts, Values};
use crate::store::grants::Constraints;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Every grant operation of the API; their IAM actions have the same names.
pub(super) const OPERATIONS: [&str; 19] = [
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
    "Sign",
    "Verify",
    "GetPublicKey",
    CREATE,
    RETIRE,
    "DescribeKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "VerifyMac",
    "DeriveSharedSecret",
    "Encapsulate",
    "Decapsulate",
];
/// The grant operation that makes further grants.
pub(super) const CREATE: &str = "CreateGrant";
/// The grant operation that lets the grantee end the grant.
pub(super) const RETIRE: &str = "RetireGrant";

/// Operations that symmetric encryption keys have and that take an encryption context.
const WITH_CONTEXT: [&str; 8] = [
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
];
/// Operations that every key has.
const OF_EVERY_KEY: [&str; 3] = [CREATE, RETIRE, "DescribeKey"];

/// Pairs that one constraint may have.
const MOST_PAIRS: usize = 8;
/// Characters that the names and values of one constraint may have together.
const MOST_CHARACTERS: usize = 384;

/// `Constraints` in requests and answers.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ConstraintsShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_context_subset: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_context_equals: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_arn: Option<String>,
}

impl ConstraintsShape {
    /// The service model's bounds.
    pub(super) fn check(&self, checks: &mut Checks) {
        let (name, arn) = ("constraints.sourceArn", self.source_arn.as_deref());
        checks.length(name, arn, 20, 512);
        let pattern = "^arn:aws[a-z0-9-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:.+$";
        checks.pattern(name, arn, pattern, is_source_arn);
    }

    /// The constraints that a request asks for. An empty map is none.
    pub(super) fn read(&self) -> Result<Constraints> {
        let pairs = |map: &Option<BTreeMap<String, String>>| map.clone().unwrap_or_default();
        let subset = pairs(&self.encryption_context_subset);
        let equals = pairs(&self.encryption_context_equals);
        check_pairs(&subset)?;
        check_pairs(&equals)?;
        Ok(Constraints { subset, equals, source_arn: self.source_arn.clone() })
    }

    /// A grant's constraints in an answer; nothing where it has none.
    pub(super) fn of(constraints: Constraints) -> Option<Self> {
        let some = |map: BTreeMap<String, String>| (!map.is_empty()).then_some(map);
        (constraints != Constraints::default()).then(|| Self {
            encryption_context_subset: some(constraints.subset),
            encryption_context_equals: some(constraints.equals),
            source_arn: constraints.source_arn,
        })
    }

    /// The pairs of both context constraints, for `kms:EncryptionContext:NAME` of CreateGrant.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&String, &String)> {
        let both = [&self.encryption_context_subset, &self.encryption_context_equals];
        both.into_iter().flatten().flatten()
    }

    /// `kms:GrantConstraintType` and `kms:GrantConstraintSourceArn`.
    pub(super) fn fact(&self, key: &str) -> Option<Values<'_>> {
        match key {
            "kms:grantconstraintsourcearn" => self.source_arn.as_deref().map(Values::one),
            "kms:grantconstrainttype" => self.kinds(),
            _ => None,
        }
    }

    fn kinds(&self) -> Option<Values<'_>> {
        let pairs = |map: &Option<BTreeMap<_, _>>| map.as_ref().is_some_and(|m| !m.is_empty());
        let kinds = [
            (pairs(&self.encryption_context_equals), "EncryptionContextEquals"),
            (pairs(&self.encryption_context_subset), "EncryptionContextSubset"),
            (self.source_arn.is_some(), "SourceArn"),
        ];
        let mut named = kinds.iter().filter(|(there, _)| *there).map(|(_, kind)| *kind);
        match (named.next(), named.next()) {
            (Some(kind), None) => Some(Values::one(kind)),
            (Some(one), Some(two)) => {
                let all = [one, two].into_iter().chain(named).map(Cow::Borrowed);
                Some(Values::Many(all.collect()))
            }
            (None, _) => None,
        }
    }
}

fn is_source_arn(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let lower =
        |p: &str| p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let mut next = |fits: &dyn Fn(&str) -> bool| parts.next().is_some_and(fits);
    next(&|p| p == "arn")
        && next(&|p| p.strip_prefix("aws").is_some_and(lower))
        && next(&|p| !p.is_empty() && lower(p))
        && next(&lower)
        && next(&crate::name::is_account)
        && next(&|p| !p.is_empty() && !p.contains('\n'))
}

fn check_pairs(pairs: &BTreeMap<String, String>) -> Result<()> {
    let length: usize = pairs.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
    if pairs.len() <= MOST_PAIRS && length <= MOST_CHARACTERS {
        return Ok(());
    }
    let text = format!(
        "A grant constraint has at most {MOST_PAIRS} encryption context pairs, of {MOST_CHARACTERS} \
         characters together."
    );
    Err(Error::new(Condition::Validation, text))
}

/// Refuses a list of operations that is none, or none for a symmetric encryption key.
pub(super) fn check_operations(operations: &[String]) -> Result<Vec<String>> {
    if operations.is_empty() {
        let text = "A grant needs at least one operation.";
        return Err(Error::new(Condition::Validation, text));
    }
    let mut checked: Vec<String> = Vec::new();
    for operation in operations {
        let name = operation.as_str();
        if !WITH_CONTEXT.contains(&name) && !OF_EVERY_KEY.contains(&name) {
            let text = format!(
                "Invalid operation: {name} is not supported by KMS keys with key spec \
                 SYMMETRIC_DEFAULT."
            );
            return Err(Error::new(Condition::Validation, text));
        }
        if !checked.contains(operation) {
            checked.push(operation.clone());
        }
    }
    Ok(checked)
}

/// Whether constraints let a request do `operation`. Those on the encryption context are for
/// operations that take one; CreateGrant's are the new grant's to meet ([`at_least_as_strict`]).
pub(super) fn hold(constraints: &Constraints, operation: &str, facts: &dyn Facts) -> bool {
    let source = constraints.source_arn.as_deref();
    let asked = || facts.fact("aws:sourcearn");
    if source.is_some_and(|arn| asked() != Some(Values::one(arn))) {
        return false;
    }
    let (subset, equals) = (&constraints.subset, &constraints.equals);
    if !WITH_CONTEXT.contains(&operation) || (subset.is_empty() && equals.is_empty()) {
        return true;
    }
    let flat = match facts.fact(CONTEXT) {
        Some(Values::Many(flat)) => flat,
        Some(Values::One(_)) | None => Vec::new(),
    };
    let context: Vec<(&str, &str)> = flat.as_chunks().0.iter().map(|[n, v]| (&**n, &**v)).collect();
    within(&pairs(subset), &context) && (equals.is_empty() || same(&pairs(equals), &context))
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Whether each of `few` is among `many`. As AWS documents it, letter case counts in the value and not
/// in the name.
fn within(few: &[(&str, &str)], many: &[(&str, &str)]) -> bool {
    let same_name = |a: &str, b: &str| a == b || a.to_lowercase() == b.to_lowercase();
    few.iter().all(|(name, value)| many.iter().any(|(n, v)| v == value && same_name(n, name)))
}

fn same(one: &[(&str, &str)], other: &[(&str, &str)]) -> bool {
    one.len() == other.len() && within(one, other) && within(other, one)
}

/// Whether a grant with the constraints `new` allows no more than one with `old`: who may make grants
/// by a grant may hand on what it has, and no more
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/create-grant-overview.html#grant-creategrant>).
pub(super) fn at_least_as_strict(new: &Constraints, old: &Constraints) -> bool {
    let (subset, equals) = (pairs(&new.subset), pairs(&new.equals));
    let old_equals = pairs(&old.equals);
    let wanted = pairs(&old.subset);
    (old.source_arn.is_none() || old.source_arn == new.source_arn)
        && (old_equals.is_empty() || same(&old_equals, &equals))
        && (within(&wanted, &subset) || within(&wanted, &equals))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::ops::keys::facts::of_context;
    use crate::store::grants::{Grant, Holder};

    /// A grant of user bob's, without constraints.
    pub(in crate::ops::keys::grants) fn grant(operations: &[&str]) -> Grant {
        let arn = "arn:aws:iam::111122223333:user/bob".to_owned();
        Grant {
            id: "0a".repeat(32),
            key: "1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(),
            account: "111122223333".to_owned(),
            issuer: "111122223333".to_owned(),
            name: None,
            created: Time(0),
            grantee: Holder { arn, id: "AIDA1".to_owned() },
            retiring: None,
            operations: operations.iter().map(|&name| name.to_owned()).collect(),
            constraints: Constraints::default(),
        }
    }

    fn map(text: &[(&str, &str)]) -> BTreeMap<String, String> {
        text.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(in crate::ops::keys::grants) fn subset(pairs: &[(&str, &str)]) -> Constraints {
        Constraints { subset: map(pairs), ..Constraints::default() }
    }

    fn equals(pairs: &[(&str, &str)]) -> Constraints {
        Constraints { equals: map(pairs), ..Constraints::default() }
    }

    /// A request with an encryption context, on behalf of a resource.
    pub(in crate::ops::keys::grants) struct Asked(
        pub(in crate::ops::keys::grants) BTreeMap<String, String>,
        pub(in crate::ops::keys::grants) Option<&'static str>,
    );

    impl Facts for Asked {
        fn fact(&self, key: &str) -> Option<Values<'_>> {
            if key == "aws:sourcearn" {
                return self.1.map(Values::one);
            }
            of_context(&self.0, key)
        }
    }

    fn lets(constraints: &Constraints, context: &[(&str, &str)]) -> bool {
        hold(constraints, "Decrypt", &Asked(map(context), None))
    }

    #[test]
    fn a_subset_must_be_in_the_context_and_equals_must_be_all_of_it() {
        let both = [("a", "1"), ("b", "2")];
        for constraints in [subset(&[("a", "1")]), equals(&[("a", "1")])] {
            assert!(lets(&constraints, &[("a", "1")]));
            assert!(!lets(&constraints, &[("a", "2")]));
            assert!(!lets(&constraints, &[("b", "1")]));
            assert!(!lets(&constraints, &[]));
        }
        assert!(lets(&subset(&[("a", "1")]), &both));
        assert!(!lets(&equals(&[("a", "1")]), &both));
        assert!(!lets(&equals(&both), &[("a", "1")]));
        assert!(lets(&equals(&both), &both));
        assert!(lets(&Constraints::default(), &both) && lets(&Constraints::default(), &[]));
    }

    #[test]
    fn letter_case_counts_in_a_value_and_not_in_a_name() {
        for constraints in [subset(&[("Dept", "IT")]), equals(&[("Dept", "IT")])] {
            assert!(lets(&constraints, &[("dept", "IT")]));
            assert!(!lets(&constraints, &[("Dept", "it")]));
        }
        // Two names of a context that differ by case are two pairs, and one of them is too many.
        assert!(!lets(&equals(&[("Dept", "IT")]), &[("dept", "IT"), ("Dept", "IT")]));
        assert!(!lets(&equals(&[("Dept", "IT")]), &[("dept", "HR"), ("Dept", "IT")]));
    }

    #[test]
    fn a_context_constrains_only_operations_that_take_one() {
        let nothing = Asked(map(&[]), None);
        let constraints = subset(&[("a", "1")]);
        for operation in ["DescribeKey", "CreateGrant", "RetireGrant"] {
            assert!(hold(&constraints, operation, &nothing), "{operation}");
        }
        for operation in WITH_CONTEXT {
            assert!(!hold(&constraints, operation, &nothing), "{operation}");
        }
    }

    #[test]
    fn a_source_must_be_the_request_s_own() {
        const ARN: &str = "arn:aws:s3:::111122223333:bucket";
        let constraints = Constraints { source_arn: Some(ARN.into()), ..Constraints::default() };
        for operation in ["Decrypt", "DescribeKey"] {
            assert!(hold(&constraints, operation, &Asked(map(&[]), Some(ARN))));
            assert!(!hold(&constraints, operation, &Asked(map(&[]), Some("arn:aws:s3:::x"))));
            assert!(!hold(&constraints, operation, &Asked(map(&[]), None)));
        }
    }

    #[test]
    fn a_grant_by_grant_may_be_stricter_and_never_wider() {
        let (a, ab) = ([("a", "1")], [("a", "1"), ("b", "2")]);
        let none = Constraints::default();
        for new in [subset(&a), subset(&ab), equals(&a), equals(&ab)] {
            assert!(at_least_as_strict(&new, &none));
            assert!(at_least_as_strict(&new, &subset(&a)));
        }
        for new in [none.clone(), subset(&[("a", "2")]), equals(&[("b", "2")])] {
            assert!(!at_least_as_strict(&new, &subset(&a)));
        }
        assert!(!at_least_as_strict(&subset(&a), &subset(&ab)));
        assert!(at_least_as_strict(&equals(&ab), &equals(&ab)));
        for new in [none.clone(), subset(&ab), equals(&a)] {
            assert!(!at_least_as_strict(&new, &equals(&ab)));
        }
        let of = |arn: &str| Constraints { source_arn: Some(arn.into()), ..none.clone() };
        assert!(at_least_as_strict(&of("x"), &of("x")) && at_least_as_strict(&of("x"), &none));
        assert!(!at_least_as_strict(&of("y"), &of("x")) && !at_least_as_strict(&none, &of("x")));
    }

    #[test]
    fn operations_must_fit_the_key_and_count_once() {
        let check = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            check_operations(&names)
        };
        assert_eq!(check(&["Decrypt", "DescribeKey", "Decrypt"]).expect("good").len(), 2);
        for bad in [&[][..], &["Sign"], &["Decrypt", "GetPublicKey"], &["GenerateMac"]] {
            assert_eq!(check(bad).expect_err("refused").condition, Condition::Validation);
        }
    }

    #[test]
    fn constraints_have_bounds() {
        let long = "x".repeat(383);
        let read = |equals: BTreeMap<String, String>| {
            let shape = ConstraintsShape {
                encryption_context_equals: Some(equals),
                ..ConstraintsShape::default()
            };
            shape.read()
        };
        assert!(read(map(&[("a", &long)])).is_ok());
        assert!(read(map(&[("ab", &long)])).is_err());
        let names: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        let many = |n: usize| names.iter().take(n).map(|n| (n.clone(), n.clone())).collect();
        assert!(read(many(8)).is_ok() && read(many(9)).is_err());
        assert_eq!(read(map(&[])).expect("none"), Constraints::default());
    }

    #[test]
    fn sources_are_arns_with_an_account() {
        assert!(is_source_arn("arn:aws:rds:eu-central-1:111122223333:db:orders"));
        assert!(is_source_arn("arn:aws-cn:iam::111122223333:role/a"));
        for bad in [
            "arn:aws:s3:::bucket",
            "arn:aws:rds:eu-central-1:111122223333:",
            "arn:AWS:rds::111122223333:x",
            "arn:aws::eu-central-1:111122223333:x",
            "x",
        ] {
            assert!(!is_source_arn(bad), "{bad}");
        }
    }
}
