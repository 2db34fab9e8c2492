//! `strongroom hsm bench`: how much the configured tokens do, and how soon.

mod raw;
mod work;

use super::stand_in::Beside;
use super::{runtime, serve, shutdown, with_environment};
use crate::config::{Config, Token};
use crate::custody;
use crate::custody::lane::Lane;
use crate::custody::profile::Profile;
use crate::server::found::{configuration, take_back};
use crate::server::{Error, bare, open_tokens};
use clap::Args;
use raw::Raw;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use work::{Keys, Work};

/// Measure the configured tokens under load: the driver alone, then what the server uses.
#[derive(Args)]
pub(super) struct Bench {
    /// The configuration that `strongroom init` wrote.
    #[arg(long, required_unless_present = "dir")]
    config: Option<PathBuf>,
    /// The folder of a throw-away appliance of `strongroom dev` that is not running, with its stand-in
    /// for hardware, instead.
    #[arg(long, conflicts_with = "config")]
    dir: Option<PathBuf>,
    /// Measure this token alone, by its name in the configuration.
    #[arg(long)]
    token: Option<String>,
    /// How long each figure is measured, from 1 to 600 seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many ask at a time, one figure each; from 1 to 1000.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64],
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    callers: Vec<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Measure the driver alone, in this process, and print that as JSON: how this command measures it,
    /// in a process of its own.
    #[arg(long, hide = true, requires = "token")]
    raw: bool,
    /// How the device is reached, in the place of what the configuration says.
    #[arg(long, hide = true, requires = "raw")]
    device: Option<String>,
}

const STOPPED: &str = "stopped before it was done";

/// What one kind of request came to with so many callers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Figure {
    operation: String,
    callers: usize,
    per_second: f64,
    /// What the driver alone does with as many threads, in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<Raw>,
    /// To that.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    p50_micros: u64,
    p99_micros: u64,
    /// Requests that failed; the last one's reason.
    errors: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Bench {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    pub(super) fn run(self) -> Result<(), Error> {
        let (mut config, _beside) = self.prepare()?;
        config.token.retain(|token| self.token.as_ref().is_none_or(|name| *name == token.name));
        if config.token.is_empty() {
            let name = self.token.unwrap_or_default();
            return Err(Error::Refused(format!("the configuration has no token `{name}`")));
        }
        let each = Duration::from_secs(self.seconds);
        if let (true, [token]) = (self.raw, &mut *config.token) {
            token.device = self.device.clone().or(token.device.take());
            println!("{}", json!(self.raw_here(token, each)?));
            return Ok(());
        }
        // Before the tokens are opened: a device may let one process in at a time.
        let raw = config.token.iter().map(|token| self.raw_apart(token));
        let raw = raw.collect::<Result<Vec<_>, _>>()?;
        let tokens = open_tokens(&config)?;
        let reactor = runtime()?;
        let mut all = Vec::new();
        for (member, raw) in tokens.all().iter().zip(raw) {
            let lane = member.lane()?;
            let mut figures = reactor.block_on(interruptible(lane, each, &self.callers))?;
            figures.iter_mut().for_each(|figure| figure.compare(&raw));
            if self.json {
                let (info, profile) = (lane.info(), lane.profile());
                all.push(json!({
                    "Name": member.name, "Profile": profile, "Token": info, "Figures": figures,
                }));
            } else {
                println!("{}", table(&member.name, lane, &figures));
            }
        }
        if self.json {
            println!("{}", json!({ "Seconds": self.seconds, "Tokens": all }));
        }
        Ok(())
    }

    /// The configuration, and what runs beside this process as long as the second value lives.
    fn prepare(&self) -> Result<(Config, Option<Beside>), Error> {
        let Some(dir) = &self.dir else { return Ok((serve::prepare(&self.file())?, None)) };
        let mut config = Config::read(&self.file())?;
        let Some(token) = config.token.first_mut() else { return Ok((config, None)) };
        let beside = Beside::start(dir, &Profile::named(&token.profile)?, None)?;
        token.device = beside.device().or(token.device.take());
        Ok((config, Some(beside)))
    }

    fn file(&self) -> PathBuf {
        let of_dir = || configuration(self.dir.as_deref().unwrap_or(Path::new("")));
        self.config.clone().unwrap_or_else(of_dir)
    }

    /// The driver alone, in this process.
    fn raw_here(&self, token: &Token, each: Duration) -> Result<Vec<Raw>, Error> {
        let environment =
            Profile::named(&token.profile)?.environment(token.configuration.as_deref());
        with_environment(environment)?;
        let (driver, profile) = bare(token)?;
        raw::measure(&driver, &profile, each, &self.callers)
    }

    /// The same in a process of its own, which finds what the token's library wants in its
    /// environment; none if that comes to nothing, which the log then tells. A token that refused its
    /// PIN there is not given it once more.
    fn raw_apart(&self, token: &Token) -> Result<Vec<Raw>, Error> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["hsm", "bench", "--raw", "--token", &token.name]).arg("--config");
        command.arg(self.file()).args(["--seconds", &self.seconds.to_string()]);
        command.args(self.callers.iter().map(|callers| format!("--callers={callers}")));
        // What there is to be warned of is told once.
        command.env("STRONGROOM_LOG", "error");
        command.args(token.device.iter().flat_map(|device| ["--device", device]));
        let ran = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let refused = Error::Refused(format!("token `{}` is not measured", token.name));
        if ran.as_ref().is_ok_and(|ran| ran.status.code() == Some(refused.exit_code().into())) {
            return Err(refused);
        }
        let told = ran.ok().filter(|ran| ran.status.success());
        let raw = told.and_then(|ran| serde_json::from_slice(&ran.stdout).ok());
        if raw.is_none() {
            tracing::warn!(token = token.name, "its driver could not be measured alone");
        }
        Ok(raw.unwrap_or_default())
    }
}

