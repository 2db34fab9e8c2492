//! RabbitMQ, through its management plugin.

use crate::servers::{ADMIN, ADMIN_PASSWORD, Authority, Home, Server, free_port};
use crate::{NEW, OLD, alternating, login, secret, single_user, tls};
use serde_json::{Value, json};
use std::process::Command;
use strongroom::rotate::target::{Login, System};

const SYSTEM: System = System::RabbitMq;
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin/";

struct RabbitMq {
    home: Home,
    authority: Authority,
    tls_port: u16,
    admin: Login,
    _server: Server,
    _epmd: Server,
}

impl RabbitMq {
    fn start() -> Self {
        let (home, authority) = (Home::new(), Authority::new());
        let (port, tls_port, amqp, epmd) = (free_port(), free_port(), free_port(), free_port());
        home.certify(&authority);
        home.write("plugins", "[rabbitmq_management].");
        let definitions = json!({
            "vhosts": [{"name": "/"}, {"name": "a/b c"}],
            "users": [
                {"name": ADMIN, "password": ADMIN_PASSWORD, "tags": "administrator"},
                {"name": "app", "password": OLD, "tags": ""},
                {"name": "watch/er", "password": OLD, "tags": "monitoring,policymaker"},
            ],
            "permissions": [
                {"user": "watch/er", "vhost": "a/b c", "configure": "^x", "write": "y", "read": ".*"},
            ],
            "topic_permissions": [
                {"user": "watch/er", "vhost": "a/b c", "exchange": "amq.topic", "write": "w", "read": "r"},
            ],
            "policies": [], "queues": [], "exchanges": [], "bindings": [], "parameters": [],
        });
        home.write("definitions.json", &definitions.to_string());
        let settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {port}\nmanagement.ssl.ip = 127.0.0.1\n\
             management.ssl.port = {tls_port}\nmanagement.ssl.certfile = {}\n\
             management.ssl.keyfile = {}\nload_definitions = {}\n",
            home.text("server.pem"),
            home.text("server.key"),
            home.text("definitions.json"),
        );
        home.write("rabbitmq.conf", &settings);
        let mut command = home.command(&format!("{PROGRAMS}rabbitmq-server"));
        for (name, file) in [
            ("HOME", ""),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
            ("RABBITMQ_LOG_BASE", "logs"),
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_PID_FILE", "pid"),
        ] {
            command.env(name, home.text(file));
        }
        command.env("RABBITMQ_NODENAME", format!("strongroom-{amqp}@localhost"));
        command.env("RABBITMQ_DIST_PORT", free_port().to_string());
        command.env("ERL_EPMD_PORT", epmd.to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
        // Erlang's port mapper: ours, or the broker would leave one behind.
        let port_of_mapper = epmd.to_string();
        let mut mapper = home.command("epmd");
        mapper.args(["-port", &port_of_mapper, "-address", "127.0.0.1"]);
        let mapper = home.start(&mut mapper, epmd);
        let server = home.start(&mut command, port);
        let admin = login(port, ADMIN, ADMIN_PASSWORD);
        let broker = Self { home, authority, tls_port, admin, _server: server, _epmd: mapper };
        broker.wait();
        broker
    }

    /// It listens before it has loaded its definitions.
    fn wait(&self) {
        let loaded =
            |all: Value| all["topic_permissions"].as_array().is_some_and(|all| !all.is_empty());
        for _ in 0..600 {
            if self.export().is_some_and(loaded) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("no definitions: {}", self.home.read("log"));
    }

    /// What somebody does by hand.
    fn delete(&self, what: &str) {
        let url = format!("http://127.0.0.1:{}/api/{what}", self.admin.port);
        let as_admin = format!("{ADMIN}:{ADMIN_PASSWORD}");
        self.home.run(Command::new("curl").args(["-sSf", "-X", "DELETE", "-u", &as_admin, &url]));
    }

    /// What the broker keeps, read by a program that is not ours.
    fn export(&self) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/api/definitions", self.admin.port);
        let as_admin = format!("{ADMIN}:{ADMIN_PASSWORD}");
        let output =
            Command::new("curl").args(["-sSf", "-u", &as_admin, &url]).output().expect("curl");
        serde_json::from_slice(&output.stdout).ok()
    }
}

fn of(all: &Value, kind: &str, member: &str, user: &str) -> Vec<Value> {
    let list = all[kind].as_array().expect("a list");
    list.iter().filter(|one| one[member] == user).cloned().collect()
}

#[tokio::test]
async fn users_of_rabbitmq_rotate_and_alternate() {
    let server = RabbitMq::start();
    single_user(SYSTEM, &server.admin, "app").await;
    single_user(SYSTEM, &server.admin, "watch/er").await;
    alternating(SYSTEM, &server.admin, "watch/er").await;
    let all = server.export().expect("definitions");
    let clone = "watch/er_clone";
    assert_eq!(
        of(&all, "users", "name", clone)[0]["tags"],
        of(&all, "users", "name", "watch/er")[0]["tags"]
    );
    for kind in ["permissions", "topic_permissions"] {
        let mut wanted = of(&all, kind, "user", "watch/er");
        wanted.iter_mut().for_each(|one| one["user"] = clone.into());
        assert_eq!(wanted.len(), 1);
        assert_eq!(of(&all, kind, "user", clone), wanted);
    }
    // What is taken from the user does not live on with the clone.
    for kind in ["permissions", "topic-permissions"] {
        server.delete(&format!("{kind}/a%2Fb%20c/watch%2Fer"));
    }
    SYSTEM.clone_user(&server.admin, "watch/er", clone, &secret(NEW)).await.expect("the clone");
    let all = server.export().expect("definitions");
    for kind in ["permissions", "topic_permissions"] {
        assert_eq!(of(&all, kind, "user", clone), [] as [Value; 0]);
    }
    let encrypted = Login { port: server.tls_port, ..login(0, ADMIN, ADMIN_PASSWORD) };
    tls(SYSTEM, &encrypted, &server.authority).await;
    assert!(!server.home.read("log").contains(NEW));
}
