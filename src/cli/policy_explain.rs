//! `strongroom policy explain`.

use super::remote::Remote;
use super::runtime;
use crate::audit::index::whole_lines;
use crate::name::Service;
use crate::ops::trail::explanation::{Decided, Explanation, Outcome, Standing, State};
use crate::server::Error;
use clap::Args;
use http::Method;
use std::fmt::{self, Display, Formatter, Write as _};
use std::path::{Path, PathBuf};

/// Say which statement of which policy decided a request.
#[derive(Args)]
pub(super) struct Explain {
    /// The id of the request, as its caller was told it (x-amzn-requestid), or of its event.
    request_id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Read a copied audit log instead of asking the appliance; it does not tell how the policies
    /// stand now.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

impl Explain {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    pub(super) fn run(self) -> Result<(), Error> {
        let hyphens = |b: u8| b.is_ascii_hexdigit() || b == b'-';
        if self.request_id.len() != 36 || !self.request_id.bytes().all(hyphens) {
            let text = format!("`{}` is no id of a request: 36 characters", self.request_id);
            return Err(Error::Remote(text));
        }
        let explanation = match &self.log {
            Some(log) => in_log(log, &self.request_id)?,
            None => {
                let path = format!("/audit/requests/{}", self.request_id);
                let asking = self.remote.ask(Service::Iam, Method::GET, &path, None);
                runtime()?.block_on(asking)?
            }
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&explanation).unwrap_or_default());
        } else {
            print!("{}", Plain(&explanation));
        }
        Ok(())
    }
}

/// Looks for a request in a copied log, from its start.
fn in_log(log: &Path, id: &str) -> Result<Explanation, Error> {
    let mut found = None;
    let mut look = |line: &[u8]| {
        // Most lines are not the one: what is cheap comes first.
        let may_be = line.windows(id.len()).any(|part| part.eq_ignore_ascii_case(id.as_bytes()));
        found = may_be.then(|| Explanation::of_record(line)).flatten().filter(|e| e.is_of(id));
        found.is_none()
    };
    whole_lines(log, &mut look)?;
    found.ok_or_else(|| Error::Remote(format!("`{}` has no request {id}", log.display())))
}

/// An explanation for people.
struct Plain<'a>(&'a Explanation);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let told = self.0;
        writeln!(f, "Request    {}", told.request_id)?;
        writeln!(f, "Time       {}", told.event_time)?;
        writeln!(f, "Operation  {} ({})", told.event_name, told.event_source)?;
        writeln!(f, "Caller     {}", caller(told))?;
        writeln!(f, "Outcome    {}", outcome(told))?;
        if let Some(text) = told.error_message.as_deref().filter(|text| !text.is_empty()) {
            writeln!(f, "           {text}")?;
        }
        if told.decisions.is_empty() && told.outcome == Outcome::Done {
            writeln!(
                f,
                "\nNo policy was asked: nobody needs a right for this, or the appliance did it."
            )?;
        }
        for (at, decided) in told.decisions.iter().enumerate() {
            writeln!(f)?;
            decision(f, at + 1, decided)?;
        }
        Ok(())
    }
}

fn caller(told: &Explanation) -> String {
    let principal = &told.principal;
    let mut text = principal.arn.clone().unwrap_or_else(|| "not proved".to_owned());
    if let Some(key) = &principal.access_key_id {
        text = format!("{text}, access key {key}");
    }
    match &told.source_ip_address {
        Some(address) => format!("{text}, from {address}"),
        None => text,
    }
}

fn outcome(told: &Explanation) -> String {
    let code = told.error_code.as_deref().unwrap_or_default();
    match told.outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Denied => format!("denied ({code})"),
        Outcome::Failed => format!("allowed, and failed ({code})"),
        Outcome::Undecided => format!("refused before any policy was asked ({code})"),
    }
}

fn decision(f: &mut Formatter<'_>, number: usize, decided: &Decided) -> fmt::Result {
    let effect = match decided.effect.as_str() {
        "Allow" => "ALLOWED",
        "ExplicitDeny" => "DENIED",
        _ => "NOT ALLOWED",
    };
    writeln!(f, "{number}. {effect}  {} on {}", decided.action, decided.resource)?;
    writeln!(f, "   {}", reason(decided))?;
    for asked in &decided.asked {
        let mark = if asked.lacking { "no statement allows it" } else { "asked as well" };
        let names = match asked.policies.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        writeln!(f, "     {}: {mark} (now: {names})", asked.kind)?;
    }
    for standing in &decided.now {
        now(f, decided, standing)?;
    }
    Ok(())
}

/// What decided, in one line.
fn reason(decided: &Decided) -> String {
    let kind = decided.kind.as_deref().unwrap_or("policy");
    if let Some(grant) = &decided.grant_id {
        return format!("by grant {grant}");
    }
    let Some(policy) = &decided.policy else {
        return match decided.effect.as_str() {
            "Allow" => "by right: this caller needs no policy".to_owned(),
            _ => format!("because no {kind} allows it"),
        };
    };
    let mut text = format!("by statement {}", decided.statement_number.unwrap_or(0));
    if let Some(sid) = &decided.sid {
        let _never_fails = write!(text, " (Sid {sid})");
    }
    format!("{text} of the {kind} {policy}")
}

