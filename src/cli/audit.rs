//! `strongroom audit`: works on a copied log, without a server, a token or a PIN.

use super::print_report;
use crate::audit::note::Verifier;
use crate::audit::proof;
use crate::audit::verify::{Question, Report, Verdict, read_note};
use crate::server::Error;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Verify an audit log, or prove that a record is in it.
#[derive(Args)]
pub struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Verify a log offline with the public key: exit 0 if it is good, 1 if it was tampered with, 2
    /// if that can't be told.
    Verify(Verify),
    /// Write a proof that the record of one event is in the log.
    Prove(Prove),
}

#[derive(Args)]
struct Verify {
    /// A copy of the data directory, or of its folder `audit`.
    #[arg(long, required_unless_present = "proof", conflicts_with = "proof")]
    dir: Option<PathBuf>,
    /// The log file, if it is not `audit.jsonl` in that directory.
    #[arg(long, requires = "dir")]
    log: Option<PathBuf>,
    /// The key: `audit/checkpoint.pub` as it was when the appliance was made, kept elsewhere.
    #[arg(long)]
    key: PathBuf,
    /// A checkpoint that was kept elsewhere; may be repeated.
    #[arg(long, requires = "dir")]
    checkpoint: Vec<PathBuf>,
    /// The key of a witness that must have cosigned a checkpoint; may be repeated.
    #[arg(long, requires = "dir")]
    witness_key: Vec<PathBuf>,
    /// A proof of one record, instead of a directory.
    #[arg(long)]
    proof: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Prove {
    /// The data directory, or its folder `audit`, or a copy.
    #[arg(long)]
    dir: PathBuf,
    /// The log file, if it is not `audit.jsonl` in that directory.
    #[arg(long)]
    log: Option<PathBuf>,
    /// The event's id: `eventID` in its record.
    #[arg(long)]
    event: String,
}

impl Audit {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Verify(verify) => verify.run(),
            Command::Prove(prove) => prove.run(),
        }
    }
}

impl Verify {
    fn run(self) -> Result<(), Error> {
        let key = verifier(&self.key)?;
        if let Some(file) = &self.proof {
            return self.check_proof(file, &key);
        }
        let dir = self.dir.clone().unwrap_or_default();
        let (dir, log) = places(&dir, self.log.as_deref());
        if !dir.is_dir() {
            return Err(unknown(&format!("`{}` is no folder", dir.display())));
        }
        let witnesses = self.witness_key.iter().map(|file| witness(file)).collect();
        let question = Question {
            dir,
            log,
            key,
            witnesses: collected(witnesses)?,
            checkpoints: collected(self.checkpoint.iter().map(|file| kept(file)).collect())?,
        };
        let report = question.answer().map_err(|error| unknown(&error.to_string()))?;
        if self.json {
            let unvouched = report.records.saturating_sub(report.vouched);
            let more = [("verdict", json!(report.verdict())), ("unvouched", json!(unvouched))];
            print_report(&report, more);
        } else {
            print(&report);
        }
        verdict(&report)
    }

    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn check_proof(&self, file: &Path, key: &Verifier) -> Result<(), Error> {
        let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
        let Some(proved) = proof::check(&bytes, key) else {
            let text = format!("`{}` proves nothing under this key", file.display());
            return Err(Error::Tampered(text));
        };
        let record = String::from_utf8_lossy(&proved.record).into_owned();
        let checkpoint = &proved.checkpoint;
        if self.json {
            let told = serde_json::json!({"verdict": "good", "index": proved.index,
                "origin": checkpoint.origin, "records": checkpoint.head.size,
                "time": checkpoint.time, "record": record});
            println!("{told}");
        } else {
            let (size, time) = (checkpoint.head.size, checkpoint.time.as_deref().unwrap_or("-"));
            let index = proved.index;
            println!("record {index} of {size}, signed {time}, in `{}`:", checkpoint.origin);
            println!("{record}");
        }
        Ok(())
    }
}

impl Prove {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn run(self) -> Result<(), Error> {
        let (dir, log) = places(&self.dir, self.log.as_deref());
        let proved = proof::prove(&dir, log.as_deref(), &self.event);
        print!("{}", proved.map_err(|error| unknown(&error.to_string()))?);
        Ok(())
    }
}

/// The tree's folder and the log file, as a directory has them.
fn places(dir: &Path, log: Option<&Path>) -> (PathBuf, Option<PathBuf>) {
    let tree = dir.join("audit");
    let tree = if tree.is_dir() { tree } else { dir.to_owned() };
    let log = match log {
        Some(log) => Some(log.to_owned()),
        None => Some(dir.join("audit.jsonl")).filter(|log| log.is_file()),
    };
    (tree, log)
}

/// The verifier key in a file.
pub(super) fn verifier(file: &Path) -> Result<Verifier, Error> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::Unknown(text(file, &e)))?;
    let key = Verifier::parse(&text);
    key.ok_or_else(|| unknown(&format!("`{}` is no verifier key", file.display())))
}

fn witness(file: &Path) -> Result<Verifier, Error> {
    let key = verifier(file)?;
    if key.is_witness() {
        return Ok(key);
    }
    Err(unknown(&format!("`{}` is no key of a witness (type 0x04)", file.display())))
}

fn kept(file: &Path) -> Result<(String, Vec<u8>), Error> {
    let bytes = read_note(file).map_err(|error| unknown(&error.to_string()))?;
    let bytes = bytes.ok_or_else(|| unknown(&format!("there is no `{}`", file.display())))?;
    Ok((file.display().to_string(), bytes))
}

fn collected<T>(all: Vec<Result<T, Error>>) -> Result<Vec<T>, Error> {
    all.into_iter().collect()
}

fn text(file: &Path, why: &std::io::Error) -> String {
    format!("`{}`: {why}", file.display())
}

fn unknown(why: &str) -> Error {
    Error::Unknown(why.to_owned())
}

fn verdict(report: &Report) -> Result<(), Error> {
    match report.verdict() {
        Verdict::Good => Ok(()),
        Verdict::Tampered => Err(Error::Tampered("the audit log was tampered with".into())),
        Verdict::Unknown => Err(unknown("whether the audit log is good can't be told")),
    }
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn print(report: &Report) {
    println!("tree            {}", report.origin);
    println!("records         {}", report.records);
    let time = report.time.as_deref().map(|time| format!(", signed {time}")).unwrap_or_default();
    println!("vouched for     {}{time}", report.vouched);
    println!("not vouched for {}", report.records.saturating_sub(report.vouched));
    if report.outside > 0 {
        println!("not in the tree {} bytes at the start of the log file", report.outside);
    }
    for seen in &report.witnessed {
        println!("witnessed       {} at {} by {}", seen.records, seen.time, seen.witness);
    }
    for finding in &report.findings {
        match (finding.first, finding.last) {
            (Some(first), Some(last)) if first == last => {
                println!("record {first}: {}", finding.what);
            }
            (Some(first), Some(last)) => println!("records {first} to {last}: {}", finding.what),
            _ => println!("{}", finding.what),
        }
    }
    if report.more > 0 {
        println!("and {} more", report.more);
    }
    report.doubts.iter().for_each(|doubt| println!("{doubt}"));
}
