//! A function that is a program of this machine: it reads the event on its standard input, finds its
//! credentials in its environment, and has done the step if it ends with 0. What it is kept from doing
//! stands in [`confined`].

use super::lambda::Variables;
use super::{Event, Failure};
use crate::ops::secrets::rotate::functions::Program;
use crate::rotate::confined::{self, Ended, How, Task};
use std::ffi::OsString;
use std::path::Path;

/// What every program finds in its environment. Interpreters else take a terminal of before 1990 for
/// granted, and look for a home that is not there.
const ALWAYS: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("HOME", "/nonexistent")];

/// Where a program is, and whom it works for.
pub(in crate::rotate) struct Place<'a> {
    pub(in crate::rotate) program: &'a Program,
    pub(in crate::rotate) region: &'a str,
    /// The appliance's first plain address.
    pub(in crate::rotate) here: Option<&'a str>,
}

/// Has a step done.
pub(in crate::rotate) async fn invoke(
    place: &Place<'_>,
    event: &Event<'_>,
    credentials: Option<Variables>,
) -> Result<(), Failure> {
    let input = serde_json::to_vec(event);
    let input = input.map_err(|e| Failure::lasting(format!("the event can't be written: {e}")))?;
    let task = Task {
        host: confined::this_program(),
        program: place.program.command.iter().map(OsString::from).collect(),
        environment: environment(place, credentials)?,
        folder: Path::new("/"),
        input: &input,
        deadline: place.program.deadline,
        answer: None,
        listen: true,
    };
    let seconds = task.deadline.as_secs();
    match confined::run(task).await {
        Ok(ended) => outcome(ended, seconds),
        Err(error) => Err(Failure::passing(format!("the program can't be started: {error}"))),
    }
}

/// All of a program's environment.
fn environment(
    place: &Place<'_>,
    credentials: Option<Variables>,
) -> Result<Vec<(OsString, OsString)>, Failure> {
    let here = place.program.appliance.as_deref().or(place.here);
    let here = here.ok_or_else(|| Failure::passing("the appliance has no plain address"))?;
    let mut all: Vec<(&str, OsString)> = Vec::new();
    all.extend(ALWAYS.map(|(name, value)| (name, value.into())));
    all.extend(["AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| (name, place.region.into())));
    // The first is what AWS's samples read, the second what SDKs do.
    let endpoints = ["SECRETS_MANAGER_ENDPOINT", "AWS_ENDPOINT_URL_SECRETS_MANAGER"];
    all.extend(endpoints.map(|name| (name, here.into())));
    let ca = place.program.appliance_ca.as_ref();
    all.extend(ca.map(|file| ("AWS_CA_BUNDLE", file.into())));
    all.extend(credentials.into_iter().flatten().map(|(name, value)| (name, value.into())));
    Ok(all.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// What the end of a program means.
fn outcome(ended: Ended, seconds: u64) -> Result<(), Failure> {
    let why = match ended.how {
        How::Exited(0) => return Ok(()),
        How::Exited(status) => format!("the program ended with status {status}"),
        How::Killed(signal) => format!("the program was ended by signal {signal}"),
        How::NotStarted(why) => format!("the program can't be started: {why}"),
        How::Late => format!("the program did not end within {seconds} s"),
    };
    let says = String::from_utf8_lossy(&ended.says).trim().to_owned();
    Err(Failure { says: Some(says).filter(|says| !says.is_empty()), ..Failure::passing(why) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(how: How, says: &[u8]) -> Result<(), (String, Option<String>)> {
        let ended = Ended { how, answer: Vec::new(), says: says.to_vec() };
        outcome(ended, 60).map_err(|failure| (failure.why, failure.says))
    }

    #[test]
    fn a_step_is_done_if_the_program_ends_with_0() {
        assert_eq!(told(How::Exited(0), b"a warning"), Ok(()));
        let (why, says) = told(How::Exited(3), b"ValueError: \xff\n").expect_err("failed");
        assert_eq!(why, "the program ended with status 3");
        assert_eq!(says.as_deref(), Some("ValueError: \u{fffd}"));
        let (why, says) = told(How::Killed(9), b"\n").expect_err("failed");
        assert_eq!((why.as_str(), says), ("the program was ended by signal 9", None));
        let (why, _) = told(How::Late, b"").expect_err("failed");
        assert_eq!(why, "the program did not end within 60 s");
    }
}
