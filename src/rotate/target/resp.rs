//! Redis's wire, as far as commands with a short answer need it (RESP2):
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use super::Refusal;
use super::stream::Stream;
use crate::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The longest answer, in bytes: what ACL LIST says of a few thousand users.
const MAX_ANSWER: usize = 1 << 20;
/// The longest code of an error, in bytes.
const MAX_CODE: usize = 20;
/// How many bytes are read at a time.
const PIECE: usize = 4096;
/// Answers within answers.
const MAX_DEPTH: u8 = 4;

/// What Redis answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A status, a bulk string or a number, as text.
    Text(String),
    /// Nothing.
    Nil,
    List(Vec<Self>),
    /// The first word of an error, `WRONGPASS` say. The rest repeats what was sent.
    Error(String),
}

/// A connection.
pub(super) struct Wire {
    stream: Stream,
    read: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Sends a command and reads its answer.
    pub(super) async fn ask(&mut self, command: &[&str]) -> Result<Answer, Refusal> {
        let request = written(command);
        self.stream.write_all(request.expose()).await.map_err(Refusal::unreachable)?;
        self.stream.flush().await.map_err(Refusal::unreachable)?;
        loop {
            if let Some((answer, rest)) = parse(&self.read, 0)? {
                let used = self.read.len() - rest.len();
                self.read.drain(..used);
                return Ok(answer);
            }
            if self.read.len() > MAX_ANSWER {
                return Err(garbled());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Refusal> {
        let mut piece = [0; PIECE];
        let len = self.stream.read(&mut piece).await.map_err(Refusal::unreachable)?;
        match piece.get(..len) {
            Some(read) if len > 0 => self.read.extend_from_slice(read),
            _ => return Err(Refusal::unreachable("the connection was closed")),
        }
        Ok(())
    }
}

/// A command as a list of bulk strings: nothing in it can end it early.
fn written(command: &[&str]) -> Secret {
    let mut out = Secret::new(Vec::new());
    let mut push = |bytes: &[u8]| {
        out.reserve(bytes.len());
        out.expose_mut().extend_from_slice(bytes);
    };
    push(format!("*{}\r\n", command.len()).as_bytes());
    for word in command {
        push(format!("${}\r\n", word.len()).as_bytes());
        push(word.as_bytes());
        push(b"\r\n");
    }
    out
}

fn garbled() -> Refusal {
    Refusal::other("it does not answer as Redis does")
}

/// The answer at the beginning of `bytes` and what follows it; nothing if it is not all there.
fn parse(bytes: &[u8], depth: u8) -> Result<Option<(Answer, &[u8])>, Refusal> {
    let Some((line, rest)) = line(bytes) else { return Ok(None) };
    let (kind, line) = line.split_first().ok_or_else(garbled)?;
    let line = std::str::from_utf8(line).map_err(|_| garbled())?;
    match kind {
        b'+' | b':' => Ok(Some((Answer::Text(line.to_owned()), rest))),
        // The one plain `ERR` that passes by itself.
        b'-' if line == "ERR max number of clients reached" => {
            Ok(Some((Answer::Error("MAXCLIENTS".to_owned()), rest)))
        }
        b'-' => {
            let word = line.split(' ').next().filter(|word| is_code(word));
            Ok(Some((Answer::Error(word.unwrap_or("an error of unknown form").to_owned()), rest)))
        }
        b'$' => bulk(line, rest),
        b'*' if depth < MAX_DEPTH => list(line, rest, depth),
        _ => Err(garbled()),
    }
}

/// Whether a word is an error's code. It is shown: a server must not put anything else there.
fn is_code(word: &str) -> bool {
    (1..=MAX_CODE).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_uppercase())
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((bytes.get(..end)?, bytes.get(end + 2..)?))
}

/// A length; nothing is -1.
fn length(line: &str) -> Result<Option<usize>, Refusal> {
    if line == "-1" {
        return Ok(None);
    }
    let length: usize = line.parse().map_err(|_| garbled())?;
    if length > MAX_ANSWER { Err(garbled()) } else { Ok(Some(length)) }
}

fn bulk<'a>(line: &str, rest: &'a [u8]) -> Result<Option<(Answer, &'a [u8])>, Refusal> {
    let Some(length) = length(line)? else { return Ok(Some((Answer::Nil, rest))) };
    let (Some(text), Some(rest)) = (rest.get(..length), rest.get(length + 2..)) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(text).map_err(|_| garbled())?;
    Ok(Some((Answer::Text(text.to_owned()), rest)))
}

fn list<'a>(
    line: &str,
    mut rest: &'a [u8],
    depth: u8,
) -> Result<Option<(Answer, &'a [u8])>, Refusal> {
    let Some(length) = length(line)? else { return Ok(Some((Answer::Nil, rest))) };
    let mut items = Vec::new();
    for _ in 0..length {
        let Some((item, after)) = parse(rest, depth + 1)? else { return Ok(None) };
        items.push(item);
        rest = after;
    }
    Ok(Some((Answer::List(items), rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Answer {
        Answer::Text(value.into())
    }

    #[test]
    fn answers_are_read_when_they_are_whole() {
        let whole = b"*4\r\n+OK\r\n$3\r\na\r\n\r\n$-1\r\n:7\r\nnext";
        let expected = Answer::List(vec![text("OK"), text("a\r\n"), Answer::Nil, text("7")]);
        // "a\r\n" has three bytes, one of them a letter.
        let end = whole.len() - 4;
        for cut in 0..end {
            assert_eq!(parse(&whole[..cut], 0), Ok(None), "{cut}");
        }
        assert_eq!(parse(whole, 0), Ok(Some((expected, &b"next"[..]))));
    }

    #[test]
    fn of_an_error_its_first_word_remains() {
        let answer = parse(b"-WRONGPASS invalid hunter2\r\n", 0);
        assert_eq!(answer, Ok(Some((Answer::Error("WRONGPASS".into()), &b""[..]))));
        for odd in [&b"-hunter2 it was\r\n"[..], b"-\r\n", b"-AAAAAAAAAAAAAAAAAAAAA\r\n"] {
            let answer = parse(odd, 0);
            let unknown = Answer::Error("an error of unknown form".into());
            assert_eq!(answer, Ok(Some((unknown, &b""[..]))));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused_and_takes_no_memory() {
        for bad in [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"$x\r\n", b"$99999999999\r\n", b"*-2\r\n"] {
            assert_eq!(parse(bad, 0), Err(garbled()));
        }
        assert_eq!(parse(&b"*1\r\n".repeat(9), 0), Err(garbled()));
    }

    #[test]
    fn a_command_holds_any_text() {
        let command = written(&["AUTH", "a b", "\r\n*1\r\n"]);
        assert_eq!(command.expose(), b"*3\r\n$4\r\nAUTH\r\n$3\r\na b\r\n$6\r\n\r\n*1\r\n\r\n");
    }
}
