//! What a decision costs, against one HMAC-SHA-256 of 64 bytes in the same run, and whether it
//! grows with the number of other principals. Run with `cargo bench --bench policy`.
//!
//! The caller has 10 policies of 2 KiB, the last of which allows. Of `mixed` ones two speak of
//! the request's service, as of a real application's; of `same` ones all do, every statement.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use aws_lc_rs::hmac;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom::policy::document::{Kind, parse};
use strongroom::policy::facts::NoFacts;
use strongroom::policy::{Caller, Decision, OfResource, Policies, Policy, Request, decide};

const ACCOUNT: &str = "111122223333";
const SECRET: &str = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:team/db-AbCdEf";
const ACTION: &str = "secretsmanager:GetSecretValue";
const KIBIBYTES: usize = 2048;

/// A policy of about 2 KiB whose statements speak of these services by turns.
fn policy(services: &[&str], number: usize, last: &str) -> Arc<Policy> {
    let mut statements = Vec::new();
    let mut length = 0;
    for n in 0.. {
        let service = services.get(n % services.len()).expect("a service");
        let statement = format!(
            r#"{{"Effect":"Allow","Action":["{service}:GetRandomPassword","{service}:Describe*",
            "{service}:ListThing{n}","{service}:UpdateThing{n}","{service}:Get*Thing{n}"],
            "Resource":["arn:aws:{service}:*:{ACCOUNT}:thing/team-{number}/*",
            "arn:aws:{service}:eu-*-1:{ACCOUNT}:thing/{n}-??????"]}}"#
        );
        length += statement.len();
        if length > KIBIBYTES {
            break;
        }
        statements.push(statement);
    }
    let text =
        format!(r#"{{"Version":"2012-10-17","Statement":[{}{last}]}}"#, statements.join(","));
    let document = parse(&text, Kind::Identity).expect("a policy");
    Arc::new(Policy::compile(format!("policy-{number}"), document))
}

const ALLOWS: &str = r#",{"Effect":"Allow","Action":"secretsmanager:GetSecretValue",
    "Resource":"arn:aws:secretsmanager:*:111122223333:secret:team/*"}"#;

fn policies(services: &[&[&str]]) -> Vec<Arc<Policy>> {
    let last = |n: usize| if n == 9 { ALLOWS } else { "" };
    let services = |n: usize| services.get(n % services.len()).expect("services");
    (0..10).map(|n| policy(services(n), n, last(n))).collect()
}

fn mixed() -> Vec<Arc<Policy>> {
    policies(&[&["s3", "dynamodb"], &["ec2"], &["logs", "sqs"], &["secretsmanager"], &["kms"]])
}

fn same() -> Vec<Arc<Policy>> {
    policies(&[&["secretsmanager"]])
}

/// CPU time of the calling thread so far (proc_pid_schedstat: nanoseconds on a processor), which a
/// busy machine disturbs less than it does the clock.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let spent = stat.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(spent.expect("a number"))
}

/// Nanoseconds of CPU time that one call takes: the best of five rounds.
fn nanoseconds(mut call: impl FnMut()) -> f64 {
    const ROUND: Duration = Duration::from_millis(200);
    let round = |call: &mut dyn FnMut()| {
        let (begin, cpu, mut calls) = (Instant::now(), thread_cpu(), 0_u32);
        while begin.elapsed() < ROUND {
            (0..1000).for_each(|_| call());
            calls += 1000;
        }
        (thread_cpu() - cpu).as_secs_f64() * 1e9 / f64::from(calls)
    };
    (0..5).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min)
}

fn decision(identity: &[Arc<Policy>]) -> f64 {
    let arn = format!("arn:aws:iam::{ACCOUNT}:user/ada");
    let caller = Caller::user(ACCOUNT, &arn, "AIDAEXAMPLE");
    nanoseconds(|| {
        let request = Request {
            caller: &caller,
            action: black_box(ACTION),
            resource: black_box(SECRET),
            owner: ACCOUNT,
            facts: &NoFacts,
        };
        let policies = Policies { identity, boundary: None, resource: OfResource::Adds(None) };
        assert!(matches!(black_box(decide(&request, &policies)), Decision::Allow(_)));
    })
}

fn main() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let mac = nanoseconds(|| {
        black_box(hmac::sign(&key, black_box(&[1; 64])));
    });
    println!("HMAC-SHA-256 of 64 bytes: {mac:.0} ns");
    let mut others: Vec<Vec<Arc<Policy>>> = Vec::new();
    for principals in [1, 1000, 100_000] {
        // The many have a policy each, and the caller's own lie among them.
        others.resize_with(principals - 1, || vec![policy(&["kms"], 0, "")]);
        for (name, identity) in [("mixed", mixed()), ("same", same())] {
            let spent = decision(&identity);
            let ratio = spent / mac;
            println!("{principals} principals, {name}: {spent:.0} ns a decision, {ratio:.2} HMACs");
            others.push(identity);
        }
    }
}
