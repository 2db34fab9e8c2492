//! The other side of an audit sink, which keeps what it is sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// An HTTP server that takes everything.
pub(super) struct Sink {
    port: u16,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl Sink {
    pub(super) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let taken = Arc::<Mutex<Vec<u8>>>::default();
        let keep = taken.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keep = keep.clone();
                std::thread::spawn(move || take(stream, &keep));
            }
        });
        Self { port, taken }
    }

    /// What the appliance's configuration says of it.
    pub(super) fn configuration(&self) -> String {
        let Self { port, .. } = self;
        format!(
            "[[audit.sink]]\nname = \"leaks\"\nkind = \"http\"\nurl = \"http://127.0.0.1:{port}/\"\n"
        )
    }

    /// Everything that came, heads and bodies.
    pub(super) fn taken(&self) -> Vec<u8> {
        self.taken.lock().expect("nobody has panicked").clone()
    }
}

/// Takes requests until the other side ends.
fn take(stream: TcpStream, keep: &Mutex<Vec<u8>>) {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
        keep.lock().expect("nobody has panicked").extend_from_slice(line.as_bytes());
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            keep.lock().expect("nobody has panicked").extend_from_slice(&body);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            if stream.get_mut().write_all(answer).is_err() {
                return;
            }
        }
        line.clear();
    }
}
