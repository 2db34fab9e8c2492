//! Who is calling: proves it or fails.

pub mod sigv4;
