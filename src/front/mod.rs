//! The front door: bytes in, bytes out. Knows HTTP and its limits, and no rule of the API.

pub mod body;
mod exchange;
pub mod listen;
pub mod message;
pub mod options;
pub mod tls;
mod watch;
