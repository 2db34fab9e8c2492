//! The schema's versions and which of them a database still lacks.
//!
//! A script is never edited once released; a change of the schema is a new script. An engine
//! applies what [`pending`] names in one transaction, so a database has one version or another,
//! never something between.

use super::{Error, Result};

/// One step of the schema: the version it leads to, and the statements that lead there.
pub type Migration = (i64, &'static str);

/// Every step since the empty database, in ascending order of version, from 1 without a gap.
pub const MIGRATIONS: &[Migration] = &[
    (1, include_str!("schema/001.sql")),
    (2, include_str!("schema/002.sql")),
    (3, include_str!("schema/003.sql")),
    (4, include_str!("schema/004.sql")),
    (5, include_str!("schema/005.sql")),
    (6, include_str!("schema/006.sql")),
    (7, include_str!("schema/007.sql")),
    (8, include_str!("schema/008.sql")),
];

/// The version that this program reads and writes.
pub fn latest() -> i64 {
    MIGRATIONS.last().map_or(0, |&(version, _)| version)
}

/// The steps of `all` that a database at version `found` lacks (0: an empty database).
///
/// # Errors
/// [`Error::Unusable`] if the database is newer than the last step: an old program would misread
/// it.
pub fn pending(all: &'static [Migration], found: i64) -> Result<&'static [Migration]> {
    let known = all.last().map_or(0, |&(version, _)| version);
    if !(0..=known).contains(&found) {
        return Err(Error::Unusable(format!(
            "the database has schema version {found} and this program knows versions up to \
             {known}: run the newer strongroom that wrote it, or restore an older backup"
        )));
    }
    let first = all.partition_point(|&(version, _)| version <= found);
    Ok(all.get(first..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[Migration] = &[(1, "a"), (2, "b"), (3, "c")];

    #[test]
    fn an_empty_database_lacks_every_step_and_a_current_one_none() {
        assert_eq!(pending(THREE, 0).unwrap(), THREE);
        assert_eq!(pending(THREE, 2).unwrap(), &[(3, "c")]);
        assert!(pending(THREE, 3).unwrap().is_empty());
    }

    #[test]
    fn a_newer_or_impossible_version_is_refused_with_both_numbers_named() {
        for found in [4, i64::MAX, -1] {
            let Err(Error::Unusable(text)) = pending(THREE, found) else {
                panic!("version {found} was taken");
            };
            assert!(text.contains(&format!("schema version {found} ")), "{text}");
            assert!(text.contains("up to 3"), "{text}");
        }
    }

    #[test]
    fn versions_ascend_from_one_without_a_gap() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|&(version, _)| version).collect();
        assert_eq!(versions, (1..=latest()).collect::<Vec<_>>());
    }
}
