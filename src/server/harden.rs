//! What the process does for its own safety before it touches a key.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Turns core dumps and the reading of our memory by others off, and keeps our memory out of swap
/// where the limits allow it (`LimitMEMLOCK=infinity` in the unit).
///
/// # Errors
/// A sentence, if core dumps can't be turned off: then nothing is served.
pub fn harden() -> Result<(), String> {
    forbid_dumps()?;
    if let Err(error) =
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
    {
        tracing::warn!(%error, "memory could not be locked: keys could be swapped to disk; raise \
            the limit of locked memory (LimitMEMLOCK) or turn swap off");
    }
    Ok(())
}

/// Turns core dumps, of what this process starts too, and the reading of our memory by others off.
///
/// # Errors
/// A sentence.
pub fn forbid_dumps() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|e| format!("core dumps can't be turned off: {e}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| format!("the process can't be made undumpable: {e}"))
}
