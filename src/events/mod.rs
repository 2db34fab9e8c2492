//! Events: what becomes of secrets, told to webhooks and written to files, at least once and in the order
//! in which it happened.
//!
//! An event is a record of the audit log, read again: the log is durable, ordered as the changes were
//! committed, and has a record of each change. Every receiver follows it at its own pace from a place that it
//! keeps on the disk, as the log's sinks do; nothing waits for it and nothing is queued in memory.
//! docs/events.md has the design and the formats.

mod event;
mod file;
mod options;
mod signature;
mod subscription;
mod webhook;

pub use options::{FileOptions, OptionsError, Receiver, WebhookOptions, receivers};
pub use subscription::follow;
