//! Stand-ins for hardware, which `strongroom dev` starts and ends.

#[cfg(feature = "yubikey")]
pub mod piv;
pub mod swtpm;
