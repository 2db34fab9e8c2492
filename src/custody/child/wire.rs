//! Frames on a local socket, and what they are made of.
//!
//! A frame is its length (four bytes) and as many bytes, at most [`MAX_FRAME`]. Numbers are
//! little-endian; bytes of any length stand after their number (four bytes). One side asks and the
//! other answers, so a frame is never followed by another before it was answered.
//! Whatever is read is bounded by its frame, and buffers are wiped after every frame.

use crate::secret::{Key, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;
use zeroize::Zeroize;

/// The longest frame, in bytes: a profile is the longest thing that is sent.
pub(super) const MAX_FRAME: usize = 64 * 1024;

/// Bytes of the length before a frame.
const HEAD: usize = 4;

/// What a buffer holds before a longer frame makes it larger.
const USUAL: usize = 1024;

/// The longest text of an error that is passed on, in bytes.
const MAX_TEXT: usize = 1024;

/// The frame that goes out and the one that comes in.
pub(super) struct Frames {
    out: Secret,
    into: Secret,
    /// Bytes of the frame that comes in that are here.
    have: usize,
}

impl Frames {
    pub(super) fn new() -> Self {
        let out = Secret::new(Vec::with_capacity(USUAL));
        Self { out, into: Secret::new(vec![0; USUAL]), have: 0 }
    }

    /// Sends what `write` writes as one frame, by one call.
    ///
    /// # Errors
    /// `InvalidInput` if that is too long to be sent; else those of `to`.
    pub(super) fn send(
        &mut self,
        mut to: impl Write,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> io::Result<()> {
        self.out.expose_mut().extend_from_slice(&[0; HEAD]);
        write(&mut Writer(&mut self.out));
        let frame = self.out.expose_mut();
        let body = frame.len().saturating_sub(HEAD);
        let sent = match u32::try_from(body) {
            Ok(length) if body <= MAX_FRAME => {
                frame.iter_mut().zip(length.to_le_bytes()).for_each(|(to, from)| *to = from);
                to.write_all(frame)
            }
            _ => Err(io::Error::new(ErrorKind::InvalidInput, "a message too long to be sent")),
        };
        frame.as_mut_slice().zeroize();
        frame.clear();
        sent
    }

    /// Waits for a frame and reads it by `read`, which must take all of it.
    ///
    /// # Errors
    /// `UnexpectedEof` if the other side is gone, `WouldBlock` or `TimedOut` if the socket has a read
    /// timeout and it is over, `InvalidData` for anything but one whole frame that `read` understands.
    pub(super) fn receive<T>(
        &mut self,
        mut from: &UnixStream,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> io::Result<T> {
        let mut until = None;
        loop {
            // A timeout of the socket's is for one read: a frame that comes in drops has no more time.
            if self.have > 0 {
                let late = |until: &Instant| Instant::now() >= *until;
                until = until.or(from.read_timeout()?.map(|time| Instant::now() + time));
                if until.as_ref().is_some_and(late) {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            match from.read(self.room()) {
                Ok(more) if self.came(more)? => return self.read(read),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if self.have == 0 => return Err(error),
                Err(_) => return Err(malformed("half a message")),
            }
        }
    }

    /// Where the next bytes of the frame that comes in belong.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.into.expose_mut().get_mut(self.have..).unwrap_or_default()
    }

    /// So many bytes have come, by a read into [`Frames::room`]; whether the frame is whole.
    ///
    /// # Errors
    /// `UnexpectedEof` if none have, `InvalidData` for anything but one frame.
    pub(super) fn came(&mut self, more: usize) -> io::Result<bool> {
        if more == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.have = self.have.saturating_add(more);
        let Some(head) = self.into.expose().first_chunk::<HEAD>().filter(|_| self.have >= HEAD)
        else {
            return Ok(false);
        };
        let whole = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if whole > MAX_FRAME || self.have > whole + HEAD {
            return Err(malformed("not one message"));
        }
        if self.have == whole + HEAD {
            return Ok(true);
        }
        self.into.reserve((whole + HEAD).saturating_sub(self.into.len()));
        let buffer = self.into.expose_mut();
        buffer.resize(buffer.len().max(whole + HEAD), 0);
        Ok(false)
    }

    /// Reads the whole frame that has come by `read`, which must take all of it, and wipes it.
    ///
    /// # Errors
    /// `InvalidData` for what `read` does not understand.
    pub(super) fn read<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> io::Result<T> {
        let frame = self.into.expose().get(HEAD..self.have).unwrap_or_default();
        let value = Reader::whole(frame, read);
        if let Some(used) = self.into.expose_mut().get_mut(..self.have) {
            used.zeroize();
        }
        self.have = 0;
        value.ok_or_else(|| malformed("a message that can't be read"))
    }
}

/// One end of a socket with its buffers, for a thread that waits.
pub(super) struct Channel {
    stream: UnixStream,
    frames: Frames,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, frames: Frames::new() }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// As [`Frames::send`], on this socket.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut Writer<'_>)) -> io::Result<()> {
        self.frames.send(&self.stream, write)
    }

    /// As [`Frames::receive`], on this socket.
    pub(super) fn receive<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> io::Result<T> {
        self.frames.receive(&self.stream, read)
    }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Writes a frame.
pub(super) struct Writer<'a>(&'a mut Secret);

impl<'a> Writer<'a> {
    /// For a frame that is not sent: tests.
    #[cfg(test)]
    pub(super) fn new(buffer: &'a mut Secret) -> Self {
        Self(buffer)
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.reserve(bytes.len());
        self.0.expose_mut().extend_from_slice(bytes);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.raw(&[byte]);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    /// Bytes after their number. More than fit into a frame are cut, and the frame is then too long
    /// to be sent.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.raw(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.raw(bytes.get(..MAX_FRAME).unwrap_or(bytes));
    }

    /// A text for people, cut where it gets too long.
    pub(super) fn text(&mut self, text: &str) {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(text.as_bytes().get(..end).unwrap_or_default());
    }

    pub(super) fn optional<T: ?Sized>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T),
    ) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// What is not secret and not often sent, as JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) {
        self.bytes(&serde_json::to_vec(value).unwrap_or_default());
    }
}

/// Reads a frame; every method answers `None` where the frame holds something else.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads all of `frame` by `read`.
    pub(super) fn whole<T>(
        frame: &'a [u8],
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let mut reader = Self(frame);
        read(&mut reader).filter(|_| reader.0.is_empty())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).ok()?)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        Some(std::str::from_utf8(self.bytes()?).ok()?.to_owned())
    }

    pub(super) fn secret(&mut self) -> Option<Secret> {
        self.bytes().map(Secret::copy_of)
    }

    /// 32 secret bytes, which go from the buffer to their own place and nowhere between.
    pub(super) fn key(&mut self) -> Option<Key> {
        let bytes = self.take(32)?;
        Key::fill(|to| {
            to.copy_from_slice(bytes);
            Ok::<_, std::convert::Infallible>(())
        })
        .ok()
    }

    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    /// What is left, as at least one and at most so many of what `read` reads.
    pub(super) fn all<T>(
        &mut self,
        most: usize,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut all = vec![read(self)?];
        while !self.0.is_empty() {
            if all.len() == most {
                return None;
            }
            all.push(read(self)?);
        }
        Some(all)
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Option<T> {
        serde_json::from_slice(self.bytes()?).ok()
    }
}
