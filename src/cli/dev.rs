//! `strongroom dev`: an appliance for CI pipelines and test suites, ready in under a second.

use super::seed::Seed;
use super::stand_in::Beside;
use super::{runtime, shutdown, with_module_configurations};
use crate::config::Config;
use crate::custody::child::Isolation;
use crate::custody::profile::{Kind, Profile};
use crate::ops::secrets::rotate::functions::{ANY, options::Options};
use crate::secret::Secret;
use crate::server::found::{Plan, TokenPlan, configuration, write_private};
use crate::server::{Appliance, Error};
use clap::Args;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The profile that `--token piv` means.
const VIRTUAL_PIV: &str = "virtual-piv";

/// Make or reopen a throw-away appliance.
#[derive(Args)]
pub struct Dev {
    /// The folder that it lives in; its state survives restarts.
    #[arg(long)]
    dir: PathBuf,
    /// The loopback address to serve at; port 0 finds a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Print one JSON line when ready instead of text.
    #[arg(long)]
    json: bool,
    /// The kind of token, when the appliance is made: `softhsm2` (the default), `kryoptic`, `swtpm`, or
    /// `piv`, a virtual card in the place of a YubiKey.
    #[arg(long, value_name = "PROFILE")]
    token: Option<String>,
    /// The token's PKCS#11 module, when the appliance is made, if it is at none of the places that
    /// the profile names; of `piv` the program that is the card.
    #[arg(long, value_name = "FILE")]
    token_module: Option<PathBuf>,
    /// The region, when the appliance is made.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// The account, when the appliance is made.
    #[arg(long, default_value = "000000000000")]
    account: String,
    /// A YAML or JSON file of keys and secrets to be made before the first request; what is there
    /// already stays as it is.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Where rotation functions are that the configuration does not name: a Lambda Invoke endpoint.
    #[arg(long, value_name = "URL")]
    lambda_endpoint: Option<String>,
}

/// The line that says that it is ready.
#[derive(Serialize)]
struct Ready<'a> {
    endpoint: String,
    region: &'a str,
    account_id: &'a str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: Option<&'a str>,
}

impl Dev {
    pub(super) fn run(self) -> Result<(), Error> {
        let profile = self.profile()?;
        let module = self.token_module.clone().filter(|_| profile.kind == Kind::Pkcs11);
        let mut plan = Plan {
            dir: self.dir.clone(),
            token: TokenPlan::made_here(profile),
            second: None,
            no_recovery: false,
            isolation: Isolation::Process,
            region: self.region.clone(),
            account: self.account.clone(),
            listen: self.listen,
        };
        plan.token.module = module;
        let made = plan.configuration().exists();
        if made {
            with_module_configurations(&Config::read(&plan.configuration())?)?;
        } else {
            plan.prepare()?;
        }
        let beside = Beside::start(&self.dir, &plan.token.profile, self.token_module.as_deref())?;
        plan.token.device = beside.device();
        // Read once, after the start anew and before anything is made.
        let seed = self.seed.as_deref().map(Seed::read).transpose()?;
        if !made {
            self.found(&plan)?;
        }
        let mut config = Config::read(&plan.configuration())?;
        if let (Some(token), Some(device)) = (config.token.first_mut(), beside.device()) {
            token.device = Some(device);
        }
        runtime()?.block_on(self.serve(config, seed))
    }

    /// The profile of the token that is there already, else of the one that is asked for.
    fn profile(&self) -> Result<Profile, Error> {
        let asked =
            self.token.as_deref().map(|name| if name == "piv" { VIRTUAL_PIV } else { name });
        let file = configuration(&self.dir);
        if !file.exists() {
            return Ok(Profile::built_in(asked.unwrap_or("softhsm2"))?);
        }
        let there = Config::read(&file)?.token.into_iter().next().map(|token| token.profile);
        let there = there.unwrap_or_default();
        if asked.is_some_and(|asked| asked != there) {
            let dir = self.dir.display();
            let text = format!("`{dir}` holds an appliance with a token of profile `{there}`");
            return Err(Error::Refused(text));
        }
        Ok(Profile::built_in(&there)?)
    }

    /// On a reactor of its own, whose end lets go of the token.
    fn found(&self, plan: &Plan) -> Result<(), Error> {
        let (administrator, database) = runtime()?.block_on(plan.found())?;
        database.close();
        let mut text = format!("{}\n", administrator.access_key_id).into_bytes();
        text.extend_from_slice(administrator.secret_access_key.expose());
        write_private(&credentials(&self.dir), Secret::new(text).expose())
    }

    async fn serve(&self, mut config: Config, seed: Option<Seed>) -> Result<(), Error> {
        config.front.listen_plain = vec![self.listen];
        config.front.validate().map_err(crate::config::Error::Front)?;
        if let Some(endpoint) = &self.lambda_endpoint {
            config.function.push(Options::at(ANY, endpoint));
            config.functions()?;
        }
        let (id, secret) = read_credentials(&self.dir)?;
        let shutdown = shutdown()?;
        let appliance = Appliance::open(config).await?;
        let region = appliance.services.region.clone();
        let account = appliance.site.account.clone();
        if let Some(seed) = seed {
            seed.plant(&appliance.services, &account).await?;
        }
        let ready = |addresses: &[(SocketAddr, bool)]| {
            let Some((address, _)) = addresses.first() else { return };
            self.announce(&Ready {
                endpoint: format!("http://{address}"),
                region: &region,
                account_id: &account,
                access_key_id: &id,
                secret_access_key: secret.expose_str().unwrap_or_default(),
                session_token: None,
            });
        };
        appliance.serve(ready, shutdown).await
    }

    #[expect(clippy::print_stdout, reason = "the line that the caller waits for")]
    fn announce(&self, ready: &Ready<'_>) {
        if self.json {
            println!("{}", serde_json::to_string(ready).unwrap_or_default());
        } else {
            println!("serving {}", ready.endpoint);
            println!("  export AWS_ENDPOINT_URL={}", ready.endpoint);
            println!("  export AWS_ACCESS_KEY_ID={}", ready.access_key_id);
            println!("  export AWS_SECRET_ACCESS_KEY={}", ready.secret_access_key);
            println!("  export AWS_DEFAULT_REGION={}", ready.region);
        }
    }
}

/// The longest file of an access key, in bytes.
const CREDENTIALS: usize = 1024;

/// Where a throw-away appliance keeps its administrator's access key, mode 0600.
fn credentials(dir: &Path) -> PathBuf {
    dir.join("dev-credentials")
}

fn read_credentials(dir: &Path) -> Result<(String, Secret), Error> {
    let path = credentials(dir);
    let read = std::fs::File::open(&path).and_then(|file| Secret::read(file, CREDENTIALS));
    let text = read.map_err(|e| Error::io(&path, e))?;
    let lines = text.as_ref().and_then(Secret::expose_str).and_then(|t| t.split_once('\n'));
    let (id, secret) = lines.ok_or_else(|| {
        Error::Refused(format!(
            "`{}` is no throw-away appliance of `strongroom dev`",
            dir.display()
        ))
    })?;
    Ok((id.to_owned(), Secret::copy_of(secret.trim_end().as_bytes())))
}
