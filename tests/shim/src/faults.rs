//! The faults that a test has asked for: the file `faults`, one fault a line, as
//! `FUNCTION SKIP TIMES EFFECT [ARGUMENT]`:
//!
//! ```text
//! C_Sign 1 3 answer CKR_DEVICE_ERROR    after one call, three fail and reach nothing
//! C_GenerateKey 0 1 done CKR_DEVICE_ERROR    the next is done, and says that it failed
//! C_Login 0 * delay 250    each takes 250 ms longer
//! C_Sign 0 1 hang    the next waits until no line says that C_Sign hangs, then goes on
//! C_Sign 0 1 crash    the next ends the process
//! # A comment makes the same faults a new file.
//! ```
//!
//! The first line that fits strikes. Counting starts again when the text changes; a file that is not
//! there holds no fault. Replace it by renaming, so that no half of it is read.

use crate::values::value;
use cryptoki_sys::CK_RV;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

#[derive(Clone, Copy)]
pub(crate) enum Effect {
    /// This value, and the call reaches nothing.
    Answer(CK_RV),
    /// The call is made, and this value answered.
    DoneBut(CK_RV),
    Delay(Duration),
    /// Until it is taken back.
    Hang,
    Crash,
}

struct Fault {
    function: String,
    skip: u64,
    /// How often it will strike yet.
    times: u64,
    effect: Effect,
}

#[derive(Default)]
struct Faults {
    text: String,
    all: Vec<Fault>,
}

/// Held while the file is read, so that no thread goes back to an older one.
static FAULTS: Mutex<Option<Faults>> = Mutex::new(None);

/// What happens to this call.
pub(crate) fn strike(function: &str) -> Option<Effect> {
    let mut guard = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
    let faults = current(&mut guard);
    let effect = faults.all.iter_mut().find_map(|fault| fault.strikes(function));
    note(function, effect.is_some());
    effect
}

/// Returns once this function is not said to hang, be it no times.
pub(crate) fn released(function: &str) {
    let hangs = || {
        let mut guard = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = current(&mut guard).all.iter();
        faults.filter(|f| f.function == function).any(|f| matches!(f.effect, Effect::Hang))
    };
    while hangs() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The faults that the file holds now.
fn current(known: &mut Option<Faults>) -> &mut Faults {
    let text = std::fs::read_to_string(path("faults")).unwrap_or_default();
    let faults = known.get_or_insert_default();
    if faults.text != text {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let all = lines.map(|line| {
            Fault::read(line).unwrap_or_else(|| panic!("the fault shim can't read `{line}`"))
        });
        faults.all = all.collect();
        faults.text = text;
    }
    faults
}

impl Fault {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let function = words.next()?.to_owned();
        let skip = words.next()?.parse().ok()?;
        let times = words.next().map(|word| if word == "*" { Ok(u64::MAX) } else { word.parse() });
        let times = times?.ok()?;
        let effect = match (words.next()?, words.next()) {
            ("answer", Some(word)) => Effect::Answer(value(word)?),
            ("done", Some(word)) => Effect::DoneBut(value(word)?),
            ("delay", Some(word)) => Effect::Delay(Duration::from_millis(word.parse().ok()?)),
            ("hang", None) => Effect::Hang,
            ("crash", None) => Effect::Crash,
            _ => return None,
        };
        words.next().is_none().then_some(Self { function, skip, times, effect })
    }

    fn strikes(&mut self, function: &str) -> Option<Effect> {
        if self.function != function || self.times == 0 {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        Some(self.effect)
    }
}

/// Tells the test of a call, before it is made.
fn note(function: &str, struck: bool) {
    static CALLS: OnceLock<File> = OnceLock::new();
    let mut file = CALLS.get_or_init(|| {
        let file = OpenOptions::new().create(true).append(true).open(path("calls"));
        file.expect("the shim's folder can be written to")
    });
    let line = format!("{function}{}\n", if struck { " *" } else { "" });
    file.write_all(line.as_bytes()).expect("the shim's folder can be written to");
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(variable("STRONGROOM_SHIM_DIRECTORY")).join(name)
}

/// An environment variable that the shim can't do without.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the fault shim wants {name}"))
}
