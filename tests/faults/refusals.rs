//! Unsafe set-ups: `init`, `serve` and `dev` refuse each with one clear sentence.

use crate::appliance::{PROGRAM, chmod, end, files, until};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// An appliance that `strongroom init` made, not running.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("a folder"));
        let dir = site.shown("");
        let init = ["init", "--listen", "127.0.0.1:0", "--dir", dir.trim_end_matches('/')];
        let (code, said) = site.run(&init);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("site").join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs the program to its end: its exit code and what it says on standard error, with the
    /// folder's name replaced by DIR.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let log = self.0.path().join("stderr");
        let child = Command::new(PROGRAM)
            .args(arguments)
            .env("STRONGROOM_LOG", "off")
            .env_remove("SOFTHSM2_CONF")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("started");
        let status = end(child);
        let said = fs::read_to_string(log).expect("a log");
        (status.code(), said.replace(self.shown("").trim_end_matches('/'), "DIR"))
    }

    /// What `strongroom serve` says when it refuses.
    fn serve(&self) -> String {
        let (code, said) = self.run(&["serve", "--config", &self.shown("strongroom.toml")]);
        assert!(matches!(code, Some(1 | 78)), "{code:?} {said}");
        said
    }

    /// Edits the configuration.
    fn configure(&self, from: &str, to: &str) {
        let path = self.path("strongroom.toml");
        let text = fs::read_to_string(&path).expect("a configuration");
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).expect("written");
    }

    /// Edits the document that says what the database is.
    fn edit_site(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let database = rusqlite::Connection::open(self.path("store/strongroom.db"));
        let database = database.expect("a database");
        let sql = "SELECT value FROM meta WHERE name = 'site'";
        let bytes: Vec<u8> = database.query_row(sql, [], |row| row.get(0)).expect("a site");
        let mut site = serde_json::from_slice(&bytes).expect("JSON");
        edit(&mut site);
        let bytes = serde_json::to_vec(&site).expect("JSON");
        let sql = "UPDATE meta SET value = ?1 WHERE name = 'site'";
        assert_eq!(database.execute(sql, [bytes]).expect("written"), 1);
    }
}

#[test]
fn a_pin_that_others_can_read() {
    let site = Site::new();
    chmod(&site.path("hsm-pin"), 0o644);
    assert_eq!(
        site.serve(),
        "strongroom: the PIN file `DIR/hsm-pin` can be read by others: run `chmod 600 \
         DIR/hsm-pin`\n"
    );
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let site = Site::new();
    fs::write(site.path("hsm-pin"), "wrong wrong wrong").expect("written");
    let said = site.serve();
    assert!(said.starts_with("strongroom: token `"), "{said}");
    assert!(said.contains("refused the PIN"), "{said}");
    assert!(!said.contains("wrong wrong"), "{said}");
}

/// Nor is it tried again while another token is waited for.
#[test]
fn a_wrong_pin_is_not_tried_again_while_another_token_is_waited_for() {
    let site = Site::new();
    fs::write(site.path("hsm-pin"), "wrong wrong wrong").expect("written");
    let spare = "[[token]]\nname = \"spare\"\nprofile = \"softhsm2\"\nserial = \"0000\"\n\
                 configuration = \"softhsm2.conf\"\npin_file = \"hsm-so-pin\"\n";
    site.configure("[token.lane]", "");
    site.configure("[token]", "[[token]]");
    site.configure("[store]", &format!("{spare}\n[store]"));
    let (code, said) = site.run(&["serve", "--config", &site.shown("strongroom.toml")]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("refused the PIN"), "{said}");
}

#[test]
fn a_database_that_others_can_read() {
    let site = Site::new();
    chmod(&site.path("store/strongroom.db"), 0o644);
    assert_eq!(
        site.serve(),
        "strongroom: `DIR/store/strongroom.db` is open to other users (mode 644): run `chmod 600 \
         DIR/store/strongroom.db`\n"
    );
    chmod(&site.path("store/strongroom.db"), 0o600);
    chmod(&site.path("store"), 0o755);
    assert_eq!(
        site.serve(),
        "strongroom: `DIR/store` is open to other users (mode 755): run `chmod 700 DIR/store`\n"
    );
}

