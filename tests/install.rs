//! What `scripts/install` puts on a machine, and that systemd takes the unit and finds it tight.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic, and a skip is loud"
)]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Exposure, in tenths, that `systemd-analyze security` may find at most.
const EXPOSURE: &str = "20";

fn install(destination: &Path) -> Output {
    Command::new(format!("{ROOT}/scripts/install"))
        .arg(env!("CARGO_BIN_EXE_strongroom"))
        .env("DESTDIR", destination)
        .output()
        .expect("scripts/install runs")
}

/// The output of a run that must succeed, or `None` (said aloud) where systemd is not installed.
fn systemd_analyze(arguments: &[&str]) -> Option<String> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("NOT CHECKED: systemd-analyze {arguments:?} (no systemd here)");
            None
        }
        run => {
            let run = run.expect("systemd-analyze runs");
            let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
            assert!(run.status.success(), "systemd-analyze {arguments:?}: {said}");
            Some(said)
        }
    }
}

#[test]
fn install_fills_a_destination_and_twice_does_no_harm() {
    let destination = tempfile::tempdir().expect("a temporary folder");
    for _ in 0..2 {
        let run = install(destination.path());
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
    let expected = [
        ("usr/bin/strongroom", 0o755),
        ("usr/lib/systemd/system/strongroom.service", 0o644),
        ("usr/lib/sysusers.d/strongroom.conf", 0o644),
        ("etc/sysctl.d/60-strongroom.conf", 0o644),
        ("usr/share/strongroom/hsm-profiles/softhsm2/profile.toml", 0o644),
        ("usr/share/strongroom/hsm-profiles/kryoptic/profile.toml", 0o644),
        ("usr/share/doc/strongroom/firmware-config.md", 0o644),
        ("etc/strongroom", 0o750),
    ];
    for (path, mode) in expected {
        let found = fs::metadata(destination.path().join(path)).expect(path).permissions();
        assert_eq!(found.mode() & 0o7777, mode, "{path}");
    }
}

#[test]
fn systemd_takes_the_unit_without_a_warning_and_finds_it_tight() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = fs::read_to_string(format!("{ROOT}/firmware-config/systemd/strongroom.service"))
        .expect("the unit");
    let unit = folder.path().join("strongroom.service");
    // systemd wants the program to be there.
    let here = source.replace("ExecStart=/usr/bin/strongroom", "ExecStart=/bin/true");
    assert_ne!(here, source, "the unit starts /usr/bin/strongroom");
    fs::write(&unit, here).expect("a copy of the unit");
    let unit = unit.to_str().expect("a temporary path in UTF-8");
    if let Some(said) = systemd_analyze(&["verify", "--man=no", unit]) {
        assert_eq!(said, "", "a warning about the unit");
    }
    let threshold = format!("--threshold={EXPOSURE}");
    systemd_analyze(&["security", "--offline=true", "--no-pager", &threshold, unit]);
}
