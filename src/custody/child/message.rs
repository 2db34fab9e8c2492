//! What goes to the process that holds a token, and what comes back.
//!
//! Both sides read with bounds: the one that answers runs a vendor's library, and may have been
//! broken by it.

use super::wire::{Reader, Writer};
use crate::custody::profile::Profile;
use crate::custody::sealed::Opener;
use crate::custody::{
    Access, BackingKeyId, Error, Health, KeyCheck, Locator, Made, NewSigner, Request, Response,
    Result, TokenInfo, TokenKey, WrappedKey,
};
use crate::secret::Secret;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What a process is told first: which token to open.
pub(super) struct Opening {
    pub(super) profile: Profile,
    pub(super) access: Access,
    /// Or to make of a blank one: the security officer's PIN and a label.
    pub(super) blank: Option<(Secret, String)>,
}

/// Or a PIN.
pub(super) enum Task {
    Token(Box<Opening>),
    Pin(Opener),
}

/// What it answers to that.
pub(super) type Opened = Result<(TokenInfo, Health)>;

/// What it answers to requests, in their order, and how the token is now.
pub(super) type Answers = (Health, Vec<Result<Response>>);

/// The most requests of a frame. The longest of them that only use keys fit in, and so do their
/// answers.
pub(super) const MOST: usize = 16;

/// Reads requests. Here for those who try it with what nobody sent.
pub fn requests(frame: &[u8]) -> Option<Vec<Request>> {
    Reader::whole(frame, read_requests)
}

/// Reads answers. Here for those who try it with what nobody sent.
pub fn answers(frame: &[u8]) -> Option<(Health, Vec<Result<Response>>)> {
    Reader::whole(frame, read_answers)
}

pub(super) fn read_task(r: &mut Reader<'_>) -> Option<Task> {
    match r.byte()? {
        0 => read_opening(r).map(|opening| Task::Token(Box::new(opening))),
        1 => r.json().map(Task::Pin),
        _ => None,
    }
}

pub(super) fn write_unsealing(w: &mut Writer<'_>, opener: &Opener) {
    w.byte(1);
    w.json(opener);
}

pub(super) fn write_unsealed(w: &mut Writer<'_>, pin: &Result<Secret>) {
    match pin {
        Ok(pin) => {
            w.byte(1);
            w.bytes(pin.expose());
        }
        Err(error) => {
            w.byte(0);
            write_error(w, error);
        }
    }
}

pub(super) fn read_unsealed(r: &mut Reader<'_>) -> Option<Result<Secret>> {
    if r.flag()? { r.secret().map(Ok) } else { read_error(r).map(Err) }
}

pub(super) fn write_opening(
    w: &mut Writer<'_>,
    profile: &Profile,
    access: &Access,
    blank: Option<(&Secret, &str)>,
) {
    w.byte(0);
    w.json(profile);
    let (kind, name) = match &access.token {
        Locator::Serial(serial) => (0, serial),
        Locator::Label(label) => (1, label),
    };
    w.byte(kind);
    w.text(name);
    w.bytes(access.pin.expose());
    w.optional(access.module.as_deref(), |w, path| w.bytes(path.as_os_str().as_bytes()));
    w.optional(access.device.as_deref(), Writer::text);
    w.optional(blank.as_ref(), |w, (so_pin, label)| {
        w.bytes(so_pin.expose());
        w.text(label);
    });
}

fn read_opening(r: &mut Reader<'_>) -> Option<Opening> {
    let profile = r.json()?;
    let token = match r.byte()? {
        0 => Locator::Serial(r.text()?),
        1 => Locator::Label(r.text()?),
        _ => return None,
    };
    let pin = r.secret()?;
    let module = r.optional(|r| {
        let path = std::ffi::OsStr::from_bytes(r.bytes()?);
        Some(PathBuf::from(path))
    })?;
    let device = r.optional(Reader::text)?;
    let blank = r.optional(|r| Some((r.secret()?, r.text()?)))?;
    Some(Opening { profile, access: Access { token, pin, module, device }, blank })
}

pub(super) fn write_opened(w: &mut Writer<'_>, opened: &Opened) {
    match opened {
        Ok((info, health)) => {
            w.byte(1);
            for text in [&info.label, &info.serial, &info.manufacturer, &info.model] {
                w.text(text);
            }
            write_health(w, health);
        }
        Err(error) => {
            w.byte(0);
            write_error(w, error);
        }
    }
}

pub(super) fn read_opened(r: &mut Reader<'_>) -> Option<Opened> {
    if !r.flag()? {
        return read_error(r).map(Err);
    }
    let (label, serial) = (r.text()?, r.text()?);
    let (manufacturer, model) = (r.text()?, r.text()?);
    Some(Ok((TokenInfo { label, serial, manufacturer, model }, read_health(r)?)))
}

