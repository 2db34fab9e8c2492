//! Rotation: the loop that the clock drives, the functions that do the steps, and the systems that
//! they speak to.
//!
//! What is asked for and how far it has come is in the database (`ops/secrets/rotate/`): each step is
//! written before it is done, so that whoever comes after a crash knows which one may have been done.
//! Secrets are read and changed by the operations of the API, in the appliance's own name.
//!
//! - [`confined`]: programs that do a function's work, in bounds.
//! - [`secret_json`]: AWS's structure of a secret that opens a database, read and written again.
//! - [`target`]: the systems that built-in functions speak to, one file a system.

pub mod confined;
mod function;
mod inside;
mod login;
mod machine;
mod probe;
mod rules;
mod scheduler;
pub mod secret_json;
pub mod target;

pub use probe::keep_probing;
pub use scheduler::keep_rotating;
