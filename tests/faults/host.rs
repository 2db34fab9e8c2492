//! The process that holds the token, from outside: killed, stopped and told to end under load, with a
//! module in it that hangs; and gone when the server is.

use crate::appliance::{Appliance, Lots, root, send, there, token_host, until};
use crate::shim::Shim;
use crate::storm::{CLEAR, Caller, behind_the_shim};
use serde_json::json;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What is promised is a second.
const BACK: Duration = Duration::from_secs(2);

fn new_key(appliance: &Appliance) -> String {
    let made = appliance.client().ask("kms:CreateKey", &json!({})).output();
    made["KeyMetadata"]["KeyId"].as_str().expect("an id").to_owned()
}

#[test]
fn killed_under_load_it_is_started_again_and_nothing_is_lost() {
    let mut appliance = Appliance::start();
    let key = new_key(&appliance);
    let mut callers: Vec<_> =
        (0..4).map(|n| Caller::new(n, &appliance, &key, Lots(n as u64))).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for caller in &mut callers {
            scope.spawn(|| caller.work(&stop));
        }
        let ended = std::panic::catch_unwind(|| kill_it(&appliance, &key));
        stop.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
    let succeeded: usize = callers.iter().map(Caller::succeeded).sum();
    assert!(succeeded > 100, "the load was none: {succeeded}");
    for caller in &mut callers {
        caller.check(&appliance);
    }
    appliance.stop();
}

fn kill_it(appliance: &Appliance, key: &str) {
    let mut client = appliance.client();
    let input = json!({"KeyId": key, "Plaintext": "AAAA"});
    let mut longest = Duration::ZERO;
    for round in 0..10 {
        let host = token_host(appliance.pid());
        // A terminal and a service manager send these to every process of a service.
        ["TERM", "INT", "HUP"].into_iter().for_each(|signal| send(signal, host));
        std::thread::sleep(Duration::from_millis(100));
        assert!(there(host), "round {round}: it did not wait for the server");
        send("KILL", host);
        longest = longest
            .max(until("the service", BACK, || client.ask("kms:Encrypt", &input).status == 200));
        until("the old process's end", BACK, || !there(host));
    }
    println!("ten times killed; back after {longest:?} at most");
}

#[test]
fn a_process_that_does_not_answer_is_replaced() {
    let appliance = Appliance::start();
    let key = new_key(&appliance);
    let host = token_host(appliance.pid());
    send("STOP", host);
    until("its end", Duration::from_secs(12), || !there(host));
    let input = json!({"KeyId": key, "Plaintext": "AAAA"});
    until("the service", BACK, || appliance.client().ask("kms:Encrypt", &input).status == 200);
    assert!(appliance.log().contains("has not answered"), "{}", appliance.log());
}

#[test]
fn a_module_that_hangs_on_every_thread_is_no_end_of_the_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let shim = Shim::new(folder.path());
    let mut appliance = behind_the_shim(folder.path(), "process");
    appliance.stop();
    let path = appliance.path("strongroom.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let text = text.replace("[token.lane]", "[token.lane]\ndeadline_ms = 1000\nworkers = 2");
    fs::write(&path, text).expect("written");
    appliance.resume();
    let key = new_key(&appliance);
    let input = json!({"KeyId": key, "Plaintext": "AAAA"});
    let host = token_host(appliance.pid());
    shim.set(["C_SignInit 0 2 hang"]);
    for _ in 0..2 {
        let told = appliance.client().ask("kms:Encrypt", &input);
        assert!(CLEAR.contains(&&*told.code()), "{}", told.text());
    }
    let mut client = appliance.client();
    until("unreadiness", BACK, || client.look("/readyz").status == 503);
    assert_eq!(client.look("/healthz").status, 200);
    // What hangs goes on hanging, and no other call does.
    shim.set(["C_SignInit 0 0 hang"]);
    until("the service", Duration::from_secs(5), || {
        appliance.client().ask("kms:Encrypt", &input).status == 200
    });
    until("readiness", BACK, || client.look("/readyz").status == 200);
    assert_ne!(token_host(appliance.pid()), host);
    let log = appliance.log();
    assert!(log.contains("a call to it has not come back within"), "{log}");
}

#[test]
fn it_is_gone_when_the_server_is_however_that_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let shim = Shim::new(folder.path());
    let mut appliance = behind_the_shim(folder.path(), "process");
    let host = token_host(appliance.pid());
    appliance.stop();
    assert!(!there(host), "after SIGTERM");

    appliance.wrapper.push("STRONGROOM_PIN=planted-in-the-environment".to_owned());
    appliance.resume();
    let host = token_host(appliance.pid());
    let read = |name: &str| fs::read(format!("/proc/{host}/{name}")).unwrap_or_default();
    assert_eq!(read("cmdline"), b"strongroom\0token-host\0");
    if root() {
        let environment = String::from_utf8_lossy(&read("environ")).replace('\0', "\n");
        assert!(environment.contains("STRONGROOM_SHIM_DIRECTORY="), "{environment}");
        assert!(!environment.contains("planted"), "{environment}");
    }
    appliance.kill();
    until("its end after SIGKILL", BACK, || !there(host));

    appliance.resume();
    let (key, host) = (new_key(&appliance), token_host(appliance.pid()));
    shim.set(["C_SignInit 0 * hang"]);
    let mut client = appliance.client();
    let input = json!({"KeyId": key, "Plaintext": "AAAA"});
    let asked = std::thread::spawn(move || drop(client.call("kms:Encrypt", &input)));
    until("a call that hangs", BACK, || shim.calls().struck() > 0);
    appliance.kill();
    until("its end with a call in it", BACK, || !there(host));
    asked.join().expect("ended");
}