/// A token that is not there is waited for: the server says so, and serves when it has come.
#[test]
fn a_token_that_is_not_there() {
    let site = Site::new();
    fs::rename(site.path("tokens"), site.path("elsewhere")).expect("moved");
    fs::create_dir(site.path("tokens")).expect("made");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number");
    site.configure("127.0.0.1:0", &port.to_string());
    let mut server = Command::new(PROGRAM)
        .args(["serve", "--config", &site.shown("strongroom.toml")])
        .env("STRONGROOM_LOG", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let ask = |path: &str| -> String {
        let asked = || {
            let mut stream = TcpStream::connect(port)?;
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        asked().unwrap_or_default()
    };
    let serial = serial(&site.path("strongroom.toml"));
    let waits = format!("token `serial {serial}` is unavailable: it is in no slot");
    until("what it waits for", Duration::from_secs(30), || ask("/readyz").contains(&waits));
    assert!(ask("/healthz").starts_with("HTTP/1.1 200"));
    assert!(ask("/metrics").starts_with("HTTP/1.1 503"));
    fs::remove_dir(site.path("tokens")).expect("removed");
    fs::rename(site.path("elsewhere"), site.path("tokens")).expect("moved back");
    until("the service", Duration::from_secs(30), || ask("/readyz").starts_with("HTTP/1.1 200"));
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
    assert!(server.wait().expect("ended").success());
}

fn serial(configuration: &Path) -> String {
    let text = fs::read_to_string(configuration).expect("a configuration");
    let line = text.lines().find(|line| line.starts_with("serial = ")).expect("a serial");
    line.trim_start_matches("serial = ").trim_matches('"').to_owned()
}

#[test]
fn a_store_key_that_checks_to_something_else() {
    let site = Site::new();
    site.edit_site(|document| {
        let first = &mut document["store_key"]["wraps"][0]["holder"]["check"][0];
        *first = (255 - first.as_u64().expect("a byte")).into();
    });
    let said = site.serve();
    assert!(said.contains("is not to be trusted: its key-check value is another"), "{said}");
}

#[test]
fn another_token_than_the_one_it_was_made_with() {
    let (site, other) = (Site::new(), Site::new());
    for token in fs::read_dir(other.path("tokens")).expect("tokens") {
        let token = token.expect("a token");
        let to = site.path("tokens").join(token.file_name());
        crate::appliance::copy(&token.path(), &to);
    }
    let ours = serial(&site.path("strongroom.toml"));
    let theirs = serial(&other.path("strongroom.toml"));
    site.configure(&ours, &theirs);
    fs::copy(other.path("hsm-pin"), site.path("hsm-pin")).expect("copied");
    let said = site.serve();
    let wanted = format!(
        "strongroom: the token of serial number `{theirs}` does not hold the store key: the database \
         was made with the token of serial number `{ours}`\n"
    );
    assert_eq!(said, wanted);
}

#[test]
fn init_where_an_appliance_is_or_where_one_broke_off() {
    let site = Site::new();
    let dir = site.shown("");
    let before = files(&site.path(""));
    let again = ["init", "--dir", dir.trim_end_matches('/')];
    assert_eq!(
        site.run(&again),
        (Some(78), "strongroom: `DIR` holds an appliance already\n".to_owned())
    );
    fs::remove_file(site.path("strongroom.toml")).expect("removed");
    assert_eq!(
        site.run(&again),
        (
            Some(78),
            "strongroom: `DIR` holds what is left of an init that broke off: remove it\n"
                .to_owned()
        )
    );
    assert_eq!(files(&site.path("")).len(), before.len() - 1, "nothing else was touched");
}

#[test]
fn a_setting_that_does_not_exist() {
    let site = Site::new();
    site.configure("[audit]", "[audit]\ncolour = \"green\"");
    let said = site.serve();
    assert!(
        said.starts_with("strongroom: the configuration `DIR/strongroom.toml` is wrong"),
        "{said}"
    );
    assert!(said.contains("unknown field `colour`"), "{said}");
}

#[test]
fn plain_http_for_others() {
    let site = Site::new();
    site.configure("127.0.0.1:0", "0.0.0.0:8200");
    let said = site.serve();
    assert!(said.contains("0.0.0.0:8200"), "{said}");
    assert!(said.contains("plain HTTP is for loopback addresses"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_tls_key_that_others_can_read() {
    let site = Site::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(site.path("chain.pem"), made.cert.pem()).expect("written");
    fs::write(site.path("key.pem"), made.signing_key.serialize_pem()).expect("written");
    chmod(&site.path("key.pem"), 0o644);
    site.configure(
        "[front.limits]",
        "listen = [\"127.0.0.1:0\"]\ntls = { certificate = \"chain.pem\", key = \"key.pem\" }\n[front.limits]",
    );
    let said = site.serve();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("DIR/key.pem") && said.contains("chmod 600"), "{said}");
    assert!(!said.contains("PRIVATE KEY"), "{said}");
}

#[test]
fn another_region() {
    let site = Site::new();
    site.configure("region = \"us-east-1\"", "region = \"eu-central-1\"");
    assert_eq!(
        site.serve(),
        "strongroom: the database was made for region `us-east-1` and the configuration says \
         `eu-central-1`\n"
    );
}

#[test]
fn a_second_server_on_the_same_folder() {
    let mut appliance = crate::appliance::Appliance::start();
    let said = appliance.second();
    assert!(said.contains("/store` is in use by another strongroom process\n"), "{said}");
    let reply = appliance.client().ask("kms:ListKeys", &serde_json::json!({}));
    assert_eq!(reply.status, 200, "the first is not disturbed");
    appliance.stop();
}

#[test]
fn no_configuration_no_appliance_and_no_audit_log() {
    let site = Site::new();
    let said = site.run(&["serve", "--config", &site.shown("nothing.toml")]).1;
    assert_eq!(
        said,
        "strongroom: can't read the configuration `DIR/nothing.toml`: No such file or directory \
         (os error 2)\n"
    );
    site.configure("# path = \"audit.jsonl\"", "path = \"missing/audit.jsonl\"");
    assert_eq!(
        site.serve(),
        "strongroom: the audit log `DIR/missing/audit.jsonl` can't be written: No such file or \
         directory (os error 2)\n"
    );
    site.configure("# dir = \"store\"", "dir = \"empty\"");
    assert_eq!(
        site.serve(),
        "strongroom: `DIR/empty` holds no appliance: run `strongroom init` first\n"
    );
}

#[test]
fn an_address_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let site = Site::new();
    site.configure("127.0.0.1:0", &address);
    let said = site.serve();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}
