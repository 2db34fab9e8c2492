//! Faults, from outside: the real program over a real SoftHSM token is killed, tampered with, cut
//! off from its hardware and its disk, set up unsafely, and listened to for secrets.
//!
//! One test binary, so that it is linked once and its tests share the processors.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]
#![expect(clippy::print_stdout, reason = "shown with a failure")]
#![expect(clippy::disallowed_methods, reason = "tests wait and draw lots as they like")]

mod appliance;
mod client;
mod crash;
mod drain;
mod host;
mod leaks;
mod load;
mod memory;
mod outage;
mod refusals;
#[expect(dead_code, reason = "custody's tests use more of it")]
#[path = "../custody/shim.rs"]
mod shim;
mod storm;
mod tamper;
