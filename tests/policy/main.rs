//! The policy engine as its users see it: AWS's documented examples (`tests/vectors/policy`), another
//! evaluator to compare with, and what a decision takes.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod allocations;
mod oracle;
mod scene;
mod vectors;
