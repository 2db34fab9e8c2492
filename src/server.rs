//! The only place that builds things and joins them.

pub mod found;
pub mod harden;
pub mod pin;
pub mod staged;

use crate::audit::index::{self, Index};
use crate::audit::{self, Recorder};
use crate::clock::World;
use crate::config::Config;
use crate::custody::boot::Binding;
use crate::custody::child::{self, Isolation, Program};
use crate::custody::profile::{Kind, Profile};
use crate::custody::tokens::{Member, Tokens};
use crate::custody::{self, Locator, lane::Lane};
use crate::envelope::access_key::{self, Mint};
use crate::envelope::store_key::{StoreKey, WrappedStoreKey};
use crate::envelope::{self, Envelopes, cache::DataKeys, message::Messages, session::Sessions};
use crate::events::{self, Receiver};
use crate::front::{codes, door::Door, listen};
use crate::identity::{Authenticator, options::Federation};
use crate::ops::call::Services;
use crate::ops::iam::uses::Uses;
use crate::ops::page::Pages;
use crate::ops::secrets::accesses::Accesses;
use crate::ops::secrets::expiry;
use crate::ops::secrets::reseal::Progress;
use crate::ops::secrets::rotate::Rotations;
use crate::store::records::{Records, RowMac};
use crate::store::sqlite::Sqlite;
use crate::store::{self, Store, meta};
use staged::Front;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The labels of the keys that are derived from the store key.
const ROW_MACS: &str = "strongroom row macs v1";
const PAGE_TOKENS: &str = "strongroom page tokens v1";

/// How often a token is reached for that was not there at the start.
const MISSING: Duration = Duration::from_secs(5);

/// How often what is due is looked for: deletions, unfinished key creations.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// How long is waited before a token is asked again that data keys wait for.
const RESEALING: Duration = Duration::from_secs(10);

