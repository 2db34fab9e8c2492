//! Makes an appliance: folder, tokens, store key, account, first administrator. The configuration
//! file is written last, so that a founding which broke off is no appliance.

mod token;
mod undo;

use self::token::Entry;
pub use self::token::{Boot, Existing, PinSource, TokenPlan};
use self::undo::Undo;
pub use self::undo::take_back;
use super::{Appliance, Error, on_thread, open_store, open_tokens};
use crate::clock::{World, random_bytes};
use crate::config::Config;
use crate::custody::child::Isolation;
use crate::custody::lane::Lane;
use crate::custody::tokens::Tokens;
use crate::envelope::store_key::{StoreKey, WrappedStoreKey};
use crate::name::{BackingKeyId, PublicKey, Scheme, is_account, is_region};
use crate::ops::iam::administrators::{self, NewKey, Who};
use crate::ops::keys::holders::store_key;
use crate::store::keys::KeyHolder;
use crate::store::meta::{Site, put_site};
use crate::store::sqlite::Sqlite;
use crate::store::{self, Store};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The template of the configuration.
const CONFIGURATION: &str = include_str!("../../firmware-config/strongroom.toml.in");

/// The name of the first token.
pub const MAIN: &str = "main";
/// The name of a token that holds the same keys.
pub const SECOND: &str = "second";

/// What an appliance is to be.
pub struct Plan {
    /// The folder that everything goes into.
    pub dir: PathBuf,
    /// The token, [`MAIN`].
    pub token: TokenPlan,
    /// A token that holds the same keys, [`SECOND`].
    pub second: Option<TokenPlan>,
    /// Whether a device whose death loses everything may be the only token.
    pub no_recovery: bool,
    /// Where the tokens' drivers run.
    pub isolation: Isolation,
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

