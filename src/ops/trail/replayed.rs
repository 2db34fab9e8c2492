//! What a replay answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a policy would have changed, of one page of records.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Replayed {
    /// What the policy was judged in place of: its ARN, or holder and name.
    pub policy: String,
    /// Records that were looked at.
    pub records: u64,
    /// Decisions in them that the policy has to do with.
    pub decisions: u64,
    /// Of these, those that are decided otherwise today than they were then, whatever the reason.
    pub decided_otherwise_today: u64,
    /// What is allowed today and would be denied.
    pub newly_denied: Vec<Group>,
    /// What is denied today and would be allowed.
    pub newly_allowed: Vec<Group>,
    /// What the records do not tell enough of.
    pub not_judged: Vec<Group>,
    /// When the oldest record that was looked at came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<String>,
    /// Where the replay goes on, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Decisions of one kind.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Group {
    /// The user, or the role behind a session.
    pub principal_arn: String,
    /// The IAM action.
    pub action: String,
    /// The resource's ARN.
    pub resource: String,
    /// Why: in AWS's words for a denial, what is missing for what can't be judged.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// The newest of their requests.
    pub example_request_id: String,
}

impl Group {
    /// Whether both tell of the same.
    fn is_like(&self, other: &Self) -> bool {
        let of = |group: &Self| {
            [&group.principal_arn, &group.action, &group.resource, &group.reason].map(String::clone)
        };
        of(self) == of(other)
    }
}

impl Replayed {
    /// Adds a page of older records.
    pub fn add(&mut self, page: Self) {
        self.records += page.records;
        self.decisions += page.decisions;
        self.decided_otherwise_today += page.decided_otherwise_today;
        for (all, more) in [
            (&mut self.newly_denied, page.newly_denied),
            (&mut self.newly_allowed, page.newly_allowed),
            (&mut self.not_judged, page.not_judged),
        ] {
            for group in more {
                match all.iter_mut().find(|known| known.is_like(&group)) {
                    Some(known) => known.count += group.count,
                    None => all.push(group),
                }
            }
        }
        self.policy = page.policy;
        self.back_to = page.back_to.or(self.back_to.take());
        self.next_token = page.next_token;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(id: &str, reason: &str) -> Replayed {
        let group = Group {
            principal_arn: "p".into(),
            action: "a".into(),
            resource: "r".into(),
            reason: reason.into(),
            count: 2,
            example_request_id: id.into(),
        };
        Replayed { records: 5, newly_denied: vec![group], ..Replayed::default() }
    }

    #[test]
    fn pages_add_up_group_by_group_and_the_newest_example_stays() {
        let mut all = Replayed::default();
        for (id, reason) in [("1", "x"), ("2", "x"), ("3", "y")] {
            all.add(page(id, reason));
        }
        let groups: Vec<_> = all
            .newly_denied
            .iter()
            .map(|g| (g.reason.as_str(), g.count, g.example_request_id.as_str()))
            .collect();
        assert_eq!(groups, [("x", 4, "1"), ("y", 2, "3")]);
        assert_eq!(all.records, 15);
    }
}