/// Why the appliance can't be built or served: one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] custody::profile::Error),
    /// The token.
    #[error(transparent)]
    Custody(#[from] custody::Error),
    /// The PIN.
    #[error(transparent)]
    Pin(#[from] pin::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The store key.
    #[error(transparent)]
    StoreKey(#[from] envelope::Error),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The audit log's look-up index.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// Addresses or TLS.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// Issuers, trust anchors, profiles.
    #[error(transparent)]
    Identity(#[from] crate::identity::options::OptionsError),
    /// An operation of the set-up's.
    #[error("{0}")]
    Operation(#[from] crate::ops::error::Error),
    /// Something on the disk.
    #[error("`{path}`: {why}")]
    Io {
        /// Which file or folder.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// A running appliance that can't be reached, or refuses.
    #[error("{0}")]
    Remote(String),
    /// A set-up that is not served.
    #[error("{0}")]
    Refused(String),
    /// A log that a verification has found wanting.
    #[error("{0}")]
    Tampered(String),
    /// A verification that came to nothing.
    #[error("{0}")]
    Unknown(String),
    /// Randomness.
    #[error(transparent)]
    Randomness(#[from] crate::clock::NoRandomness),
}

impl Error {
    /// 78 (sysexits' EX_CONFIG) for what trying again can't mend, a refused PIN above all: a service
    /// manager that restarts on failure must not try it until the token locks. 2 for a verification
    /// that came to nothing. Else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Custody(
                custody::Error::Pin { .. }
                | custody::Error::Sealed { .. }
                | custody::Error::KeyRejected { .. },
            )
            | Self::StoreKey(envelope::Error::Custody(
                custody::Error::Pin { .. } | custody::Error::KeyRejected { .. },
            ))
            | Self::Pin(_)
            | Self::Config(_)
            | Self::Profile(_)
            | Self::Identity(_)
            | Self::Refused(_) => 78,
            Self::Unknown(_) => 2,
            _ => 1,
        }
    }

    /// An I/O error at a path.
    pub fn io(path: &Path, why: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), why }
    }
}

/// An appliance that is built and not yet served.
pub struct Appliance {
    /// What operations work with.
    pub services: Arc<Services>,
    /// What proves callers.
    pub authenticator: Authenticator,
    federation: Arc<Federation>,
    /// Who is told of events.
    receivers: Vec<Receiver>,
    /// What the database says that it is.
    pub site: meta::Site,
    config: Config,
}

/// Reaches for the tokens of a configuration. One that is not there is an error only if none is. Blocks.
pub fn open_tokens(config: &Config) -> Result<Tokens, Error> {
    let mut members = Vec::with_capacity(config.token.len());
    for token in &config.token {
        // A PIN that is missing altogether is the configuration's fault: found out now.
        pin::check(token)?;
        described(token)?;
        let (name, serial, token) = (&token.name, &token.serial, token.clone());
        let holds_new_keys = token.holds_new_keys;
        let mut member = Member::new(name, serial, Box::new(move || reach(&token)));
        member.holds_new_keys = holds_new_keys;
        members.push(member);
    }
    let tokens = Tokens::new(members).ok_or(crate::config::Error::Tokens("none"))?;
    let mut missing = Vec::new();
    for member in tokens.all() {
        missing.extend(member.reach().err().map(|error| (&member.name, error)));
    }
    if missing.len() == tokens.all().len() {
        // A refused PIN before all else: whoever waits for the other tokens would try it again.
        let refused =
            missing.iter().position(|(_, error)| matches!(error, custody::Error::Pin { .. }));
        return Err(missing.swap_remove(refused.unwrap_or(0)).1.into());
    }
    for (token, error) in missing {
        tracing::error!(token, %error, "a token is not there; going on without it");
    }
    Ok(tokens)
}

/// The profile of a token, new keys' scheme first.
fn described(token: &crate::config::Token) -> Result<Profile, Error> {
    let mut profile = Profile::named(&token.profile)?;
    if let Some(scheme) = token.scheme {
        profile.prefer(scheme)?;
    }
    profile.encrypt_bus = token.encrypt_bus.unwrap_or(profile.encrypt_bus);
    profile.boot = binding(token, &profile)?;
    Ok(profile)
}

/// The boot states that a token's new keys are bound to.
pub(crate) fn binding(
    token: &crate::config::Token,
    profile: &Profile,
) -> Result<Option<Binding>, Error> {
    let (Some(operator), Some(approvals)) = (&token.pcr_policy, &token.pcr_approvals) else {
        return Ok(None);
    };
    if profile.kind != Kind::Tpm {
        let why = "only a TPM's keys are bound to boot states (`pcr_policy`)".to_owned();
        return Err(custody::Error::Unsupported { profile: profile.name.clone(), why }.into());
    }
    Ok(Some(Binding::new(operator, &token.pcrs, approvals.clone())?))
}

fn reach(token: &crate::config::Token) -> custody::Result<Lane> {
    let (profile, access) = way(token)?;
    match token.isolation {
        Isolation::Process => {
            let environment = profile.environment(token.configuration.as_deref());
            child::open(profile, access, &token.lane, Program::this(environment))
        }
        Isolation::None => custody::open(profile, access, &token.lane),
    }
}

/// A token's driver in this process with nothing before it, for measuring, and its profile.
pub(crate) fn bare(
    token: &crate::config::Token,
) -> custody::Result<(Arc<dyn custody::Driver>, Profile)> {
    let (profile, access) = way(token)?;
    Ok((custody::driver(profile.clone(), access)?, profile))
}

/// What it takes to reach a token.
fn way(token: &crate::config::Token) -> custody::Result<(Profile, custody::Access)> {
    let unavailable = |why: String| custody::Error::Unavailable { token: token.name.clone(), why };
    let pin = pin::of(token).map_err(|error| match error {
        Error::Custody(error) => error,
        other => unavailable(other.to_string()),
    });
    let access = custody::Access {
        token: Locator::Serial(token.serial.clone()),
        pin: pin?,
        module: token.module.clone(),
        device: token.device.clone(),
    };
    let profile = described(token).map_err(|e| unavailable(e.to_string()))?;
    Ok((profile, access))
}

/// Opens the database of a configuration.
pub fn open_store(config: &Config) -> Result<Arc<Sqlite>, Error> {
    let mut options = store::sqlite::Options::new(&config.store.dir);
    options.max_bytes = config.store.max_bytes;
    Ok(Arc::new(Sqlite::open(options)?))
}

impl Appliance {
    /// Builds everything: tokens, database, store key, audit log. Refuses an unsafe set-up.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let store = Store::new(open_store(&config)?);
        let site = site(&store, &config)?;
        let (config, tokens) = on_thread(move || {
            let tokens = open_tokens(&config)?;
            Ok((config, tokens))
        })
        .await?;
        Self::join(config, store, tokens, site).await
    }

    /// Joins the parts.
    pub async fn join(
        config: Config,
        store: Store,
        tokens: Tokens,
        site: meta::Site,
    ) -> Result<Self, Error> {
        let wrapped = WrappedStoreKey::read(&site.store_key)
            .map_err(|_| Error::Refused("the store key in the database is damaged".into()))?;
        let store_key = StoreKey::unwrap(&tokens, &config.region, &wrapped).await;
        let store_key = store_key.map_err(|error| unwrapping(error, &wrapped, &tokens))?;
        let mac = RowMac::new(store_key.derive(ROW_MACS)?.expose());
        let records = Records::new(store, mac, config.store.cached_documents);
        let world = World::system();
        let parts = audit::Parts {
            options: &config.audit,
            region: &config.region,
            tokens: &tokens,
            records: records.clone(),
            world: &world,
        };
        let recorder = Recorder::start(parts).await?;
        let index = open_index(&config, &recorder, &world)?;
        let federation = Arc::new(config.identity.clone().check()?);
        let receivers = config.receivers()?;
        let sessions = Sessions::new(store_key.derive(envelope::session::LABEL)?);
        let services = Services {
            region: config.region.clone(),
            records: records.clone(),
            envelopes: Envelopes::new(tokens.clone(), world.random.clone(), &config.region),
            data_keys: DataKeys::new(config.data_key_cache.clone()),
            tokens,
            index,
            recorder,
            accesses: Accesses::default(),
            resealing: Progress::default(),
            rotations: Rotations::new(config.functions()?),
            expiring: expiry::Gauge::default(),
            deliveries: receivers.iter().map(|receiver| receiver.delivery.clone()).collect(),
            pages: Pages::new(&store_key.derive(PAGE_TOKENS)?),
            sessions: sessions.clone(),
            messages: Messages::new(store_key.derive(envelope::message::LABEL)?),
            mint: Mint::new(store_key.derive(access_key::SEALING)?),
            uses: Uses::default(),
            world,
            code_of: codes::code_of,
        };
        let sealing = store_key.derive(access_key::SEALING)?;
        let authenticator =
            Authenticator::new(records, &config.region, sealing, sessions, federation.clone());
        let adopted = crate::ops::iam::administrators::adopt(&services).await?;
        if adopted > 0 {
            tracing::info!(adopted, "access keys of before have users now");
        }
        let services = Arc::new(services);
        Ok(Self { services, authenticator, federation, receivers, site, config })
    }

    /// Serves until `shutdown`; calls `ready` with the bound addresses once requests are taken.
    pub async fn serve(
        self,
        ready: impl FnOnce(&[(SocketAddr, bool)]),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let front = Front::open(&self.config)?;
        self.serve_behind(front, ready, shutdown).await
    }

    /// The same at addresses that are bound already.
    async fn serve_behind(
        self,
        front: Front,
        ready: impl FnOnce(&[(SocketAddr, bool)]),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let hangup = hangup()?;
        self.begin().await?;
        if let Some((address, _)) = front.addresses.iter().find(|(_, tls)| !tls) {
            self.services.rotations.here.get_or_init(|| format!("http://{address}"));
        }
        // They end with this function.
        let _telling =
            events::follow(self.receivers, &self.services.recorder, &self.services.world)?;
        let keeping = tokio::spawn(keep_house(self.services.clone(), self.federation.clone()));
        let resealing = tokio::spawn(keep_resealing(self.services.clone()));
        let rotating = tokio::spawn(crate::rotate::keep_rotating(self.services.clone()));
        let probing = tokio::spawn(crate::rotate::keep_probing(self.services.clone()));
        let noting = tokio::spawn(note_accesses(self.services.clone()));
        let reaching = tokio::spawn(reach_missing(self.services.tokens.clone()));
        let tls = front.tls.clone();
        let reloading = tokio::spawn(reload_on_hangup(hangup, tls, self.federation));
        front.entrance.open(Door::new(self.services.clone(), self.authenticator));
        ready(&front.addresses);
        shutdown.await;
        front.close().await;
        keeping.abort();
        resealing.abort();
        rotating.abort();
        probing.abort();
        noting.abort();
        reaching.abort();
        reloading.abort();
        self.services.accesses.write(&self.services.records).await;
        self.services.uses.write(&self.services.records).await;
        // What the last requests did is in the database already; the log gets it now or at the
        // next start.
        self.services.note("StopAppliance", &self.site.account, b"{}").await?;
        self.services.recorder.flush().await?;
        Ok(())
    }

    /// Notes the start in the audit log, with what the appliance runs on.
    async fn begin(&self) -> Result<(), Error> {
        let tokens: Vec<_> = self.services.tokens.all().iter().map(particulars).collect();
        let particulars = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "tokens": tokens,
            "auditTree": self.services.recorder.tree(),
        });
        let particulars = particulars.to_string();
        let account = &self.site.account;
        Ok(self.services.note("StartAppliance", account, particulars.as_bytes()).await?)
    }
}

