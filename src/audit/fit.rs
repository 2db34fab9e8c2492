//! How long a record may be.

use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// The longest record, in bytes, without its line feed. The tree's layout ends at 65,535.
pub(super) const MAX_RECORD: usize = 65_000;

/// The longest record of a request that was refused at the door.
pub(super) const MAX_STRANGER: usize = 4096;

/// Texts are cut to so many bytes in a record that is too long.
const MAX_TEXT: usize = 512;
/// Members that are left out first, as CloudTrail leaves out what is too large.
const LARGE: [&str; 4] =
    ["requestParameters", "responseElements", "additionalEventData", "resources"];
/// Members that are always kept.
const KEPT: [&str; 9] = [
    "eventVersion",
    "eventID",
    "eventTime",
    "eventSource",
    "eventName",
    "awsRegion",
    "requestID",
    "errorCode",
    "serviceEventDetails",
];

/// A record (a line, with its line feed) as it may enter the log: one that is too long loses what is
/// large in it, and says so.
pub(super) fn fit(line: &[u8]) -> Cow<'_, [u8]> {
    to(line, MAX_RECORD)
}

/// The same for another bound; one that no record's plain members exceed.
pub(super) fn to(line: &[u8], most: usize) -> Cow<'_, [u8]> {
    if line.len() <= most + 1 { line.into() } else { shortened(line, most).into() }
}

fn shortened(line: &[u8], most: usize) -> Vec<u8> {
    let size = line.len();
    let Ok(Value::Object(mut record)) = serde_json::from_slice(line) else {
        return written(&json!({"eventName": "Unreadable", "originalSize": size}));
    };
    record.insert("omitted".into(), true.into());
    record.insert("originalSize".into(), size.into());
    for name in LARGE {
        if let Some(member) = record.get_mut(name) {
            *member = json!({"omitted": true});
        }
        if length(&record) <= most {
            return written(&Value::Object(record));
        }
    }
    record.values_mut().for_each(cut);
    if length(&record) > most {
        let also = ["userIdentity", "recipientAccountId", "omitted", "originalSize"];
        record.retain(|name, _| KEPT.iter().chain(&also).any(|kept| kept == name));
    }
    if length(&record) > most {
        record.remove("userIdentity");
    }
    written(&Value::Object(record))
}

fn length(record: &Map<String, Value>) -> usize {
    serde_json::to_vec(record).map_or(usize::MAX, |bytes| bytes.len())
}

fn cut(value: &mut Value) {
    if let Value::String(text) = value
        && text.len() > MAX_TEXT
    {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

fn written(record: &Value) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_that_is_too_long_loses_its_parameters_first() {
        let line = |parameters: usize, message: usize| {
            written(&json!({"eventID": "e", "requestParameters": {"a": "x".repeat(parameters)},
                "errorMessage": "y".repeat(message), "resources": [{"ARN": "z"}]}))
        };
        let short = line(60_000, 10);
        assert_eq!(fit(&short).into_owned(), short);
        let cut: Value = serde_json::from_slice(&fit(&line(70_000, 10))).expect("JSON");
        assert_eq!(cut["requestParameters"], json!({"omitted": true}));
        assert_eq!((&cut["eventID"], &cut["resources"][0]["ARN"]), (&json!("e"), &json!("z")));
        assert_eq!(cut["originalSize"], line(70_000, 10).len());
        let cut: Value = serde_json::from_slice(&fit(&line(10, 70_000))).expect("JSON");
        assert_eq!(cut["errorMessage"].as_str().map(str::len), Some(512));
        let mut long: Value = serde_json::from_slice(&line(70_000, 70_000)).expect("JSON");
        long["serviceEventDetails"] = json!({"secret": {"name": "a"}});
        for n in 0..200 {
            long[format!("more{n}")] = "x".repeat(512).into();
        }
        let cut: Value = serde_json::from_slice(&fit(&written(&long))).expect("JSON");
        assert_eq!(
            (&cut["serviceEventDetails"]["secret"]["name"], &cut["more1"]),
            (&json!("a"), &Value::Null)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn no_record_comes_out_too_long(sizes in proptest::collection::vec(0_usize..90_000, 6)) {
            let text = |n: usize| "\u{7f}\"é".repeat(sizes[n] / 4);
            let line = written(&json!({"eventID": "e", "eventName": text(0), "userAgent": text(1),
                "userIdentity": {"arn": text(2)}, "resources": [text(3)], text(4): 1,
                "requestParameters": text(5)}));
            let fitted = fit(&line);
            prop_assert!(fitted.len() <= MAX_RECORD + 1);
            let read: Value = serde_json::from_slice(&fitted).expect("JSON");
            prop_assert_eq!(&read["eventID"], "e");
            prop_assert!(to(&line, MAX_STRANGER).len() <= MAX_STRANGER + 1);
        }
    }
}
