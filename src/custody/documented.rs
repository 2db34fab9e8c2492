//! The tables of `docs/hardware.md` that say what the code does, for the tests that hold one to the
//! other.

/// The whole text.
pub(super) const HARDWARE: &str = include_str!("../../docs/hardware.md");

/// What the last cell lists of the row that begins with `head`.
pub(super) fn listed(text: &'static str, head: &str) -> Vec<&'static str> {
    let line = text.lines().find(|line| line.starts_with(head)).expect(head);
    let cell = line.trim_end_matches([' ', '|']).rsplit(" | ").next().expect("a cell");
    cell.split(", ").collect()
}