/// The look-up index beside the audit log: `audit-index.sqlite` of `audit.jsonl`.
fn open_index(
    config: &Config,
    recorder: &Recorder,
    world: &World,
) -> Result<Option<Arc<Index>>, Error> {
    if !config.audit.lookup {
        return Ok(None);
    }
    let log = recorder.log().clone();
    let mut name = log.path().file_stem().unwrap_or_default().to_owned();
    name.push("-index.sqlite");
    let path = log.path().with_file_name(name);
    Ok(Some(Arc::new(Index::start(&path, log, world.clock.clone())?)))
}

/// What the database says that it is; refuses a database of another region.
fn site(store: &Store, config: &Config) -> Result<meta::Site, Error> {
    let site = store.read(|tx| meta::site(tx))?.ok_or_else(|| {
        Error::Refused(format!(
            "`{}` holds no appliance: run `strongroom init` first",
            config.store.dir.display()
        ))
    })?;
    if site.region != config.region {
        let (theirs, ours) = (&site.region, &config.region);
        return Err(Error::Refused(format!(
            "the database was made for region `{theirs}` and the configuration says `{ours}`"
        )));
    }
    Ok(site)
}

/// A token without the store key is another one, or a new one of the same name.
fn unwrapping(error: envelope::Error, wrapped: &WrappedStoreKey, tokens: &Tokens) -> Error {
    let theirs: Vec<_> = wrapped.wraps.iter().map(|wrap| wrap.holder.token.as_str()).collect();
    let ours: Vec<_> = tokens.all().iter().map(Member::serial).collect();
    let known = theirs.iter().any(|serial| tokens.knows(serial));
    // Nothing is tried again after that: a token counts.
    let mut missing = tokens.all().iter().filter_map(|member| member.lane().err());
    if let Some(refused) = missing.find(|error| matches!(error, custody::Error::Pin { .. })) {
        return refused.into();
    }
    let lost = match &error {
        envelope::Error::Custody(custody::Error::KeyNotFound(id)) => format!(" ({id})"),
        _ if known => return error.into(),
        _ => String::new(),
    };
    let (theirs, ours) = (theirs.join("`, `"), ours.join("`, `"));
    Error::Refused(format!(
        "the token of serial number `{ours}` does not hold the store key{lost}: the database was \
         made with the token of serial number `{theirs}`"
    ))
}

