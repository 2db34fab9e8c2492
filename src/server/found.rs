//! Makes an appliance: folder, token, store key, account, first administrator. The configuration
//! file is written last, so that a founding which broke off is no appliance.

use super::holders::store_scheme;
use super::{Appliance, Error, on_thread, open_store, open_tokens};
use crate::clock::{World, random_bytes};
use crate::config::Config;
use crate::custody::profile::Profile;
use crate::custody::tokens::Tokens;
use crate::custody::{Access, Locator, provision};
use crate::envelope::store_key::{StoreKey, WrappedStoreKey};
use crate::name::{BackingKeyId, PublicKey, is_account, is_region};
use crate::ops::iam::administrators::{self, NewKey, Who};
use crate::secret::Secret;
use crate::store::keys::KeyHolder;
use crate::store::meta::{Site, put_site};
use crate::store::sqlite::Sqlite;
use crate::store::{self, Store};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The template of the configuration.
const CONFIGURATION: &str = include_str!("../../firmware-config/strongroom.toml.in");

/// What an appliance is to be.
pub struct Plan {
    /// The folder that everything goes into.
    pub dir: PathBuf,
    /// The profile of the token; it must be one whose token is made here.
    pub profile: Profile,
    /// The token's module, if it is at none of the places that the profile names.
    pub module: Option<PathBuf>,
    /// How the token is reached, if it has no module: of a TPM the TCTI.
    pub device: Option<String>,
    /// The region.
    pub region: String,
    /// The first account.
    pub account: String,
    /// The address that it will be served at, without TLS.
    pub listen: std::net::SocketAddr,
}

/// The configuration file of the appliance in this folder.
pub fn configuration(dir: &Path) -> PathBuf {
    dir.join("strongroom.toml")
}

