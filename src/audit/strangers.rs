//! Requests of nobody in particular: each has a record of its own at a modest rate; above it they are
//! counted, and one record a second tells of all that failed alike. So strangers can't fill the disk.

use super::record::rfc3339;
use super::{Record, Source};
use crate::clock::Time;
use crate::json::Object;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Records that all strangers together may cause, sustained, in a second.
const RATE: f64 = 50.0;
/// And at once.
const BURST: f64 = 4000.0;
/// The same for one address.
const ADDRESS_RATE: f64 = 20.0;
const ADDRESS_BURST: f64 = 1000.0;
/// Addresses whose rate is known; one more shares what all others have.
const ADDRESSES: usize = 4096;
/// Addresses that one summary tells apart.
const COUNTED: usize = 1000;
/// Kinds of error that are summed up apart; others go with the first.
const KINDS: usize = 64;

/// Fills at a rate up to a height; each record takes one.
#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Time,
}

impl Bucket {
    /// Whether there is one to take.
    fn has(&mut self, now: Time, rate: f64, height: f64) -> bool {
        let span = now.0.saturating_sub(self.at.0).clamp(0, 3_600_000);
        let seconds = f64::from(i32::try_from(span).unwrap_or(0)) / 1000.0;
        self.left = (self.left + seconds * rate).min(height);
        self.at = now;
        self.left >= 1.0
    }
}

/// What was counted instead of being recorded.
struct Sum {
    count: u64,
    first: Time,
    last: Time,
    addresses: HashSet<IpAddr>,
    /// Its ids are those of the first request in it.
    ids: (String, String),
    region: String,
}

/// The rate of strangers' records.
pub(super) struct Strangers {
    all: Bucket,
    each: HashMap<IpAddr, Bucket>,
    sums: HashMap<String, Sum>,
}

impl Strangers {
    pub(super) fn new(now: Time) -> Self {
        let all = Bucket { left: BURST, at: now };
        Self { all, each: HashMap::new(), sums: HashMap::new() }
    }

    /// Whether this request gets a record of its own; if not it has been counted.
    pub(super) fn admit(&mut self, record: &Record<'_>) -> bool {
        let Source::Address(address) = record.source else { return true };
        let now = record.time;
        let all = self.all.has(now, RATE, BURST);
        let known = self.each.len() < ADDRESSES || self.each.contains_key(&address);
        let mut none = Bucket { left: 0.0, at: now };
        let full = Bucket { left: ADDRESS_BURST, at: now };
        let own = if known { self.each.entry(address).or_insert(full) } else { &mut none };
        if all && own.has(now, ADDRESS_RATE, ADDRESS_BURST) {
            own.left -= 1.0;
            self.all.left -= 1.0;
            return true;
        }
        self.count(record, address);
        false
    }

    fn count(&mut self, record: &Record<'_>, address: IpAddr) {
        let mut code = record.error.map_or("", |(code, _)| code);
        if self.sums.len() == KINDS && !self.sums.contains_key(code) {
            code = "";
        }
        let sum = self.sums.entry(code.to_owned()).or_insert_with(|| Sum {
            count: 0,
            first: record.time,
            last: record.time,
            addresses: HashSet::new(),
            ids: (record.event_id.to_string(), record.request_id.to_string()),
            region: record.region.to_owned(),
        });
        sum.count += 1;
        sum.last = record.time;
        if sum.addresses.len() < COUNTED {
            sum.addresses.insert(address);
        }
    }

    /// The records of what was counted since the last call, encoded, and forgets addresses that
    /// have not been heard of.
    pub(super) fn summaries(&mut self, now: Time) -> Vec<Vec<u8>> {
        let rested = |_: &IpAddr, bucket: &mut Bucket| {
            !bucket.has(now, ADDRESS_RATE, ADDRESS_BURST) || bucket.left < ADDRESS_BURST
        };
        self.each.retain(rested);
        self.sums.drain().map(|(code, sum)| sum.encode(&code)).collect()
    }
}