pub(super) fn write_health(w: &mut Writer<'_>, health: &Health) {
    w.number(health.epoch);
    w.optional(health.why.as_deref(), Writer::text);
}

pub(super) fn read_health(r: &mut Reader<'_>) -> Option<Health> {
    let epoch = r.number()?;
    let why = r.optional(Reader::text)?;
    Some(Health { up: why.is_none(), why, epoch, waiting: 0, seated: 0 })
}

fn write_key(w: &mut Writer<'_>, key: &TokenKey) {
    w.raw(&key.id.0);
    write_wrapped(w, key.wrapped.as_ref());
}

fn read_key(r: &mut Reader<'_>) -> Option<TokenKey> {
    Some(TokenKey { id: BackingKeyId(r.array()?), wrapped: read_wrapped(r)? })
}

fn write_wrapped(w: &mut Writer<'_>, wrapped: Option<&WrappedKey>) {
    w.optional(wrapped, |w, wrapped| w.bytes(wrapped.bytes()));
}

fn read_wrapped(r: &mut Reader<'_>) -> Option<Option<WrappedKey>> {
    r.optional(|r| WrappedKey::new(r.bytes()?))
}

pub(super) fn write_requests(w: &mut Writer<'_>, requests: &[&Request]) {
    requests.iter().for_each(|request| write_request(w, request));
}

/// From 1 to [`MOST`] of them.
pub(super) fn read_requests(r: &mut Reader<'_>) -> Option<Vec<Request>> {
    r.all(MOST, read_request)
}

fn write_request(w: &mut Writer<'_>, request: &Request) {
    let of_key = |w: &mut Writer<'_>, kind: u8, key: &TokenKey, check: &KeyCheck, data: &[u8]| {
        w.byte(kind);
        write_key(w, key);
        w.raw(&check.0);
        w.bytes(data);
    };
    let named = |w: &mut Writer<'_>, kind: u8, id: &BackingKeyId| {
        w.byte(kind);
        w.raw(&id.0);
    };
    match request {
        Request::Derive { key, check, input } => of_key(w, 1, key, check, input),
        Request::Agree { key, check, peer } => of_key(w, 2, key, check, peer),
        Request::Unwrap { key, check, ciphertext } => of_key(w, 3, key, check, ciphertext),
        Request::Generate { id, scheme } => {
            named(w, 4, id);
            w.json(scheme);
        }
        Request::Import { id, scheme, material } => {
            named(w, 5, id);
            w.json(scheme);
            w.raw(material.expose());
        }
        Request::Destroy { id } => named(w, 6, id),
        Request::Inspect { key } => {
            w.byte(7);
            write_key(w, key);
        }
        Request::Random { len } => {
            w.byte(8);
            w.number(u64::try_from(*len).unwrap_or(u64::MAX));
        }
        Request::GenerateSigner { id, scheme } => {
            named(w, 9, id);
            w.json(scheme);
        }
        Request::Sign { key, scheme, public, message } => {
            w.byte(10);
            write_key(w, key);
            w.json(scheme);
            w.bytes(public);
            w.bytes(message);
        }
        Request::Attest { key, nonce } => {
            w.byte(11);
            write_key(w, key);
            w.bytes(nonce);
        }
    }
}

fn read_request(r: &mut Reader<'_>) -> Option<Request> {
    Some(match r.byte()? {
        kind @ 1..=3 => {
            let (key, check, data) = (read_key(r)?, KeyCheck(r.array()?), r.bytes()?.to_vec());
            match kind {
                1 => Request::Derive { key, check, input: data },
                2 => Request::Agree { key, check, peer: data },
                _ => Request::Unwrap { key, check, ciphertext: data },
            }
        }
        4 => Request::Generate { id: read_id(r)?, scheme: r.json()? },
        5 => Request::Import { id: read_id(r)?, scheme: r.json()?, material: r.key()? },
        6 => Request::Destroy { id: read_id(r)? },
        7 => Request::Inspect { key: read_key(r)? },
        8 => Request::Random { len: usize::try_from(r.number()?).ok()? },
        9 => Request::GenerateSigner { id: read_id(r)?, scheme: r.json()? },
        10 => {
            let (key, scheme, public) = (read_key(r)?, r.json()?, r.bytes()?.to_vec());
            Request::Sign { key, scheme, public, message: r.bytes()?.to_vec() }
        }
        11 => Request::Attest { key: read_key(r)?, nonce: r.bytes()?.to_vec() },
        _ => return None,
    })
}

