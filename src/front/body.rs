//! Bodies: a request's is gathered into one buffer that is wiped, an answer's is wiped when sent.
//!
//! What the network layers buffer themselves (the kernel, TLS records, hyper's read buffer) is out
//! of reach; it is overwritten as the connection goes on and freed with it, and the allocator wipes
//! what the program frees. The answer's bytes are not copied by hyper: it keeps our buffer and hands
//! it to a vectored write.

use super::message::Refusal;
use crate::secret::Secret;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use zeroize::Zeroize;

/// No more than this is reserved on the word of a Content-Length alone.
const MAX_RESERVE: usize = 64 * 1024;

/// An answer's body.
pub enum Payload {
    /// May hold secrets: wiped once it is sent or dropped.
    Secret(Secret),
    /// Holds none (a public document, an empty body).
    Open(Bytes),
}

impl Payload {
    /// No body.
    pub const EMPTY: Self = Self::Open(Bytes::new());

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Secret(secret) if secret.is_empty() => Bytes::new(),
            Self::Secret(secret) => Bytes::from_owner(Owner(secret)),
            Self::Open(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Secret(Secret::new(bytes))
    }
}

/// Keeps the secret alive as long as the network layer refers to its bytes.
struct Owner(Secret);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// Gathers a whole body of at most `max` bytes.
///
/// A Content-Length above `max` is refused before a byte is read, a body that turns out longer as
/// soon as it does.
pub(super) async fn gather<B>(mut body: B, max: usize) -> Result<Secret, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.is_end_stream() {
        return Ok(Secret::new(Vec::new()));
    }
    let hint = body.size_hint();
    if hint.lower() > max as u64 {
        return Err(Refusal::TooLarge);
    }
    let announced = usize::try_from(hint.lower()).unwrap_or(max);
    let mut whole = Secret::new(Vec::with_capacity(announced.min(MAX_RESERVE)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::BadRequest)?;
        if let Some(data) = frame.data_ref() {
            append(&mut whole, data, max)?;
        }
    }
    Ok(whole)
}

fn append(whole: &mut Secret, data: &[u8], max: usize) -> Result<(), Refusal> {
    let needed = whole.len().saturating_add(data.len());
    if needed > max {
        return Err(Refusal::TooLarge);
    }
    let buffer = whole.expose_mut();
    if needed > buffer.capacity() {
        grow(buffer, needed.max(buffer.capacity().saturating_mul(2)).min(max));
    }
    buffer.extend_from_slice(data);
    Ok(())
}

/// Moves to a larger buffer and wipes the old one, which `Vec` by itself would not.
fn grow(buffer: &mut Vec<u8>, capacity: usize) {
    let mut larger = Vec::with_capacity(capacity);
    larger.extend_from_slice(buffer);
    std::mem::swap(buffer, &mut larger);
    larger.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A body without a length that comes in equal pieces and counts what was taken.
    struct Pieces {
        left: usize,
        piece: Bytes,
        taken: usize,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            self.taken += 1;
            Poll::Ready(Some(Ok(hyper::body::Frame::data(self.piece.clone()))))
        }
    }

    fn pieces(count: usize, size: usize) -> Pieces {
        Pieces { left: count, piece: Bytes::from(vec![7; size]), taken: 0 }
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let body = gather(Full::new(Bytes::from(vec![1; 100])), 100).await;
        assert_eq!(body.ok().unwrap().len(), 100);
        let body = gather(Full::new(Bytes::from(vec![1; 101])), 100).await;
        assert_eq!(body.err(), Some(Refusal::TooLarge));
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_gathered_whole_over_many_growths() {
        let body = gather(pieces(1000, 311), 1 << 20).await.ok().unwrap();
        assert_eq!(body.len(), 311_000);
        assert!(body.expose().iter().all(|b| *b == 7));
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_refused_as_soon_as_it_is_too_long() {
        let mut body = pieces(1000, 100);
        assert_eq!(gather(&mut body, 250).await.err(), Some(Refusal::TooLarge));
        assert_eq!(body.taken, 3);
    }

    #[test]
    fn the_payload_hands_out_its_bytes_without_copying_them() {
        let bytes = b"{\"SecretString\":\"x\"}".to_vec();
        let before = bytes.as_ptr();
        let sent = Payload::from(bytes).into_bytes();
        assert_eq!(sent.as_ptr(), before);
        assert_eq!(&sent[..], b"{\"SecretString\":\"x\"}");
    }
}