impl Plan {
    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        configuration(&self.dir)
    }

    /// The module's own configuration file.
    pub fn module_configuration(&self) -> PathBuf {
        self.dir.join(self.module_configuration_name())
    }

    fn module_configuration_name(&self) -> String {
        format!("{}.conf", self.profile.name)
    }

    /// Makes the folders and the module's configuration, which must be there before the module is
    /// loaded. May be repeated.
    pub fn prepare(&self) -> Result<(), Error> {
        if !is_region(&self.region) {
            return Err(crate::config::Error::Region(self.region.clone()).into());
        }
        if !is_account(&self.account) {
            return Err(Error::Refused(format!("account `{}` is not 12 digits", self.account)));
        }
        if self.configuration().exists() {
            let dir = self.dir.display();
            return Err(Error::Refused(format!("`{dir}` holds an appliance already")));
        }
        if self.dir.join("store").exists() {
            let dir = self.dir.display();
            let text = format!("`{dir}` holds what is left of an init that broke off: remove it");
            return Err(Error::Refused(text));
        }
        let tokens = self.dir.join("tokens");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&tokens)
            .map_err(|e| Error::io(&tokens, e))?;
        let profile = &self.profile;
        let text = profile.configuration(&written(&tokens)?).ok_or_else(|| {
            Error::Refused(format!("a token of profile `{}` is not made here", profile.name))
        })?;
        if !self.module_configuration().exists() {
            write_private(&self.module_configuration(), text.as_bytes())?;
        }
        Ok(())
    }

    /// Makes the rest; answers the administrator's access key, and the database. Who serves in the
    /// same process closes that first, once this reactor has ended: what a task of it left to be
    /// written keeps the database open on a thread of its own until it is.
    pub async fn found(&self) -> Result<(NewKey, Arc<Sqlite>), Error> {
        let world = World::system();
        let pin = self.pin("hsm-pin", &world)?;
        let so_pin = self.pin("hsm-so-pin", &world)?;
        let module = self.module.as_deref().map(written).transpose()?;
        let label = format!("strongroom-{}", self.account);
        let (profile, device) = (self.profile.clone(), self.device.clone());
        let module_path = module.as_ref().map(PathBuf::from);
        let token = Locator::Label(label.clone());
        let access = Access { token, pin, module: module_path, device };
        let token = on_thread(move || Ok(provision(&profile, &access, &so_pin, &label)?)).await?;
        let text = self.text(&token.serial, module.as_deref());
        let unfinished = self.dir.join("strongroom.toml.new");
        write_private(&unfinished, text.as_bytes())?;
        let config = Config::read(&unfinished)?;
        let database = open_store(&config)?;
        let store = Store::new(database.clone());
        let (config, tokens) = on_thread(move || {
            let tokens = open_tokens(&config)?;
            Ok((config, tokens))
        })
        .await?;
        let administrator = self.furnish(config, store, tokens, &world).await?;
        std::fs::rename(&unfinished, self.configuration())
            .map_err(|e| Error::io(&unfinished, e))?;
        sync_folder(&self.dir)?;
        Ok((administrator, database))
    }

    /// What it says.
    fn text(&self, serial: &str, module: Option<&str>) -> String {
        let module = match module {
            Some(path) => format!("module = '{path}'"),
            None => "# module = \"/usr/lib/softhsm/libsofthsm2.so\"".to_owned(),
        };
        CONFIGURATION
            .replace("@REGION@", &self.region)
            .replace("@LISTEN@", &self.listen.to_string())
            .replace("@PROFILE@", &self.profile.name)
            .replace("@SERIAL@", serial)
            .replace("@CONFIGURATION@", &self.module_configuration_name())
            .replace("@MODULE@", &module)
    }

    /// Store key, account, default KMS key, administrator.
    async fn furnish(
        &self,
        config: Config,
        store: Store,
        tokens: Tokens,
        world: &World,
    ) -> Result<NewKey, Error> {
        let wrapped = self.store_key(&tokens, world).await?;
        let site = Site {
            region: self.region.clone(),
            account: self.account.clone(),
            store_key: serde_json::to_value(&wrapped)
                .map_err(|_| store::Error::Internal("a store key that can't be written"))?,
            created: world.clock.now(),
        };
        let row = site.clone();
        store.write::<_, store::Error>(move |tx| put_site(tx, &row)).await?;
        let appliance = Appliance::join(config, store, tokens, site).await?;
        crate::ops::keys::create::create_service_key(&appliance.services, &self.account).await?;
        let (services, account) = (&appliance.services, &self.account);
        Ok(administrators::found_account(services, account, Who::Administrator).await?)
    }

    /// A store key, held by the token.
    async fn store_key(&self, tokens: &Tokens, world: &World) -> Result<WrappedStoreKey, Error> {
        let (lane, id) = (tokens.main()?, BackingKeyId(random_bytes(&*world.random)?));
        let scheme = store_scheme(lane)?;
        let made = lane.generate(id, scheme).await?;
        let holder = KeyHolder {
            key: id,
            token: lane.info().serial.clone(),
            check: made.evidence.check,
            wrapped: made.wrapped,
            public: made.public.map(|public| PublicKey(public.into())),
        };
        let (key, random) = (StoreKey::create(&*world.random)?, &*world.random);
        let wrap = key.wrap(lane, random, &self.region, (holder, scheme)).await?;
        Ok(WrappedStoreKey { wraps: vec![wrap] })
    }

    /// A random PIN of 32 hex digits, kept in a file of mode 0600.
    fn pin(&self, name: &str, world: &World) -> Result<Secret, Error> {
        let path = self.dir.join(name);
        if path.exists() {
            return Ok(super::pin::read("main", Some(&path))?);
        }
        let mut pin = Secret::new(Vec::with_capacity(32));
        for byte in random_bytes::<16>(&*world.random)? {
            for digit in [byte >> 4, byte & 15] {
                pin.expose_mut()
                    .push(b"0123456789abcdef".get(usize::from(digit)).copied().unwrap_or(b'0'));
            }
        }
        write_private(&path, pin.expose())?;
        Ok(pin)
    }
}

/// An absolute path as configuration files have it between apostrophes. What would end the line or
/// the text in one of them is refused: SoftHSM takes what follows a hash sign for a comment.
fn written(path: &Path) -> Result<String, Error> {
    let whole = std::path::absolute(path).map_err(|e| Error::io(path, e))?;
    let text = whole.to_str().filter(|t| !t.contains(|c: char| c.is_control() || "#'".contains(c)));
    let text = text.ok_or_else(|| {
        Error::Refused(format!("`{}` can't stand in a configuration file", whole.display()))
    })?;
    Ok(text.to_owned())
}

/// Writes a new file of mode 0600, safe on disk.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::io(path, e))
}

fn sync_folder(dir: &Path) -> Result<(), Error> {
    std::fs::File::open(dir).and_then(|f| f.sync_all()).map_err(|e| Error::io(dir, e))
}
