//! `strongroom hsm bench`: how much the configured tokens do, and how soon.

use super::{runtime, serve, shutdown};
use crate::clock::{SystemRandom, random_bytes};
use crate::custody::lane::Lane;
use crate::custody::{self, BackingKeyId, KeyCheck, Scheme, SigningScheme, TokenKey};
use crate::server::{Error, open_tokens};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many callers there are at a time.
const CALLERS: [usize; 4] = [1, 4, 16, 64];

/// Random bytes in one request.
const RANDOM: usize = 32;

/// Measure the configured tokens under load.
#[derive(Args)]
pub(super) struct Bench {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
    /// Measure this token alone, by its name in the configuration.
    #[arg(long)]
    token: Option<String>,
    /// How long each figure is measured, from 1 to 600 seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What one kind of request came to with so many callers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Figure {
    operation: String,
    callers: usize,
    per_second: f64,
    /// To the figure of one caller, of the same operation in the same run.
    ratio: f64,
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
        let config = serve::prepare(&self.config)?;
        let tokens = open_tokens(&config)?;
        let members = tokens
            .all()
            .iter()
            .filter(|member| self.token.as_ref().is_none_or(|name| *name == member.name));
        let members: Vec<_> = members.collect();
        if members.is_empty() {
            let name = self.token.unwrap_or_default();
            return Err(Error::Refused(format!("the configuration has no token `{name}`")));
        }
        let reactor = runtime()?;
        let mut all = Vec::new();
        for member in members {
            let lane = member.lane()?;
            let figures =
                reactor.block_on(interruptible(lane, Duration::from_secs(self.seconds)))?;
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
}

/// Measures until it is done or the person has had enough; the keys are destroyed all the same, so
/// their making is waited for: one that is made later would stay.
async fn interruptible(lane: &Lane, each: Duration) -> Result<Vec<Figure>, Error> {
    let (holder, signer) = (new_id()?, new_id()?);
    let stop = shutdown()?;
    let measured = match works(lane, holder, signer).await {
        Ok(works) => tokio::select! {
            figures = measure(lane, each, works) => Ok(figures),
            () = stop => Err(Error::Refused("stopped before it was done".into())),
        },
        Err(error) => Err(error),
    };
    for id in [holder, signer] {
        match lane.destroy(id).await {
            Ok(()) | Err(custody::Error::KeyNotFound(_)) => {}
            Err(error) => {
                tracing::error!(key = %id, %error, "a key of this command was left in the token");
            }
        }
    }
    measured
}

fn new_id() -> Result<BackingKeyId, Error> {
    Ok(BackingKeyId(random_bytes(&SystemRandom)?))
}

async fn measure(lane: &Lane, each: Duration, works: Vec<Work>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for work in works {
        let work = Arc::new(work);
        let mut alone = None;
        for callers in CALLERS {
            let figure = under_load(lane, &work, callers, each, alone).await;
            alone = alone.or(Some(figure.per_second));
            figures.push(figure);
        }
    }
    figures
}

/// One kind of request.
enum Work {
    Derive(TokenKey, KeyCheck),
    Agree(TokenKey, KeyCheck, Vec<u8>),
    Unwrap(TokenKey, KeyCheck, Vec<u8>),
    Random,
    Sign(TokenKey, SigningScheme, Vec<u8>),
}

/// What this token does, with keys of its preferred schemes.
async fn works(
    lane: &Lane,
    holder: BackingKeyId,
    signer: BackingKeyId,
) -> Result<Vec<Work>, Error> {
    let mut works = Vec::new();
    if let Some(scheme) = lane.described().preferred_scheme() {
        let made = lane.generate(holder, scheme).await?;
        let key = TokenKey { id: holder, wrapped: made.wrapped };
        let check = made.evidence.check;
        let public = made.public.unwrap_or_default();
        works.push(match scheme {
            Scheme::HmacKdf => Work::Derive(key, check),
            Scheme::Ecdh => Work::Agree(key, check, peer()?),
            Scheme::RsaOaep => Work::Unwrap(key, check, sealed(&public)?),
        });
    }
    works.push(Work::Random);
    if let Some(scheme) = lane.signing().first() {
        let made = lane.generate_signer(signer, *scheme).await?;
        let key = TokenKey { id: signer, wrapped: made.wrapped };
        works.push(Work::Sign(key, *scheme, made.public));
    }
    Ok(works)
}

/// Another's public key.
fn peer() -> Result<Vec<u8>, Error> {
    let key = PrivateKey::generate(&ECDH_P256).and_then(|key| key.compute_public_key());
    let key = key.map_err(|_| Error::Refused("this machine makes no keys".into()))?;
    Ok(key.as_ref().to_vec())
}

/// 32 bytes, encrypted for an RSA key.
fn sealed(public: &[u8]) -> Result<Vec<u8>, Error> {
    let odd = || Error::Refused("the token gave a public key that can't be used".into());
    custody::oaep::encrypt(public, &[7; 32]).ok_or_else(odd)
}

impl Work {
    fn name(&self) -> String {
        match self {
            Self::Derive(..) => "derive (hmac-kdf)".into(),
            Self::Agree(..) => "agree (ecdh)".into(),
            Self::Unwrap(..) => "unwrap (rsa-oaep)".into(),
            Self::Random => format!("random ({RANDOM} bytes)"),
            Self::Sign(_, SigningScheme::Ed25519, _) => "sign (ed25519)".into(),
            Self::Sign(_, SigningScheme::EcdsaP256, _) => "sign (ecdsa-p256)".into(),
        }
    }

    async fn once(&self, lane: &Lane) -> custody::Result<()> {
        match self {
            Self::Derive(key, check) => {
                lane.derive(key.clone(), *check, vec![7; 64]).await.map(drop)
            }
            Self::Agree(key, check, peer) => {
                lane.agree(key.clone(), *check, peer.clone()).await.map(drop)
            }
            Self::Unwrap(key, check, sealed) => {
                lane.unwrap(key.clone(), *check, sealed.clone()).await.map(drop)
            }
            Self::Random => lane.random(RANDOM).await.map(drop),
            Self::Sign(key, scheme, public) => {
                lane.sign(key.clone(), *scheme, public.clone(), vec![7; 64]).await.map(drop)
            }
        }
    }
}

/// What one caller has seen.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    errors: usize,
    why: Option<String>,
}

async fn under_load(
    lane: &Lane,
    work: &Arc<Work>,
    callers: usize,
    each: Duration,
    alone: Option<f64>,
) -> Figure {
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
    let per_second = count(all.times.len()) / elapsed;
    Figure {
        operation: work.name(),
        callers,
        per_second,
        ratio: alone.map_or(1.0, |alone| if alone > 0.0 { per_second / alone } else { 0.0 }),
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
        match work.once(lane).await {
            Ok(()) => seen.times.push(before.elapsed()),
            Err(error) => {
                seen.errors = seen.errors.saturating_add(1);
                seen.why = Some(error.to_string());
                // A token that refuses at once is not to be asked a million times.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
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
        "{:<20} {:>7} {:>10} {:>6} {:>10} {:>10}\n",
        "", "callers", "per second", "ratio", "p50", "p99"
    ));
    for figure in figures {
        let time = |micros: u64| format!("{micros} µs");
        let operation = if figure.callers == 1 { figure.operation.as_str() } else { "" };
        text.push_str(&format!(
            "{operation:<20} {:>7} {:>10.0} {:>6.2} {:>10} {:>10}\n",
            figure.callers,
            figure.per_second,
            figure.ratio,
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