    /// Makes the folders and the modules' configurations, which must be there before a module is
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
        self.check_holders()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|e| Error::io(&self.dir, e))?;
        self.tokens().try_for_each(|token| token.prepare(&self.dir))
    }

    fn tokens(&self) -> impl Iterator<Item = &TokenPlan> {
        std::iter::once(&self.token).chain(&self.second)
    }

    /// Two tokens need a scheme by which both hold one key; one that dies alone must be meant.
    fn check_holders(&self) -> Result<(), Error> {
        if self.second.is_some() {
            return self.tokens().try_for_each(TokenPlan::shares);
        }
        if !self.token.dies_alone() || self.no_recovery {
            return Ok(());
        }
        let title = &self.token.profile.title;
        Err(Error::Refused(format!(
            "keys never leave this token ({title}): when it dies or is lost, every secret and every \
             ciphertext is lost with it, and no backup helps. Give a second token that holds the same \
             keys, with --second-profile and --second-device, --second-module, --second-label or \
             --second-serial; or say --no-recovery"
        )))
    }

    /// Makes the rest; answers the administrator's access key, and the database. Who serves in the
    /// same process closes that first, once this reactor has ended: what a task of it left to be
    /// written keeps the database open on a thread of its own until it is.
    pub async fn found(&self) -> Result<(NewKey, Arc<Sqlite>), Error> {
        let world = World::system();
        let text = self.text(&world).await?;
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
        let mut undo = Undo { store: store.clone(), tokens: tokens.clone(), made: Vec::new() };
        let administrator = self.furnish(config, store, tokens, &world, &mut undo.made).await;
        let founded = administrator.and_then(|administrator| {
            let renamed = std::fs::rename(&unfinished, self.configuration());
            renamed.map_err(|e| Error::io(&unfinished, e))?;
            // Without that its keys go: then it must not look like an appliance.
            let kept = sync_folder(&self.dir);
            kept.inspect_err(|_| drop(std::fs::remove_file(self.configuration())))?;
            Ok((administrator, database))
        });
        if founded.is_err() {
            undo.carry_out(&self.region).await;
        }
        founded
    }

    /// Reaches the tokens; answers the configuration.
    async fn text(&self, world: &World) -> Result<String, Error> {
        let label = format!("strongroom-{}", self.account);
        let place = (&*self.dir, self.isolation);
        let first = self.token.reach(place, &label, world).await?;
        let text = self.with_first(&first);
        let Some(second) = &self.second else { return Ok(text) };
        let second = second.reach(place, &format!("{label}-2"), world).await?;
        if second.serial == first.serial {
            let text = format!("the second token is the first one: serial number {}", first.serial);
            return Err(Error::Refused(text));
        }
        let several = "\n[[token]]\nname = \"main\"\nscheme = \"ecdh\"\n";
        let table = format!("\n{}{}\n[store]\n", second.table(), self.isolation_line());
        Ok(text.replace("\n[token]\n", several).replace("\n[store]\n", &table))
    }

    /// A line of a token's table, or an empty one.
    fn isolation_line(&self) -> &'static str {
        match self.isolation {
            Isolation::Process => "",
            Isolation::None => "isolation = \"none\"\n",
        }
    }

    /// The configuration of an appliance with this token.
    fn with_first(&self, token: &Entry) -> String {
        let module = match &token.module {
            Some(path) => format!("module = '{path}'"),
            None => "# module = \"/usr/lib/softhsm/libsofthsm2.so\"".to_owned(),
        };
        let isolation = match self.isolation {
            Isolation::Process => "# isolation = \"process\"",
            Isolation::None => "isolation = \"none\"",
        };
        let device = match &token.device {
            Some(device) => format!("device = '{device}'"),
            None => "# device = \"device:/dev/tpmrm0\"".to_owned(),
        };
        let configuration = match &token.configuration {
            Some(file) => format!("configuration = {}", quoted(file)),
            None => "# configuration = \"softhsm2.conf\"".to_owned(),
        };
        CONFIGURATION
            .replace("configuration = \"@CONFIGURATION@\"", &configuration)
            .replace("pin_file = \"hsm-pin\"", token.access.trim_end())
            .replace("\"@PROFILE@\"", &quoted(&token.profile))
            .replace("@DEVICE@", &device)
            .replace("@REGION@", &self.region)
            .replace("@LISTEN@", &self.listen.to_string())
            .replace("@SERIAL@", &token.serial)
            .replace("@MODULE@", &module)
            .replace("@ISOLATION@", isolation)
    }

    /// Store key, account, default KMS key, administrator.
    async fn furnish(
        &self,
        config: Config,
        store: Store,
        tokens: Tokens,
        world: &World,
        made: &mut Vec<BackingKeyId>,
    ) -> Result<NewKey, Error> {
        let wrapped = self.store_key(&tokens, world, made).await?;
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

    /// A store key, held by each token.
    async fn store_key(
        &self,
        tokens: &Tokens,
        world: &World,
        made: &mut Vec<BackingKeyId>,
    ) -> Result<WrappedStoreKey, Error> {
        let (key, random) = (StoreKey::create(&*world.random)?, &*world.random);
        let mut wraps = Vec::with_capacity(tokens.all().len());
        for member in tokens.all() {
            let lane = member.lane()?;
            let id = BackingKeyId(random_bytes(random)?);
            made.push(id);
            let held = store_holder(lane, id).await?;
            wraps.push(key.wrap(lane, random, &self.region, held).await?);
        }
        Ok(WrappedStoreKey { wraps })
    }
}

/// A key in a token that is to hold the store key.
async fn store_holder(lane: &Lane, id: BackingKeyId) -> Result<(KeyHolder, Scheme), Error> {
    let scheme = store_key::scheme(lane).map_err(|e| Error::Refused(e.message.into_owned()))?;
    let made = lane.generate(id, scheme).await?;
    let holder = KeyHolder {
        key: id,
        token: lane.info().serial.clone(),
        check: made.evidence.check,
        wrapped: made.wrapped,
        public: made.public.map(|public| PublicKey(public.into())),
    };
    Ok((holder, scheme))
}

/// A value as TOML has it: a path, which has no apostrophe in it, literally.
fn quoted(value: &str) -> String {
    if value.contains('/') { format!("'{value}'") } else { format!("\"{value}\"") }
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

/// Writes a file of mode 0600, whatever it was if it was there; safe on disk.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::io(path, e))
}

/// The same of a file that is whole at any moment: the old one, or the new one.
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    write_private(&new, bytes)?;
    std::fs::rename(&new, path).map_err(|e| Error::io(path, e))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new(".")))
}

fn sync_folder(dir: &Path) -> Result<(), Error> {
    std::fs::File::open(dir).and_then(|f| f.sync_all()).map_err(|e| Error::io(dir, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PIN that was typed once went into a file that others could read, if one was there.
    #[test]
    fn a_private_file_is_one_even_if_it_was_there_before() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("hsm-pin");
        std::fs::write(&path, "an older and longer one").expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
        write_private(&path, b"123456").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), b"123456");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
