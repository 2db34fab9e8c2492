//! Strongroom: the APIs of AWS Secrets Manager and AWS KMS, with the master keys in your own hardware.
#![forbid(unsafe_code)]

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod custody;
pub mod envelope;
pub mod events;
pub mod front;
pub mod identity;
pub mod json;
pub mod name;
pub mod ops;
pub mod policy;
pub mod roots;
pub mod rotate;
pub mod secret;
pub mod server;
pub mod store;
