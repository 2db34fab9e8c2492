//! Stand-ins for hardware: what `strongroom dev` and the tests start in its place.

#[cfg(feature = "yubikey")]
pub mod piv;