/// How the policy stands now.
fn now(f: &mut Formatter<'_>, decided: &Decided, standing: &Standing) -> fmt::Result {
    let several = decided.now.len() > 1;
    let on = if several { format!(" on {}", standing.holder) } else { String::new() };
    let state = match standing.state {
        State::Unchanged => "unchanged since; it says",
        State::Changed => "CHANGED since; this statement says now",
        State::Detached => "no longer attached to the caller; it says",
        State::Gone => "no longer there",
        State::Unknown => "maybe changed since (too many changes are on record); it says now",
    };
    writeln!(
        f,
        "   The policy{on} is {state}{}",
        if standing.statement.is_some() { ":" } else { "." }
    )?;
    if let Some(change) = &standing.last_change {
        let (what, when, who) = (&change.event_name, &change.event_time, &change.principal_arn);
        writeln!(f, "   (last change: {what} at {when} by {who})")?;
    }
    let Some(statement) = &standing.statement else { return Ok(()) };
    let text = serde_json::to_string_pretty(statement).unwrap_or_default();
    text.lines().try_for_each(|line| writeln!(f, "     {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::trail::explanation::{Asked, Change};
    use serde_json::json;

    fn denied() -> Explanation {
        let record = json!({
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/eve",
                "accessKeyId": "AKIAX"},
            "eventTime": "2026-01-01T00:00:00.000Z",
            "eventSource": "kms.amazonaws.com",
            "eventName": "Decrypt",
            "sourceIPAddress": "10.0.0.7",
            "errorCode": "AccessDeniedException",
            "errorMessage": "User: eve is not authorized",
            "additionalEventData": {"decisions": [{"action": "kms:Decrypt", "resource": "k",
                "effect": "ExplicitDeny", "source": "identity-based policy", "policy": "limits",
                "statement": 1, "sid": "NoProd"}]},
            "requestID": "11111111-2222-4333-8444-555555555555",
            "eventID": "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
        });
        Explanation::of_record(&serde_json::to_vec(&record).expect("JSON")).expect("a record")
    }

    #[test]
    fn a_denial_reads_from_who_to_the_statement_as_it_stands_now() {
        let mut told = denied();
        told.decisions[0].now.push(Standing {
            holder: "arn:aws:iam::111122223333:user/eve".into(),
            state: State::Changed,
            statement: Some(json!({"Effect": "Deny"})),
            last_change: Some(Change {
                event_id: "e".into(),
                event_name: "PutUserPolicy".into(),
                event_time: "2026-01-02T00:00:00.000Z".into(),
                principal_arn: "arn:aws:iam::111122223333:user/admin".into(),
            }),
        });
        let text = Plain(&told).to_string();
        assert_eq!(
            text,
            "Request    11111111-2222-4333-8444-555555555555\n\
             Time       2026-01-01T00:00:00.000Z\n\
             Operation  Decrypt (kms.amazonaws.com)\n\
             Caller     arn:aws:iam::111122223333:user/eve, access key AKIAX, from 10.0.0.7\n\
             Outcome    denied (AccessDeniedException)\n           User: eve is not authorized\n\n\
             1. DENIED  kms:Decrypt on k\n   \
             by statement 2 (Sid NoProd) of the identity-based policy limits\n   \
             The policy is CHANGED since; this statement says now:\n   \
             (last change: PutUserPolicy at 2026-01-02T00:00:00.000Z by \
             arn:aws:iam::111122223333:user/admin)\n     \
             {\n       \"Effect\": \"Deny\"\n     }\n"
        );
    }

    #[test]
    fn an_implicit_denial_lists_the_kinds_that_were_asked() {
        let mut told = denied();
        told.decisions[0] = Decided {
            action: "kms:Decrypt".into(),
            resource: "k".into(),
            effect: "ImplicitDeny".into(),
            kind: Some("permissions boundary".into()),
            asked: vec![
                Asked { kind: "identity-based policy".into(), lacking: false, policies: vec![] },
                Asked {
                    kind: "permissions boundary".into(),
                    lacking: true,
                    policies: vec!["b".into()],
                },
            ],
            ..Decided::default()
        };
        let text = Plain(&told).to_string();
        assert!(text.ends_with(
            "1. NOT ALLOWED  kms:Decrypt on k\n   because no permissions boundary allows it\n     \
             identity-based policy: asked as well (now: none)\n     \
             permissions boundary: no statement allows it (now: b)\n"
        ));
    }

    #[test]
    fn a_copied_log_is_searched_for_the_request_or_the_event() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = dir.path().join("audit.jsonl");
        let other = r#"{"requestID":"00000000-2222-4333-8444-555555555555"}"#;
        let record = json!({"eventTime": "t", "eventSource": "s", "eventName": "n",
            "requestID": "11111111-2222-4333-8444-555555555555",
            "eventID": "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"});
        std::fs::write(&log, format!("{other}\n{record}\n{other}\n")).expect("written");
        for id in ["11111111-2222-4333-8444-555555555555", "AAAAAAAA-bbbb-4ccc-8ddd-eeeeeeeeeeee"] {
            assert_eq!(in_log(&log, id).expect("there").event_name, "n");
        }
        assert!(in_log(&log, "22222222-2222-4333-8444-555555555555").is_err());
    }
}
