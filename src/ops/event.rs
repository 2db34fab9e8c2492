//! What the appliance does by itself: changes that time brings, its start and its end.

use super::call::Services;
use super::error::{Error, Result};
use crate::audit::{self, Record, Source};
use crate::clock::quick_uuid;
use crate::name::{Service, secret_arn};
use crate::policy::Caller;
use crate::store::records::Rows;

/// Something that the appliance does by itself; it stands in the audit log as what a service of
/// AWS's does by itself stands in CloudTrail (`DeleteKey` at the end of a key's deletion window).
pub struct Event {
    /// The service in whose name it is done.
    pub service: Service,
    /// What is done.
    pub name: &'static str,
    /// The account whose resources it concerns.
    pub account: String,
    /// ARNs of those resources.
    pub resources: Vec<String>,
}

impl Services {
    /// Changes the store for the appliance itself. As with [`Call::commit`](super::call::Call::commit) the audit record of the
    /// change commits with it.
    ///
    /// # Errors
    /// Those of `change`, of the database and of the audit log; then nothing is changed.
    pub async fn commit_event<T: Send + 'static>(
        &self,
        event: &Event,
        change: impl FnMut(&mut Rows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.commit_event_with(event, b"", change).await
    }

    /// The same with particulars, a JSON object.
    ///
    /// # Errors
    /// Those of [`Self::commit_event`].
    pub async fn commit_event_with<T: Send + 'static>(
        &self,
        event: &Event,
        particulars: &[u8],
        mut change: impl FnMut(&mut Rows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.recorder.ready()?;
        let record = self.event_record(event, particulars)?;
        let region = self.region.clone();
        self.records
            .write(move |rows| {
                let value = change(rows)?;
                put_record(rows, &region, &record)?;
                Ok::<_, Error>(value)
            })
            .await
    }

    /// Notes something of the appliance's own life in the audit log: that it started, that it ends.
    /// `particulars` is a JSON object.
    ///
    /// # Errors
    /// Those of the audit log.
    pub async fn note(&self, name: &str, account: &str, particulars: &[u8]) -> Result<()> {
        let record = self.own_record(None, name, account, particulars, &[])?;
        Ok(self.recorder.append_line(&record).await?)
    }

    fn event_record(&self, event: &Event, particulars: &[u8]) -> Result<Vec<u8>> {
        let service = Some(event.service);
        self.own_record(service, event.name, &event.account, particulars, &event.resources)
    }

    fn own_record(
        &self,
        service: Option<Service>,
        operation: &str,
        account: &str,
        parameters: &[u8],
        resources: &[String],
    ) -> Result<Vec<u8>> {
        let caller = Caller::system(account);
        let record = Record {
            time: self.world.clock.now(),
            service,
            operation,
            read_only: false,
            region: &self.region,
            caller: Some(&caller),
            source: Source::Service(service),
            user_agent: service.map_or(audit::OWN_SOURCE, Service::event_source),
            tls: None,
            request_id: quick_uuid(&*self.world.random)?,
            event_id: quick_uuid(&*self.world.random)?,
            parameters,
            response: b"",
            decisions: b"",
            resources,
            error: None,
        };
        Ok(record.encode())
    }
}

/// Puts the record of a change beside the change, with what it did to a secret.
pub(super) fn put_record(rows: &mut Rows<'_>, region: &str, record: &[u8]) -> Result<()> {
    let Some(change) = rows.secret_change() else { return Ok(rows.put_record(record)?) };
    let arn = secret_arn(region, &change.account, &change.name, &change.suffix);
    let flag = |set: bool| if set { "true" } else { "false" };
    let told = audit::with_details(record, |details| {
        details.object("secret", |secret| {
            secret
                .text("arn", &arn)
                .text("name", &change.name)
                .raw("revision", &change.revision.to_string());
            if let Some(version) = &change.current {
                secret.text("currentVersionId", version);
            }
            secret.raw("valueChanged", flag(change.moved)).raw("deleted", flag(change.gone));
        });
    });
    Ok(rows.put_record(&told)?)
}
