//! The policy engine as its users see it: AWS's documented examples (`tests/vectors/policy`).
#![expect(clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod allocations;
mod oracle;
mod scene;
mod vectors;