fn read_id(r: &mut Reader<'_>) -> Option<BackingKeyId> {
    r.array().map(BackingKeyId)
}

pub(super) fn write_answers(w: &mut Writer<'_>, health: &Health, answers: &[Result<Response>]) {
    write_health(w, health);
    answers.iter().for_each(|answer| write_answer(w, answer));
}

pub(super) fn read_answers(r: &mut Reader<'_>) -> Option<Answers> {
    Some((read_health(r)?, r.all(MOST, read_answer)?))
}

fn write_answer(w: &mut Writer<'_>, answer: &Result<Response>) {
    match answer {
        Err(error) => {
            w.byte(0);
            write_error(w, error);
        }
        Ok(Response::MessageSecret(key)) => {
            w.byte(1);
            w.raw(key.expose());
        }
        Ok(Response::Evidence(evidence)) => {
            w.byte(2);
            w.json(evidence);
        }
        Ok(Response::Destroyed) => w.byte(3),
        Ok(Response::Random(bytes)) => {
            w.byte(4);
            w.bytes(bytes.expose());
        }
        Ok(Response::Signer(made)) => {
            w.byte(5);
            w.bytes(&made.public);
            write_wrapped(w, made.wrapped.as_ref());
        }
        Ok(Response::Signature(signature)) => {
            w.byte(6);
            w.bytes(signature);
        }
        Ok(Response::Made(made)) => {
            w.byte(7);
            w.json(&made.evidence);
            write_wrapped(w, made.wrapped.as_ref());
            w.optional(made.public.as_deref(), Writer::bytes);
        }
        Ok(Response::Proof(proof)) => {
            w.byte(8);
            w.json(proof);
        }
    }
}

fn read_answer(r: &mut Reader<'_>) -> Option<Result<Response>> {
    Some(match r.byte()? {
        0 => Err(read_error(r)?),
        1 => Ok(Response::MessageSecret(r.key()?)),
        2 => Ok(Response::Evidence(r.json()?)),
        3 => Ok(Response::Destroyed),
        4 => Ok(Response::Random(r.secret()?)),
        5 => {
            let public = r.bytes()?.to_vec();
            Ok(Response::Signer(NewSigner { public, wrapped: read_wrapped(r)? }))
        }
        6 => Ok(Response::Signature(r.bytes()?.to_vec())),
        7 => {
            let (evidence, wrapped) = (r.json()?, read_wrapped(r)?);
            let public = r.optional(|r| Some(r.bytes()?.to_vec()))?;
            Ok(Response::Made(Made { evidence, wrapped, public }))
        }
        8 => Ok(Response::Proof(r.json()?)),
        _ => return None,
    })
}

fn write_error(w: &mut Writer<'_>, error: &Error) {
    let mut write = |kind: u8, texts: [&str; 2]| {
        w.byte(kind);
        texts.into_iter().for_each(|text| w.text(text));
    };
    match error {
        Error::Unavailable { token, why } => write(0, [token, why]),
        Error::Overloaded(token) => write(1, [token, ""]),
        Error::Timeout(token) => write(2, [token, ""]),
        Error::Unsupported { profile, why } => write(3, [profile, why]),
        Error::Pin { token, why } => write(4, [token, why]),
        Error::BadRequest(why) => write(5, [why, ""]),
        Error::Full { token, why } => write(8, [token, why]),
        Error::NoSession(token) => write(9, [token, ""]),
        Error::Sealed { token, why } => write(10, [token, why]),
        Error::KeyNotFound(id) => {
            w.byte(6);
            w.raw(&id.0);
        }
        Error::KeyRejected { id, why } => {
            w.byte(7);
            w.raw(&id.0);
            w.text(why);
        }
    }
}

fn read_error(r: &mut Reader<'_>) -> Option<Error> {
    let kind = r.byte()?;
    if kind == 6 {
        return read_id(r).map(Error::KeyNotFound);
    }
    if kind == 7 {
        return Some(Error::KeyRejected { id: read_id(r)?, why: r.text()? });
    }
    let (first, why) = (r.text()?, r.text()?);
    Some(match kind {
        0 => Error::Unavailable { token: first, why },
        1 => Error::Overloaded(first),
        2 => Error::Timeout(first),
        3 => Error::Unsupported { profile: first, why },
        4 => Error::Pin { token: first, why },
        8 => Error::Full { token: first, why },
        9 => Error::NoSession(first),
        10 => Error::Sealed { token: first, why },
        5 => {
            tracing::error!(why = first, "the token's driver was asked what it can't do");
            Error::BadRequest("the driver found it out of bounds")
        }
        _ => return None,
    })
}
