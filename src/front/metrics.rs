//! `/metrics`: what a monitor watches, in Prometheus's text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Numbers alone: no name of a
//! secret, a key or a caller is in it.

use crate::clock::Time;
use crate::ops::call::Services;
use crate::ops::health::{self, Delivery, TokenHealth};
use crate::ops::secrets::expiry::{self, Expiring};
use crate::ops::secrets::reseal;
use crate::ops::secrets::rotate::tally;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The media type of the text.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4";

/// One family of samples under construction.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP strongroom_{name} {help}\n"));
        self.0.push_str(&format!("# TYPE strongroom_{name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        self.0.push_str(&format!("strongroom_{name}{labels} {value}\n"));
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }
}

/// The page as it is now. Asks no hardware, and of the database a handful of rows of an index.
pub(super) fn page(services: &Services) -> String {
    let mut page = Page(String::with_capacity(4096));
    let audit = services.recorder.status();
    let ready = services.recorder.ready().is_ok();
    page.one("audit_ready", "gauge", "1 if records are taken.", u64::from(ready));
    page.one("audit_records_total", "counter", "Records in the audit log.", audit.records);
    let help = "Records that a signed checkpoint vouches for.";
    page.one("audit_signed_records", "gauge", help, audit.signed);
    sinks(&mut page, &audit.sinks);
    tokens(&mut page, &health::tokens(services));
    resealing(&mut page, services);
    rotations(&mut page, services);
    probes(&mut page, services);
    expiring(&mut page, services.expiring.read());
    let now = services.world.clock.now();
    deliveries(&mut page, &services.deliveries, (audit.records, now));
    page.0
}

fn probes(page: &mut Page, services: &Services) {
    page.family("probes_total", "counter", "Logins that were tried with what is stored.");
    for (outcome, count) in services.rotations.probes.read() {
        page.sample("probes_total", &format!("{{outcome=\"{outcome}\"}}"), count);
    }
    let Ok(drifted) = services.records.read(|rows| rows.drifted()) else { return };
    let help = "Secrets whose value is not let in any more.";
    page.one("secrets_drifted", "gauge", help, drifted);
}

fn rotations(page: &mut Page, services: &Services) {
    let tally = &services.rotations.tally;
    page.family("rotations_total", "counter", "Rotations that have ended.");
    for (outcome, count) in [("succeeded", &tally.succeeded), ("failed", &tally.failed)] {
        page.sample("rotations_total", &format!("{{outcome=\"{outcome}\"}}"), count.load(Relaxed));
    }
    let name = "rotation_step_failures_total";
    page.family(name, "counter", "Attempts at a step that failed.");
    for (step, count) in tally.failures() {
        page.sample(name, &format!("{{step=\"{step}\"}}"), count);
    }
    // Without them the page says that nothing is known, not that nothing is due.
    let Ok(state) = tally::state(services) else { return };
    let help = "Rotations that have begun and not ended.";
    page.one("rotations_in_progress", "gauge", help, state.under_way);
    let help = "Those of them whose time is over: they are rolled forward.";
    page.one("rotations_overdue", "gauge", help, state.overdue);
    let help = "How long the rotation waits that has waited longest for its turn.";
    page.one("rotation_oldest_due_seconds", "gauge", help, state.oldest_due);
}

/// As of the last round of housekeeping.
fn expiring(page: &mut Page, count: Expiring) {
    let help = "Secrets whose deadline is past.";
    page.one("secrets_expired", "gauge", help, count.expired);
    page.family("secrets_expiring", "gauge", "Secrets whose deadline comes within so many days.");
    for (days, count) in expiry::COUNTED.iter().zip(count.before) {
        page.sample("secrets_expiring", &format!("{{days=\"{days}\"}}"), count);
    }
}

