//! What rotation costs those who read meanwhile: how long GetSecretValue takes while secrets rotate with
//! the password-only function, as many a second as 1,000 in six minutes are, beside how long it takes
//! while none does, in turn in the same run. Clients read all the secrets, those that rotate included.
//! Run with `cargo bench --bench rotation -- 1000` (12 minutes); without a number 250 rotate.
//!
//! Server and load share the machine: compare ratios.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]
#![expect(clippy::indexing_slicing, clippy::string_slice, reason = "a benchmark may panic")]
#![expect(clippy::disallowed_methods, reason = "the server's clock is the system's")]

mod dev;

use dev::{Appliance, Client, on_one_thread};
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Secrets, each of which rotates once at most.
const SECRETS: usize = 1000;
/// How long between two rotations: six minutes by 1,000.
const PAUSE: Duration = Duration::from_millis(360);
/// Rotations in one phase; the phase without them is as long.
const AT_ONCE: usize = 5;
const CLIENTS: [usize; 3] = [1, 4, 16];

fn name(n: usize) -> String {
    format!("s{n}")
}

/// What clients ask, one request for each secret, signed beforehand.
fn reads(appliance: &Appliance) -> Vec<Vec<u8>> {
    let read =
        |n| appliance.request("secretsmanager", "GetSecretValue", &json!({"SecretId": name(n)}));
    (0..SECRETS).map(read).collect()
}

fn create(appliance: &Appliance) {
    on_one_thread(async {
        let mut client = Client::new(&appliance.address).await;
        for n in 0..SECRETS {
            let token = format!("{n:032}");
            let new = json!({
                "Name": name(n), "SecretString": "x".repeat(32), "ClientRequestToken": token
            });
            client.exchange(&appliance.request("secretsmanager", "CreateSecret", &new)).await;
        }
    });
}

/// Asks for the rotation of one secret after the other.
async fn rotate(appliance: &Appliance, which: Range<usize>) {
    let function = "arn:aws:lambda:us-east-1:000000000000:function:strongroom-password";
    let mut client = Client::new(&appliance.address).await;
    let mut ticks = tokio::time::interval(PAUSE);
    for n in which {
        ticks.tick().await;
        let ask = json!({
            "SecretId": name(n), "ClientRequestToken": format!("{n:033}"),
            "RotationLambdaARN": function,
        });
        client.exchange(&appliance.request("secretsmanager", "RotateSecret", &ask)).await;
    }
    ticks.tick().await;
}

/// Reads until `end`; answers the microseconds that each read took.
async fn read(address: String, reads: Arc<Vec<Vec<u8>>>, first: usize, end: Instant) -> Vec<f64> {
    let (mut client, mut each) = (Client::new(&address).await, Vec::new());
    // Steps that are prime to the number of secrets come to all of them.
    let mut at = first;
    while Instant::now() < end {
        at = (at + 37) % reads.len();
        let start = Instant::now();
        client.exchange(&reads[at]).await;
        each.push(start.elapsed().as_secs_f64() * 1e6);
    }
    each
}

/// Reads of one kind of phase: microseconds that each took, and the server's processor time.
#[derive(Default)]
struct Reads {
    each: Vec<f64>,
    cpu: Duration,
}

impl Reads {
    /// One phase; `which` rotate meanwhile.
    fn phase(&mut self, appliance: &Appliance, clients: usize, which: Range<usize>) {
        let all_reads = Arc::new(reads(appliance));
        let before = appliance.cpu();
        let end = Instant::now() + PAUSE * u32::try_from(AT_ONCE).expect("few");
        self.each.extend(on_one_thread(async {
            let mut all = tokio::task::JoinSet::new();
            for n in 0..clients {
                all.spawn(read(appliance.address.clone(), all_reads.clone(), n * 101, end));
            }
            let (_, each) = tokio::join!(rotate(appliance, which), all.join_all());
            each.concat()
        }));
        self.cpu += appliance.cpu() - before;
        self.each.sort_unstable_by(f64::total_cmp);
    }

    /// What so many of 1,000 took at most.
    fn of_1000(&self, share: usize) -> f64 {
        self.each[self.each.len() * share / 1000]
    }
}

/// How many of the secrets have rotated.
fn rotated(appliance: &Appliance, which: Range<usize>) -> usize {
    let is_done = |n: &usize| {
        let shown =
            appliance.ask("secretsmanager", "DescribeSecret", &json!({"SecretId": name(*n)}));
        let labels = |id: String| shown["VersionIdsToStages"][id].clone();
        let old = labels(format!("{n:032}")) == Value::from(vec!["AWSPREVIOUS"]);
        old && labels(format!("{n:033}")) == Value::from(vec!["AWSCURRENT"])
    };
    which.filter(is_done).count()
}

fn row(clients: usize, without: &Reads, with: &Reads) {
    let both = |share| format!("{:.0}, {:.0}", without.of_1000(share), with.of_1000(share));
    let cpu = |reads: &Reads| reads.cpu.as_secs_f64() * 1e6 / reads.each.len() as f64;
    println!(
        "| {clients} | {}, {} | {:.0}, {:.0} | {} | {} | {} | {:.2} |",
        without.each.len(),
        with.each.len(),
        cpu(without),
        cpu(with),
        both(500),
        both(990),
        both(999),
        with.of_1000(990) / without.of_1000(990)
    );
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(250);
    let count = usize::min(asked, SECRETS);
    let folder = tempfile::tempdir().expect("a folder");
    let appliance = Appliance::start(&folder.path().join("a"), "softhsm2", None);
    create(&appliance);
    // Once through all of them, so that both kinds of phase begin warm.
    Reads::default().phase(&appliance, 4, 0..0);
    let mut found = CLIENTS.map(|clients| (clients, Reads::default(), Reads::default()));
    for (turn, first) in (0..count).step_by(AT_ONCE).enumerate() {
        let (clients, without, with) = &mut found[turn % CLIENTS.len()];
        without.phase(&appliance, *clients, 0..0);
        with.phase(&appliance, *clients, first..usize::min(first + AT_ONCE, count));
    }
    println!("{} of {count} secrets have rotated\n", rotated(&appliance, 0..count));
    println!("Without rotation, with it, and the ratio:\n");
    println!("| clients | reads | CPU for one, µs | median, µs | 99 %, µs | 99.9 %, µs | 99 % |");
    println!("|---|---|---|---|---|---|---|");
    for (clients, without, with) in &found {
        row(*clients, without, with);
    }
}