impl Sum {
    /// One line of JSON. Its members are a record's, and in `additionalEventData` how many requests
    /// it stands for, from when to when, and from how many addresses.
    fn encode(&self, code: &str) -> Vec<u8> {
        let mut line = Vec::with_capacity(640);
        let mut object = Object::begin(&mut line);
        object
            .text("eventVersion", "1.11")
            .text("eventID", &self.ids.0)
            .text("eventTime", &rfc3339(self.last))
            .text("eventSource", "strongroom")
            .text("eventName", "RefusedRequests")
            .text("eventType", "AwsServiceEvent")
            .raw("readOnly", "true")
            .text("awsRegion", &self.region)
            .text("sourceIPAddress", "strongroom")
            .text("userAgent", "strongroom")
            .text("requestID", &self.ids.1)
            .object("userIdentity", |identity| {
                identity.text("type", "Unknown");
            })
            .text("errorCode", code)
            .object("additionalEventData", |data| {
                let addresses = self.addresses.len();
                data.raw("count", &self.count.to_string())
                    .text("firstTime", &rfc3339(self.first))
                    .text("lastTime", &rfc3339(self.last))
                    .raw("addresses", &addresses.to_string())
                    .raw("moreAddresses", if addresses == COUNTED { "true" } else { "false" });
            });
        object.end();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Uuid;

    fn record(time: i64, address: [u8; 4], code: &'static str) -> Record<'static> {
        Record {
            time: Time(time),
            service: None,
            operation: "",
            read_only: true,
            region: "eu-central-1",
            caller: None,
            source: Source::Address(address.into()),
            user_agent: "",
            tls: None,
            parameters: b"",
            response: b"",
            decisions: b"",
            request_id: Uuid::NIL,
            event_id: Uuid::from_random([7; 16]),
            resources: &[],
            error: Some((code, "no")),
        }
    }

    fn admitted(
        strangers: &mut Strangers,
        records: impl Iterator<Item = Record<'static>>,
    ) -> usize {
        records.filter(|record| strangers.admit(record)).count()
    }

    #[test]
    fn a_burst_is_recorded_one_by_one_and_a_flood_is_summed_up() {
        let mut strangers = Strangers::new(Time(0));
        let flood = (0..10_000).map(|n| record(n / 10, [10, 0, 0, 1], "A"));
        let own = admitted(&mut strangers, flood);
        assert!((1000..=1021).contains(&own), "{own}");
        let lines = strangers.summaries(Time(1000));
        assert_eq!(lines.len(), 1);
        let sum: serde_json::Value = serde_json::from_slice(&lines[0]).expect("JSON");
        let data = &sum["additionalEventData"];
        assert_eq!(data["count"], 10_000 - own);
        assert_eq!(data["addresses"], 1);
        assert_eq!(sum["errorCode"], "A");
        assert_eq!(sum["eventID"], Uuid::from_random([7; 16]).as_str());
        assert!(strangers.summaries(Time(2000)).is_empty(), "told once");
        // A minute later there is room again.
        assert!(strangers.admit(&record(61_000, [10, 0, 0, 1], "A")));
    }

    #[test]
    fn many_addresses_share_the_server_s_rate_and_memory_is_bounded() {
        let mut strangers = Strangers::new(Time(0));
        let from = |n: u32| record(0, n.to_be_bytes(), "A");
        let own = admitted(&mut strangers, (0..100_000).map(from));
        assert_eq!(own, 4000);
        assert_eq!(strangers.each.len(), ADDRESSES);
        let lines = strangers.summaries(Time(1000));
        let sum: serde_json::Value = serde_json::from_slice(&lines[0]).expect("JSON");
        assert_eq!(sum["additionalEventData"]["addresses"], COUNTED);
        assert_eq!(sum["additionalEventData"]["moreAddresses"], true);
        strangers.summaries(Time(3_600_000));
        assert!(strangers.each.is_empty(), "addresses that rest are forgotten");
    }
}
