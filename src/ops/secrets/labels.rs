//! Staging labels: which version carries which, how they move, and which versions may go.
//!
//! A label is on one version at most; a secret's list is kept in the labels' alphabetical order,
//! which is the order in which AWS answers them.

use crate::clock::{DAY, Time};
use crate::ops::error::{Condition, Error, Result};
use crate::store::secrets::{Secret, Stage, VersionInfo};

/// The label of the version that is read when nothing else is asked for.
pub const CURRENT: &str = "AWSCURRENT";
/// The label of the version that had [`CURRENT`] before.
pub const PREVIOUS: &str = "AWSPREVIOUS";
/// The label of the version that a rotation is preparing.
pub const PENDING: &str = "AWSPENDING";

/// Labels that one version may carry.
pub const MAX_PER_VERSION: usize = 20;
/// Versions without labels that are kept in any case.
pub const UNLABELLED_KEPT: usize = 100;

/// Puts a label on a version, off whichever version has it. [`CURRENT`] leaves [`PREVIOUS`] behind
/// on the version that it comes from.
pub fn put(stages: &mut Vec<Stage>, label: &str, version: &str) {
    let from = place(stages, label, version);
    if let Some(from) = from.filter(|from| label == CURRENT && from != version) {
        place(stages, PREVIOUS, &from);
    }
}

/// Puts a label on a version; answers which version had it.
fn place(stages: &mut Vec<Stage>, label: &str, version: &str) -> Option<String> {
    match stages.binary_search_by(|s| s.label.as_str().cmp(label)) {
        Ok(at) => stages.get_mut(at).map(|s| std::mem::replace(&mut s.version, version.to_owned())),
        Err(at) => {
            stages.insert(at, Stage { label: label.to_owned(), version: version.to_owned() });
            None
        }
    }
}

/// Puts the labels of a new version: those asked for, [`CURRENT`] where none are, and on a secret's
/// first version [`CURRENT`] besides.
///
/// # Errors
/// [`Condition::LimitExceeded`] where a version would carry more than [`MAX_PER_VERSION`].
pub fn put_new(stages: &mut Vec<Stage>, asked: Option<&[String]>, version: &str) -> Result<()> {
    if asked.is_none() || stages.is_empty() {
        put(stages, CURRENT, version);
    }
    for label in asked.unwrap_or_default() {
        put(stages, label, version);
    }
    check_limit(stages)
}

/// Moves a label as UpdateSecretVersionStage asks for it.
///
/// # Errors
/// [`Condition::InvalidParameter`] where `from` is not the version that has the label, or where
/// [`CURRENT`] would vanish; [`Condition::LimitExceeded`] as for [`put_new`].
pub fn shift(
    stages: &mut Vec<Stage>,
    label: &str,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<()> {
    let holder = stages.iter().find(|s| s.label == label).map(|s| s.version.as_str());
    let invalid = |text: String| Err(Error::new(Condition::InvalidParameter, text));
    match (holder, from, to) {
        (_, None, None) => invalid(
            "You must specify a value for RemoveFromVersionId, MoveToVersionId, or both.".into(),
        ),
        (_, Some(_), None) if label == CURRENT => invalid(format!(
            "You can only move staging label {CURRENT} to a different secret version. It can\u{2019}t \
             be completely removed."
        )),
        (Some(holder), None, Some(to)) if holder != to => invalid(format!(
            "The parameter RemoveFromVersionId can't be empty. Staging label {label} is currently \
             attached to version {holder}, so you must explicitly reference that version in \
             RemoveFromVersionId."
        )),
        (holder, Some(from), Some(_)) if holder != Some(from) => invalid(format!(
            "When you move staging label {label}, if you specify RemoveFromVersionId, it must be \
             set to the version that currently has the staging label {label}."
        )),
        (holder, Some(from), None) if holder != Some(from) => invalid(format!(
            "You can't remove staging label {label} from version {from} because that version \
             doesn't have it."
        )),
        (_, _, Some(to)) => {
            put(stages, label, to);
            check_limit(stages)
        }
        (_, Some(_), None) => {
            stages.retain(|s| s.label != label);
            Ok(())
        }
    }
}

fn check_limit(stages: &[Stage]) -> Result<()> {
    let full = |s: &Stage| {
        stages.iter().filter(|other| other.version == s.version).count() > MAX_PER_VERSION
    };
    if stages.iter().any(full) {
        let text = format!("A version can have at most {MAX_PER_VERSION} staging labels.");
        return Err(Error::new(Condition::LimitExceeded, text));
    }
    Ok(())
}

/// How many versions carry a label.
pub fn labelled(stages: &[Stage]) -> usize {
    stages.iter().enumerate().filter(|(at, s)| first_of_its_version(stages, *at, s)).count()
}

fn first_of_its_version(stages: &[Stage], at: usize, stage: &Stage) -> bool {
    !stages.iter().take(at).any(|earlier| earlier.version == stage.version)
}

/// What is to become of the versions without labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Pruning {
    /// Versions to take away.
    pub gone: Vec<String>,
    /// Nothing more can go before this moment.
    pub next: Time,
}

