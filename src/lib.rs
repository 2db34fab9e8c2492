//! Strongroom: the APIs of AWS Secrets Manager and AWS KMS, with the master keys in your own hardware.
#![forbid(unsafe_code)]

pub mod clock;
pub mod custody;
pub mod identity;
pub mod secret;
pub mod store;