/// What the audit log has of a token at a start.
fn particulars(member: &Member) -> serde_json::Value {
    let lane = member.lane().ok();
    serde_json::json!({
        "name": member.name,
        "serial": member.serial(),
        "label": lane.map(|lane| lane.info().label.as_str()),
        "profile": lane.map(Lane::profile),
    })
}

/// Runs what blocks on a thread that may.
pub async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::Refused("a thread of the set-up panicked".into())))
}

/// Reaches for tokens until all are there. One that goes away later is its driver's matter.
async fn reach_missing(tokens: Tokens) {
    while !tokens.complete() {
        tokio::time::sleep(MISSING).await;
        let tokens = tokens.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || tokens.reach_missing()).await {
            tracing::error!(%error, "reaching for tokens");
        }
    }
}

/// Deletes what is due and finishes what an earlier process left undone.
async fn keep_house(services: Arc<Services>, federation: Arc<Federation>) {
    loop {
        crate::ops::keep_house(&services).await;
        refresh(&federation).await;
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

/// Seals stored data keys to the tokens that hold their keys now, whenever those have changed. Not one of
/// the chores of [`keep_house`]: a slow token takes hours for it.
async fn keep_resealing(services: Arc<Services>) {
    loop {
        match crate::ops::secrets::reseal::reseal(&services).await {
            Ok(0) => {}
            Ok(n) => tracing::info!(n, "sealed data keys to the tokens that hold their keys now"),
            Err(error) => tracing::warn!(%error, "data keys are left for holders of before"),
        }
        services.resealing.pause(RESEALING).await;
    }
}

/// Reads revocation lists that have changed.
async fn refresh(federation: &Arc<Federation>) {
    let federation = federation.clone();
    let read = tokio::task::spawn_blocking(move || federation.trust.refresh()).await;
    if let Err(error) = read {
        tracing::error!(%error, "revocation lists");
    }
}

async fn note_accesses(services: Arc<Services>) {
    tokio::join!(
        services.accesses.keep_writing(&services.records),
        services.uses.keep_writing(&services.records)
    );
}

/// SIGHUP, heard from now on: before anybody is told that the server is ready.
fn hangup() -> Result<Signal, Error> {
    signal(SignalKind::hangup()).map_err(|e| Error::io(Path::new("the signals"), e))
}

/// Reads certificate, key and revocation lists again on SIGHUP.
async fn reload_on_hangup(
    mut hangup: Signal,
    tls: Option<Arc<crate::front::tls::Tls>>,
    federation: Arc<Federation>,
) {
    while hangup.recv().await.is_some() {
        refresh(&federation).await;
        match tls.as_ref().map(|tls| tls.reload()) {
            Some(Ok(())) => tracing::info!("certificate and key were read again"),
            Some(Err(error)) => tracing::error!(%error, "the old certificate stays"),
            None => {}
        }
    }
}