/// Of `versions`, oldest first, the unlabelled ones beyond the [`UNLABELLED_KEPT`] newest, but none
/// younger than 24 hours.
pub fn prune(secret: &Secret, versions: &[VersionInfo], now: Time) -> Pruning {
    let unlabelled: Vec<&VersionInfo> =
        versions.iter().filter(|v| secret.labels_of(&v.id).next().is_none()).collect();
    let surplus = unlabelled.len().saturating_sub(UNLABELLED_KEPT);
    let old = |v: &&&VersionInfo| v.created.0.saturating_add(DAY) <= now.0;
    let gone: Vec<String> =
        unlabelled.iter().take(surplus).take_while(old).map(|v| v.id.clone()).collect();
    let next = unlabelled.get(gone.len()).map_or(now, |oldest| oldest.created);
    Pruning { gone, next: next.plus_days(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(stages: &[Stage]) -> Vec<(&str, &str)> {
        stages.iter().map(|s| (s.label.as_str(), s.version.as_str())).collect()
    }

    fn new(stages: &mut Vec<Stage>, asked: Option<&[&str]>, version: &str) {
        let asked: Option<Vec<String>> =
            asked.map(|labels| labels.iter().map(|l| (*l).to_owned()).collect());
        put_new(stages, asked.as_deref(), version).expect("within the limits");
    }

    #[test]
    fn a_new_version_takes_awscurrent_and_leaves_awsprevious_behind() {
        let mut stages = Vec::new();
        new(&mut stages, None, "v1");
        assert_eq!(shown(&stages), [(CURRENT, "v1")]);
        new(&mut stages, None, "v2");
        new(&mut stages, None, "v3");
        assert_eq!(shown(&stages), [(CURRENT, "v3"), (PREVIOUS, "v2")]);
    }

    #[test]
    fn own_labels_leave_awscurrent_alone_and_move_off_older_versions() {
        let mut stages = Vec::new();
        new(&mut stages, None, "v1");
        new(&mut stages, Some(&["one", "two", "three"]), "v2");
        new(&mut stages, Some(&["one", "two", "four"]), "v3");
        assert_eq!(
            shown(&stages),
            [(CURRENT, "v1"), ("four", "v3"), ("one", "v3"), ("three", "v2"), ("two", "v3")]
        );
    }

    #[test]
    fn a_first_version_becomes_current_whatever_labels_it_gets() {
        let mut stages = Vec::new();
        new(&mut stages, Some(&["mine"]), "v1");
        assert_eq!(shown(&stages), [(CURRENT, "v1"), ("mine", "v1")]);
    }

    #[test]
    fn moving_awscurrent_back_swaps_it_with_awsprevious() {
        let mut stages = Vec::new();
        new(&mut stages, None, "v1");
        new(&mut stages, None, "v2");
        shift(&mut stages, CURRENT, Some("v2"), Some("v1")).expect("its holder is named");
        assert_eq!(shown(&stages), [(CURRENT, "v1"), (PREVIOUS, "v2")]);
    }

    #[test]
    fn a_label_leaves_its_version_only_if_that_version_is_named() {
        let mut stages = Vec::new();
        new(&mut stages, None, "v1");
        new(&mut stages, Some(&[PENDING]), "v2");
        let before = stages.clone();
        let refused = [
            (CURRENT, None, Some("v2"), "currently attached to version v1"),
            (CURRENT, Some("v2"), Some("v2"), "must be set to the version"),
            (CURRENT, Some("v1"), None, "completely removed"),
            (PENDING, Some("v1"), None, "doesn't have it"),
            ("none", Some("v1"), Some("v2"), "must be set to the version"),
            ("none", None, None, "You must specify"),
        ];
        for (label, from, to, text) in refused {
            let error = shift(&mut stages, label, from, to).expect_err(text);
            assert_eq!(error.condition, Condition::InvalidParameter);
            assert!(error.message.contains(text), "{}", error.message);
        }
        assert_eq!(stages, before, "a refusal changes nothing");
        shift(&mut stages, PENDING, Some("v2"), None).expect("named");
        shift(&mut stages, CURRENT, None, Some("v1")).expect("it is there already");
        assert_eq!(shown(&stages), [(CURRENT, "v1")]);
    }

    #[test]
    fn a_version_has_twenty_labels_at_most() {
        let mut stages = Vec::new();
        new(&mut stages, None, "v1");
        let twenty: Vec<String> = (0..20).map(|n| format!("L{n}")).collect();
        put_new(&mut stages, Some(&twenty), "v2").expect("twenty");
        let error = shift(&mut stages, "one more", None, Some("v2")).expect_err("21");
        assert_eq!(error.condition, Condition::LimitExceeded);
    }

    fn secret(stages: Vec<Stage>) -> Secret {
        Secret {
            uid: 1,
            account: "111111111111".into(),
            name: "a".into(),
            suffix: "AbCdEf".into(),
            description: None,
            kms_key_id: None,
            created: Time(0),
            changed: Time(0),
            deleted: None,
            due: None,
            tags: None,
            policy: None,
            policy_holders: Vec::new(),
            stages,
            versions: 0,
            prune_after: Time(0),
            revision: 1,
            expiry: None,
            probe: None,
            made: Default::default(),
        }
    }

    proptest! {
        #[test]
        fn no_label_is_ever_on_two_versions_and_the_list_stays_in_order(
            moves in proptest::collection::vec((0..6_usize, 0..5_usize), 0..40)
        ) {
            let labels = [CURRENT, PREVIOUS, PENDING, "a", "Z", "_"];
            let mut stages = Vec::new();
            for (label, version) in moves {
                let before = stages.iter().find(|s: &&Stage| s.label == CURRENT).cloned();
                let version = format!("v{version}");
                put(&mut stages, labels[label], &version);
                prop_assert!(stages.windows(2).all(|w| w[0].label < w[1].label));
                prop_assert!(stages.iter().any(|s| s.label == labels[label] && s.version == version));
                if let Some(before) = before.filter(|b| labels[label] == CURRENT && b.version != version) {
                    prop_assert!(stages.iter().any(|s| s.label == PREVIOUS && s.version == before.version));
                }
            }
            let distinct: std::collections::HashSet<_> = stages.iter().map(|s| &s.version).collect();
            prop_assert_eq!(labelled(&stages), distinct.len());
        }

        #[test]
        fn pruning_keeps_labels_the_newest_hundred_and_the_last_day(
            ages in proptest::collection::vec(0..5 * DAY, 0..250), every in 1..20_usize
        ) {
            let now = Time(100 * DAY);
            let mut created: Vec<i64> = ages.iter().map(|age| now.0 - age).collect();
            created.sort_unstable();
            let versions: Vec<VersionInfo> = created.iter().enumerate().map(|(n, at)| VersionInfo {
                id: format!("v{n}"), created: Time(*at), accessed: None, data_key: Vec::new(), row: 0,
            }).collect();
            let stages: Vec<Stage> = versions.iter().step_by(every * 7).take(20).map(|v| Stage {
                label: format!("on {}", v.id), version: v.id.clone(),
            }).collect();
            let secret = secret(stages);
            let pruning = prune(&secret, &versions, now);
            let stays: Vec<_> = versions.iter().filter(|v| !pruning.gone.contains(&v.id)).collect();
            let bare = |v: &VersionInfo| secret.version_with(&format!("on {}", v.id)).is_none();
            for v in versions.iter().filter(|v| pruning.gone.contains(&v.id)) {
                prop_assert!(now.0 - v.created.0 >= DAY, "younger than a day");
                prop_assert!(bare(v), "labelled");
            }
            let left = stays.iter().filter(|v| bare(v)).count();
            prop_assert!(pruning.gone.is_empty() || left >= UNLABELLED_KEPT);
            let oldest = stays.iter().find(|v| bare(v));
            if left > UNLABELLED_KEPT {
                prop_assert!(oldest.is_some_and(|v| now.0 - v.created.0 < DAY), "all that may go is gone");
            }
            prop_assert!(oldest.is_none_or(|v| pruning.next == v.created.plus_days(1)));
        }
    }
}
