//! Rotation: the loop that the clock drives, and the functions that do the steps.
//!
//! What is asked for and how far it has come is in the database (`ops/secrets/rotate/`): each step is
//! written before it is done, so that whoever comes after a crash knows which one may have been done.
//! Secrets are read and changed by the operations of the API, in the appliance's own name.

mod function;
mod inside;
mod machine;
mod scheduler;

pub use scheduler::keep_rotating;
