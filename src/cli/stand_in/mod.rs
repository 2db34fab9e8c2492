//! Stand-ins for hardware, which `strongroom dev` starts and ends.

pub mod swtpm;
