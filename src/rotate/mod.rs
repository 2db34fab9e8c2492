//! Rotation: secrets get new values by themselves, and the systems that they open hear of it.
//!
//! - [`secret_json`]: AWS's structure of a secret that opens a database, read and written again.
//! - [`target`]: the systems that built-in rotation functions speak to, one file a system.

pub mod secret_json;
pub mod target;
