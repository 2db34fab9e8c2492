//! A PIV card in software that answers as a YubiKey of firmware 5.4 does, plugged into the virtual
//! reader of vsmartcard. For tests and `strongroom dev --token piv`: it guards nothing.
//!
//! `piv-card --port PORT --state FILE [--serial N] [--aes] [--overtaken]`: connects to the reader at PORT of the
//! loopback and serves until the reader goes away. Killing it is pulling the card. What the card
//! remembers is in FILE, written before a command is answered; `--aes` makes a new card with a
//! management key of AES, as firmware 5.7 has. With `--overtaken` another process seems to work on the
//! card: whenever a key is made, the object that was written last is as it was before.

mod attest;
mod card;
mod memory;

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;

struct Arguments {
    port: u16,
    state: PathBuf,
    serial: u32,
    aes: bool,
    overtaken: bool,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut port, mut state, mut serial) = (None, None, 20_000_001);
        let (mut aes, mut overtaken) = (false, false);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--port" => port = Some(words.next()?.parse().ok()?),
                "--state" => state = Some(PathBuf::from(words.next()?)),
                "--serial" => serial = words.next()?.parse().ok()?,
                "--aes" => aes = true,
                "--overtaken" => overtaken = true,
                _ => return None,
            }
        }
        Some(Self { port: port?, state: state?, serial, aes, overtaken })
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1)) else {
        eprintln!("usage: piv-card --port PORT --state FILE [--serial N] [--aes] [--overtaken]");
        return ExitCode::from(64);
    };
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("piv-card: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> std::io::Result<()> {
    let memory = memory::Memory::load(&arguments.state, arguments.serial, arguments.aes)?;
    let mut card = card::Card::new(memory, arguments.overtaken);
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, arguments.port))?;
    stream.set_nodelay(true)?;
    let socket = stream.try_clone()?;
    let mut reader = vpicc::Connection::from(stream);
    loop {
        // The reader sends a message's length and its body apart and waits for our acknowledgement
        // between them, which Linux delays by 40 ms unless told, each time, not to.
        rustix::net::sockopt::set_tcp_quickack(&socket, true)?;
        reader.poll(&mut card)?;
    }
}
