//! The front door: bytes in, bytes out. Knows HTTP and its limits, and no rule of the API.

pub mod aws;
pub mod body;
mod client;
pub mod codes;
pub mod door;
pub mod entrance;
mod exchange;
pub mod listen;
pub mod message;
mod metrics;
mod openapi;
pub mod options;
mod plan;
pub mod query;
mod rest;
mod settle;
pub mod tls;
mod watch;
mod xml;