fn deliveries(page: &mut Page, deliveries: &[Arc<Delivery>], (records, now): (u64, Time)) {
    if deliveries.is_empty() {
        return;
    }
    let counted = |count: i64| u64::try_from(count).unwrap_or(0);
    let waits = |d: &Delivery| match d.waiting.load(Relaxed) {
        0 => 0,
        since => counted(now.0.saturating_sub(since) / 1000),
    };
    type Value<'a> = &'a dyn Fn(&Delivery) -> u64;
    let families: [(&str, &str, &str, Value<'_>); 6] = [
        ("events_failing", "gauge", "1 if the last attempt failed.", &|d| {
            d.failing.load(Relaxed).into()
        }),
        ("events_total", "counter", "Events taken by the receiver.", &|d| d.taken.load(Relaxed)),
        ("events_failures_total", "counter", "Attempts that failed.", &|d| {
            d.failures.load(Relaxed)
        }),
        ("events_last_success_timestamp_seconds", "gauge", "When it last took one.", &|d| {
            counted(d.last.load(Relaxed))
        }),
        ("events_lag_records", "gauge", "Audit records not yet read for it.", &|d| {
            records.saturating_sub(d.read.load(Relaxed))
        }),
        ("events_lag_seconds", "gauge", "Age of the event that it is to take next.", &waits),
    ];
    for (name, kind, help, value) in families {
        page.family(name, kind, help);
        for delivery in deliveries {
            let label = format!("{{receiver=\"{}\"}}", escaped(&delivery.name));
            page.sample(name, &label, value(delivery));
        }
    }
}

fn tokens(page: &mut Page, tokens: &[TokenHealth]) {
    type Value = fn(&TokenHealth) -> u64;
    let families: [(&str, &str, &str, Value); 4] = [
        ("token_up", "gauge", "1 if the token answered when last spoken to.", |t| t.up.into()),
        ("token_waiting_requests", "gauge", "Requests in the token's queue.", |t| {
            u64::try_from(t.waiting).unwrap_or(u64::MAX)
        }),
        ("token_workers", "gauge", "Threads that have a session with the token.", |t| {
            u64::try_from(t.seated).unwrap_or(u64::MAX)
        }),
        ("token_logins_total", "counter", "Logins to the token.", |t| t.logins),
    ];
    for (name, kind, help, value) in families {
        page.family(name, kind, help);
        for token in tokens {
            page.sample(name, &format!("{{token=\"{}\"}}", escaped(&token.name)), value(token));
        }
    }
}

/// How far stored data keys are sealed to the tokens that hold their KMS keys now.
fn resealing(page: &mut Page, services: &Services) {
    let progress = &services.resealing;
    // Without it the page says that nothing is known, not that nothing is left.
    if let Ok(pending) = reseal::pending(services) {
        let help = "1 while data keys may be sealed to tokens of before.";
        page.one("reseal_pending", "gauge", help, pending.into());
    }
    let help = "Versions of secrets that were looked at for that.";
    page.one("reseal_looked_at_total", "counter", help, progress.looked_at.load(Relaxed));
    let help = "Data keys that were sealed anew.";
    page.one("reseal_resealed_total", "counter", help, progress.resealed.load(Relaxed));
    let help = "Data keys that only this token, or another that is away, could open for that.";
    page.family("reseal_waiting", "gauge", help);
    for (token, keys) in reseal::waiting(services) {
        page.sample("reseal_waiting", &format!("{{token=\"{}\"}}", escaped(&token)), keys);
    }
}

fn sinks(page: &mut Page, sinks: &[crate::audit::sink::Health]) {
    type Value = fn(&crate::audit::sink::Health) -> u64;
    let families: [(&str, &str, &str, Value); 3] = [
        ("audit_sink_failing", "gauge", "1 if the last attempt failed.", |s| s.failing.into()),
        ("audit_sink_records_total", "counter", "Records taken by the sink.", |s| s.taken),
        ("audit_sink_dropped_total", "counter", "Records that the sink fell behind.", |s| {
            s.dropped
        }),
    ];
    for (name, kind, help, value) in families {
        if !sinks.is_empty() {
            page.family(name, kind, help);
        }
        for sink in sinks {
            page.sample(name, &format!("{{sink=\"{}\"}}", escaped(&sink.name)), value(sink));
        }
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sink::Health;

    #[test]
    fn a_sink_s_name_can_not_break_the_line() {
        let mut page = Page(String::new());
        let name = "a\"b\\c\nd".to_owned();
        sinks(&mut page, &[Health { name, failing: true, taken: 7, dropped: 2 }]);
        assert!(page.0.contains("strongroom_audit_sink_failing{sink=\"a\\\"b\\\\c\\nd\"} 1\n"));
        assert!(page.0.contains("_dropped_total{sink=\"a\\\"b\\\\c\\nd\"} 2\n"));
        assert_eq!(page.0.lines().count(), 9);
    }
}
