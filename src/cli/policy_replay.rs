//! `strongroom policy replay`.

use super::remote::Remote;
use super::runtime;
use crate::name::Service;
use crate::ops::trail::replayed::{Group, Replayed};
use crate::server::Error;
use clap::{ArgGroup, Args};
use http::Method;
use serde_json::{Value, json};
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

/// Judge the recorded requests of the last days by a proposed policy, and list what it would change.
#[derive(Args)]
#[command(group = ArgGroup::new("place").required(true))]
pub(super) struct Replay {
    /// The proposed policy document.
    #[arg(long, value_name = "FILE")]
    policy_document: PathBuf,
    /// In place of this managed policy.
    #[arg(long, value_name = "ARN", group = "place")]
    policy_arn: Option<String>,
    /// In place of an inline policy of this user.
    #[arg(long, value_name = "NAME", group = "place", requires = "policy_name")]
    user: Option<String>,
    /// In place of an inline policy of this group.
    #[arg(long, value_name = "NAME", group = "place", requires = "policy_name")]
    group: Option<String>,
    /// In place of an inline policy of this role.
    #[arg(long, value_name = "NAME", group = "place", requires = "policy_name")]
    role: Option<String>,
    /// The name of the inline policy; it may be a new one.
    #[arg(long, value_name = "NAME")]
    policy_name: Option<String>,
    /// In place of this KMS key's policy.
    #[arg(long, value_name = "KEY", group = "place")]
    key_id: Option<String>,
    /// In place of this secret's policy.
    #[arg(long, value_name = "SECRET", group = "place")]
    secret_id: Option<String>,
    /// How many days back, 1 to 90.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=90))]
    days: i64,
    /// Records that are replayed at most; the newest come first.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_records: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Replay {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    pub(super) fn run(self) -> Result<(), Error> {
        let document = std::fs::read_to_string(&self.policy_document)
            .map_err(|error| Error::io(&self.policy_document, error))?;
        let replayed = runtime()?.block_on(self.replay(&document))?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&replayed).unwrap_or_default());
        } else {
            print!("{}", Plain { replayed: &replayed, days: self.days });
        }
        Ok(())
    }

    /// Asks for page after page.
    async fn replay(&self, document: &str) -> Result<Replayed, Error> {
        let mut all = Replayed::default();
        loop {
            let left = self.max_records.saturating_sub(all.records);
            let asked = self.input(document, all.next_token.as_deref(), left.min(10_000));
            let path = "/audit/requests:replay";
            let page: Replayed =
                self.remote.ask(Service::Iam, Method::POST, path, Some(&asked)).await?;
            all.add(page);
            if all.next_token.is_none() || all.records >= self.max_records {
                return Ok(all);
            }
        }
    }

    fn input(&self, document: &str, token: Option<&str>, records: u64) -> Value {
        let members = [
            ("PolicyDocument", Some(document)),
            ("PolicyArn", self.policy_arn.as_deref()),
            ("UserName", self.user.as_deref()),
            ("GroupName", self.group.as_deref()),
            ("RoleName", self.role.as_deref()),
            ("PolicyName", self.policy_name.as_deref()),
            ("KeyId", self.key_id.as_deref()),
            ("SecretId", self.secret_id.as_deref()),
            ("NextToken", token),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut input: serde_json::Map<String, Value> =
            given.map(|(name, value)| (name.to_owned(), value.into())).collect();
        input.insert("Days".to_owned(), json!(self.days));
        input.insert("MaxRecords".to_owned(), json!(records.max(1)));
        input.into()
    }
}

/// A replay for people.
struct Plain<'a> {
    replayed: &'a Replayed,
    days: i64,
}

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let told = self.replayed;
        writeln!(f, "In place of   {}", told.policy)?;
        let back = told.back_to.as_deref().map(|time| format!(", back to {time}"));
        let (days, back) = (self.days, back.unwrap_or_default());
        writeln!(f, "Replayed      {} records of the last {days} days{back}", told.records)?;
        writeln!(f, "Concerned     {} decisions", told.decisions)?;
        if told.next_token.is_some() {
            writeln!(f, "              there are older records: raise --max-records")?;
        }
        if told.decided_otherwise_today > 0 {
            let count = told.decided_otherwise_today;
            writeln!(f, "              {count} of them are decided otherwise today already")?;
        }
        section(f, "Would newly fail", &told.newly_denied)?;
        section(f, "Would newly pass", &told.newly_allowed)?;
        section(f, "Can't be judged", &told.not_judged)?;
        if told.newly_denied.is_empty() && told.newly_allowed.is_empty() {
            writeln!(f, "\nNothing that could be judged would be decided otherwise.")?;
        }
        Ok(())
    }
}

fn section(f: &mut Formatter<'_>, title: &str, groups: &[Group]) -> fmt::Result {
    if groups.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}:")?;
    for group in groups {
        writeln!(f, "  {:>7} x  {}", group.count, group.action)?;
        writeln!(f, "             by {}", group.principal_arn)?;
        writeln!(f, "             on {}", group.resource)?;
        writeln!(f, "             {}", group.reason)?;
        writeln!(f, "             for example request {}", group.example_request_id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_reads_as_what_would_fail_and_what_would_pass() {
        let group = Group {
            principal_arn: "arn:aws:iam::111122223333:user/eve".into(),
            action: "kms:Decrypt".into(),
            resource: "k".into(),
            reason: "because no identity-based policy allows the kms:Decrypt action".into(),
            count: 12,
            example_request_id: "r".into(),
        };
        let replayed = Replayed {
            policy: "p".into(),
            records: 100,
            decisions: 12,
            newly_denied: vec![group],
            back_to: Some("2026-01-01T00:00:00.000Z".into()),
            ..Replayed::default()
        };
        let text = Plain { replayed: &replayed, days: 30 }.to_string();
        assert_eq!(
            text,
            "In place of   p\n\
             Replayed      100 records of the last 30 days, back to 2026-01-01T00:00:00.000Z\n\
             Concerned     12 decisions\n\n\
             Would newly fail:\n       12 x  kms:Decrypt\n             \
             by arn:aws:iam::111122223333:user/eve\n             on k\n             \
             because no identity-based policy allows the kms:Decrypt action\n             \
             for example request r\n"
        );
        let nothing = Plain { replayed: &Replayed::default(), days: 7 }.to_string();
        assert!(nothing.ends_with("Nothing that could be judged would be decided otherwise.\n"));
    }
}
