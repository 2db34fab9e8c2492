//! A start in stages: the addresses are bound and `/healthz` answers before the tokens are there, and
//! while they are waited for.

use super::{Appliance, Error};
use crate::clock::World;
use crate::config::Config;
use crate::custody;
use crate::envelope;
use crate::front::{entrance::Entrance, listen, tls::Tls};
use sd_notify::NotifyState;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long is waited for a token before it is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Addresses that are bound, and what answers there.
pub(super) struct Front {
    pub(super) entrance: Arc<Entrance>,
    /// The addresses, and whether TLS is spoken there.
    pub(super) addresses: Vec<(SocketAddr, bool)>,
    pub(super) tls: Option<Arc<Tls>>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Front {
    /// Binds the addresses of a configuration; the entrance answers from now on.
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
        let ask = config.identity.asks_for_certificates();
        let (listeners, tls) = listen::open(&config.front, ask)?;
        let addresses = listeners.iter().filter_map(|l| Some((l.address().ok()?, l.is_tls())));
        let addresses = addresses.collect();
        let (entrance, (stop, mut stopped)) = (Arc::<Entrance>::default(), watch::channel(false));
        let (limits, random) = (config.front.limits.clone(), World::system().random);
        let serving = listen::serve(listeners, limits, random, entrance.clone(), async move {
            // That the sender is gone is an end too.
            drop(stopped.wait_for(|stop| *stop).await);
        });
        Ok(Self { entrance, addresses, tls, stop, serving: tokio::spawn(serving) })
    }

    /// Takes no more requests, and waits for those that are in flight.
    pub(super) async fn close(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the front");
        }
    }
}

/// Serves the configuration that `read` answers until `shutdown`, once its tokens are there; calls
/// `ready` with the addresses then. Whatever else is wrong with the set-up ends it at once.
///
/// # Errors
/// Why it can't be built or served.
pub async fn serve(
    read: impl Fn() -> Result<Config, Error>,
    ready: impl FnOnce(&str, &[(SocketAddr, bool)]),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let config = read()?;
    let front = Front::open(&config)?;
    let mut shutdown = pin!(shutdown);
    let built = tokio::select! {
        built = patiently(config, read, &front) => built,
        () = &mut shutdown => {
            front.close().await;
            return Ok(());
        }
    };
    match built {
        Ok(appliance) => {
            let region = appliance.services.region.clone();
            let ready = |addresses: &[(SocketAddr, bool)]| ready(&region, addresses);
            appliance.serve_behind(front, ready, shutdown).await
        }
        Err(error) => {
            front.close().await;
            Err(error)
        }
    }
}

/// Builds the appliance, as often as it takes for a token to be there.
async fn patiently(
    mut config: Config,
    read: impl Fn() -> Result<Config, Error>,
    front: &Front,
) -> Result<Appliance, Error> {
    loop {
        match Appliance::open(config).await {
            Err(error) if may_pass(&error) => wait(&error, front).await,
            settled => return settled,
        }
        config = read()?;
    }
}

async fn wait(error: &Error, front: &Front) {
    let addresses: Vec<_> = front.addresses.iter().map(|(address, _)| address).collect();
    tracing::error!(%error, ?addresses, "waiting for it; /healthz answers meanwhile");
    front.entrance.waits(error.to_string());
    // Until the next attempt and what it takes, a service manager should not lose its patience.
    let more = NotifyState::ExtendTimeoutUsec(60_000_000);
    if let Err(error) = sd_notify::notify(&[NotifyState::Status(&error.to_string()), more]) {
        tracing::warn!(%error, "systemd could not be told");
    }
    tokio::time::sleep(PAUSE).await;
}

/// Whether it may be otherwise in a moment: a token that is not there, or does not answer.
fn may_pass(error: &Error) -> bool {
    use custody::Error as E;
    let (Error::Custody(error) | Error::StoreKey(envelope::Error::Custody(error))) = error else {
        return false;
    };
    matches!(error, E::Unavailable { .. } | E::Overloaded(_) | E::Timeout(_) | E::NoSession(_))
}