impl Figure {
    fn compare(&mut self, raw: &[Raw]) {
        let same = |raw: &&Raw| raw.operation == self.operation && raw.callers == self.callers;
        self.raw = raw.iter().find(same).cloned();
        let raw = self.raw.as_ref().map(|raw| raw.per_second).filter(|raw| *raw > 0.0);
        self.ratio = raw.map(|raw| self.per_second / raw);
    }
}

/// Measures until it is done or the person has had enough; the keys are destroyed all the same, so
/// their making is waited for: one that is made later would stay.
async fn interruptible(
    lane: &Lane,
    each: Duration,
    callers: &[usize],
) -> Result<Vec<Figure>, Error> {
    let keys = Keys::new()?;
    let stop = shutdown()?;
    let works = Work::all(lane.described(), &keys, async |request| lane.call(request).await);
    let measured = match works.await {
        Ok(works) => tokio::select! {
            figures = measure(lane, each, callers, works) => Ok(figures),
            () = stop => Err(Error::Refused(STOPPED.into())),
        },
        Err(error) => Err(error),
    };
    for id in [keys.holder, keys.signer] {
        if let Err(error) = take_back(lane, id).await {
            tracing::error!(key = %id, %error, "a key of this command was left in the token");
        }
    }
    measured
}

async fn measure(lane: &Lane, each: Duration, callers: &[usize], works: Vec<Work>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for work in works {
        let work = Arc::new(work);
        for callers in callers {
            figures.push(under_load(lane, &work, *callers, each).await);
        }
    }
    figures
}

/// What one caller has seen.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    errors: usize,
    why: Option<String>,
}

impl Seen {
    fn note(&mut self, since: Instant, answer: custody::Result<()>) {
        match answer {
            Ok(()) => self.times.push(since.elapsed()),
            Err(error) => {
                self.errors = self.errors.saturating_add(1);
                self.why = Some(error.to_string());
            }
        }
    }
}

async fn under_load(lane: &Lane, work: &Arc<Work>, callers: usize, each: Duration) -> Figure {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (lane, work) = (lane.clone(), Arc::clone(work));
        tasks.spawn(async move { call(&lane, &work, start, each).await });
    }
    let mut all = Seen::default();
    while let Some(seen) = tasks.join_next().await {
        let Ok(seen) = seen else { continue };
        all.times.extend(seen.times);
        all.errors = all.errors.saturating_add(seen.errors);
        all.why = seen.why.or(all.why);
    }
    let elapsed = start.elapsed().as_secs_f64();
    all.times.sort_unstable();
    Figure {
        operation: work.name.clone(),
        callers,
        per_second: count(all.times.len()) / elapsed,
        raw: None,
        ratio: None,
        p50_micros: quantile(&all.times, 50),
        p99_micros: quantile(&all.times, 99),
        errors: all.errors,
        why: all.why,
    }
}

async fn call(lane: &Lane, work: &Work, start: Instant, each: Duration) -> Seen {
    let mut seen = Seen::default();
    while start.elapsed() < each {
        let before = Instant::now();
        let failed = seen.errors;
        seen.note(before, lane.call((work.request)()).await.map(drop));
        if seen.errors > failed {
            // A token that refuses at once is not to be asked a million times.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    seen
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::from(u32::MAX), f64::from)
}

/// The time that so many percent did not exceed, in microseconds; 0 of none.
fn quantile(sorted: &[Duration], percent: usize) -> u64 {
    let at = sorted.len().saturating_mul(percent) / 100;
    let time = sorted.get(at).or(sorted.last()).copied().unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn table(name: &str, lane: &Lane, figures: &[Figure]) -> String {
    let (info, profile) = (lane.info(), lane.profile());
    let mut text =
        format!("Token {name}: {}, serial {}, profile {profile}\n", info.label, info.serial);
    text.push_str(&format!(
        "{:<20} {:>7} {:>10} {:>10} {:>6} {:>10} {:>10}\n",
        "", "callers", "alone", "per second", "ratio", "p50", "p99"
    ));
    let mut told = None;
    for figure in figures {
        let time = |micros: u64| format!("{micros} µs");
        let same = told == Some(&figure.operation);
        told = Some(&figure.operation);
        let operation = if same { "" } else { &figure.operation };
        let alone = figure.raw.as_ref().map(|raw| format!("{:.0}", raw.per_second));
        let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}"));
        text.push_str(&format!(
            "{operation:<20} {:>7} {:>10} {:>10.0} {:>6} {:>10} {:>10}\n",
            figure.callers,
            alone.as_deref().unwrap_or("-"),
            figure.per_second,
            ratio.as_deref().unwrap_or("-"),
            time(figure.p50_micros),
            time(figure.p99_micros),
        ));
        if let Some(why) = &figure.why {
            text.push_str(&format!("{:<20} {} requests failed: {why}\n", "", figure.errors));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_seen() {
        assert_eq!(quantile(&[], 50), 0);
        let times: Vec<_> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!((quantile(&times, 50), quantile(&times, 99)), (51, 100));
        assert_eq!(quantile(&times[..1], 99), 1);
    }
}
