//! The commands (NIST SP 800-73-4, part 2; Yubico's extensions).

use crate::attest;
use crate::memory::{ECC_P256, MANAGEMENT_KEY, Memory, PIN, PUK, Private, Reference, Stored};
use des::TdesEde3;
use des::cipher::generic_array::GenericArray;
use des::cipher::{BlockEncrypt, KeyInit};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rand_core::{OsRng, RngCore};
use rsa::BigUint;
use rsa::traits::PublicKeyParts;

const VERSION: [u8; 3] = [5, 4, 3];
/// An AES-192 management key, as firmware 5.7 has by default; and triple DES.
const AES_192: u8 = 0x0a;
const TRIPLE_DES: u8 = 0x03;
/// The object that only who has given the PIN may read.
const PRINTED: u32 = 0x5f_c109;
const ATTESTATION: u32 = 0x5f_ff01;
const SLOTS: [u8; 4] = [0x9a, 0x9c, 0x9d, 0x9e];

/// Status words.
#[derive(Clone, Copy)]
struct Status(u16);

const WRONG_LENGTH: Status = Status(0x6700);
const NOT_ALLOWED: Status = Status(0x6982);
const BLOCKED: Status = Status(0x6983);
const NOT_SATISFIED: Status = Status(0x6985);
const BAD_DATA: Status = Status(0x6a80);
const NOT_FOUND: Status = Status(0x6a82);
const BAD_PARAMETER: Status = Status(0x6b00);
const NO_SUCH_COMMAND: Status = Status(0x6d00);

fn tries(left: u8) -> Status {
    if left == 0 { BLOCKED } else { Status(0x63c0 | u16::from(left)) }
}

type Answer = Result<Vec<u8>, Status>;

pub(crate) struct Card {
    memory: Memory,
    verified: bool,
    managed: bool,
    witness: Option<[u8; 8]>,
    /// Parts of a command that have come, and of an answer that have not gone.
    coming: Vec<u8>,
    going: Vec<u8>,
    /// Whether another process seems to write back what it has read before.
    overtaken: bool,
    /// The object that was written last, as it was before.
    replaced: Option<(u32, Vec<u8>)>,
}

/// A command without its chaining.
struct Command<'a> {
    p1: u8,
    p2: u8,
    data: &'a [u8],
}

impl Card {
    pub(crate) fn new(memory: Memory, overtaken: bool) -> Self {
        Self {
            memory,
            verified: false,
            managed: false,
            witness: None,
            coming: Vec::new(),
            going: Vec::new(),
            overtaken,
            replaced: None,
        }
    }

    fn forget(&mut self) {
        (self.verified, self.managed, self.witness) = (false, false, None);
        self.coming.clear();
        self.going.clear();
    }

    fn command(&mut self, ins: u8, command: &Command<'_>) -> Answer {
        match ins {
            0xa4 => self.select(command.data),
            0xfd => Ok(VERSION.to_vec()),
            0xf8 => Ok(self.memory.serial.to_be_bytes().to_vec()),
            0x20 => self.verify(command),
            0x24 => self.change(command),
            0x2c => self.unblock(command),
            0x47 => self.generate(command),
            0x87 if command.p2 == 0x9b => self.manage(command),
            0x87 => self.use_key(command),
            0xcb => self.get_data(command.data),
            0xdb => self.put_data(command.data),
            0xf7 => self.metadata(command.p2),
            0xf9 => self.attest(command.p1),
            0xfa => self.set_retries(command),
            0xfb => self.reset_all(),
            0xfe => self.import(command),
            0xff => self.set_management_key(command),
            _ => Err(NO_SUCH_COMMAND),
        }
    }

    fn select(&mut self, name: &[u8]) -> Answer {
        if !name.starts_with(&[0xa0, 0x00, 0x00, 0x03, 0x08]) {
            return Err(NOT_FOUND);
        }
        self.forget();
        Ok(vec![0x61, 0x07, 0x4f, 0x05, 0xa0, 0x00, 0x00, 0x03, 0x08])
    }

    /// Whether `value` is the PIN (`0x80`) or PUK; wrong ones are counted.
    fn check(&mut self, which: u8, value: &[u8]) -> Result<(), Status> {
        let reference = self.reference(which)?;
        if reference.left == 0 {
            return Err(BLOCKED);
        }
        let right = reference.value == value;
        reference.left = if right { reference.most } else { reference.left - 1 };
        let left = reference.left;
        self.save()?;
        if right { Ok(()) } else { Err(tries(left)) }
    }

    fn reference(&mut self, which: u8) -> Result<&mut Reference, Status> {
        match which {
            0x80 => Ok(&mut self.memory.pin),
            0x81 => Ok(&mut self.memory.puk),
            _ => Err(BAD_PARAMETER),
        }
    }

    fn verify(&mut self, command: &Command<'_>) -> Answer {
        if command.p2 != 0x80 {
            return Err(BAD_PARAMETER);
        }
        if command.data.is_empty() {
            return if self.verified { Ok(vec![]) } else { Err(tries(self.memory.pin.left)) };
        }
        self.verified = false;
        self.check(0x80, command.data)?;
        self.verified = true;
        Ok(vec![])
    }

    fn change(&mut self, command: &Command<'_>) -> Answer {
        let (old, new) = command.data.split_at_checked(8).ok_or(WRONG_LENGTH)?;
        let new = new.try_into().map_err(|_| WRONG_LENGTH)?;
        self.check(command.p2, old)?;
        self.reference(command.p2)?.value = new;
        self.save()
    }

    fn unblock(&mut self, command: &Command<'_>) -> Answer {
        let (puk, new) = command.data.split_at_checked(8).ok_or(WRONG_LENGTH)?;
        let new: [u8; 8] = new.try_into().map_err(|_| WRONG_LENGTH)?;
        self.check(0x81, puk)?;
        let pin = self.reference(0x80)?;
        *pin = Reference::new(&new, pin.most);
        self.save()
    }

    /// Mutual authentication by the management key: the card's witness, the host's challenge.
    fn manage(&mut self, command: &Command<'_>) -> Answer {
        if command.p1 != self.management_algorithm() || self.memory.aes {
            return Err(BAD_DATA);
        }
        let template = find(command.data, 0x7c).ok_or(BAD_DATA)?;
        let cipher = TdesEde3::new_from_slice(&self.memory.management_key).map_err(|_| BAD_DATA)?;
        let encrypted = |block: [u8; 8]| {
            let mut block = GenericArray::from(block);
            cipher.encrypt_block(&mut block);
            block.to_vec()
        };
        let theirs = find(template, 0x80).ok_or(BAD_DATA)?;
        if theirs.is_empty() {
            let mut witness = [0; 8];
            OsRng.fill_bytes(&mut witness);
            self.witness = Some(witness);
            return Ok(tlv(0x7c, &tlv(0x80, &encrypted(witness))));
        }
        let right = self.witness.take().is_some_and(|witness| witness == theirs);
        let challenge = find(template, 0x81).and_then(|c| c.try_into().ok()).ok_or(BAD_DATA)?;
        if !right {
            return Err(NOT_ALLOWED);
        }
        self.managed = true;
        Ok(tlv(0x7c, &tlv(0x82, &encrypted(challenge))))
    }

    fn management_algorithm(&self) -> u8 {
        if self.memory.aes { AES_192 } else { TRIPLE_DES }
    }

    fn managed(&self) -> Result<(), Status> {
        if self.managed { Ok(()) } else { Err(NOT_ALLOWED) }
    }

    fn set_management_key(&mut self, command: &Command<'_>) -> Answer {
        self.managed()?;
        let [TRIPLE_DES, 0x9b, 24, key @ ..] = command.data else { return Err(BAD_DATA) };
        self.memory.management_key = key.to_vec();
        self.save()
    }

    fn set_retries(&mut self, command: &Command<'_>) -> Answer {
        self.managed()?;
        if !self.verified || command.p1 == 0 || command.p2 == 0 {
            return Err(NOT_ALLOWED);
        }
        // As the real one: the PIN and the PUK are their defaults again.
        self.memory.pin = Reference::new(PIN, command.p1);
        self.memory.puk = Reference::new(PUK, command.p2);
        self.save()
    }

    fn reset_all(&mut self) -> Answer {
        if self.memory.pin.left != 0 || self.memory.puk.left != 0 {
            return Err(NOT_SATISFIED);
        }
        self.memory.reset();
        self.forget();
        self.save()
    }

    fn generate(&mut self, command: &Command<'_>) -> Answer {
        self.managed()?;
        let slot = slot(command.p2)?;
        let template = find(command.data, 0xac).ok_or(BAD_DATA)?;
        let one = |tag| find(template, tag).and_then(|value| value.first().copied());
        let algorithm = one(0x80).ok_or(BAD_DATA)?;
        let (pin, touch) = (one(0xaa).unwrap_or(2), one(0xab).unwrap_or(1));
        let stored = Stored::generate(algorithm, pin, touch).ok_or(BAD_DATA)?;
        let public = public(&stored).ok_or(BAD_DATA)?;
        self.memory.keys.insert(slot, stored);
        self.memory.objects.extend(self.replaced.take().filter(|_| self.overtaken));
        self.save()?;
        Ok([&[0x7f][..], &tlv(0x49, &public)].concat())
    }

    fn import(&mut self, command: &Command<'_>) -> Answer {
        self.managed()?;
        let slot = slot(command.p2)?;
        if command.p1 != ECC_P256 {
            return Err(BAD_DATA);
        }
        let one = |tag| find(command.data, tag).and_then(|value| value.first().copied());
        let (pin, touch) = (one(0xaa).unwrap_or(2), one(0xab).unwrap_or(1));
        let scalar = find(command.data, 0x06).ok_or(BAD_DATA)?;
        let stored = Stored::import(scalar, pin, touch).ok_or(BAD_DATA)?;
        self.memory.keys.insert(slot, stored);
        self.save()
    }

    fn use_key(&mut self, command: &Command<'_>) -> Answer {
        let stored = self.memory.keys.get(&slot(command.p2)?).ok_or(BAD_PARAMETER)?;
        if stored.algorithm != command.p1 {
            return Err(BAD_DATA);
        }
        if stored.pin_policy != 1 && !self.verified {
            return Err(NOT_ALLOWED);
        }
        let always = stored.pin_policy == 3;
        let template = find(command.data, 0x7c).ok_or(BAD_DATA)?;
        let (input, peer) = (find(template, 0x81), find(template, 0x85));
        let answer = match (stored.private().ok_or(BAD_DATA)?, input, peer) {
            (Private::Rsa(key), Some(input), None) => raw_rsa(&key, input)?,
            (Private::Ec(key), Some(hash), None) => {
                let signature: Result<DerSignature, _> = SigningKey::from(&key).sign_prehash(hash);
                signature.map_err(|_| BAD_DATA)?.as_bytes().to_vec()
            }
            (Private::Ec(key), None, Some(point)) => {
                let peer = p256::PublicKey::from_sec1_bytes(point).map_err(|_| BAD_DATA)?;
                let agreed = p256::ecdh::diffie_hellman(key.to_nonzero_scalar(), peer.as_affine());
                agreed.raw_secret_bytes().to_vec()
            }
            _ => return Err(BAD_DATA),
        };
        // "Always" means a PIN right before each use.
        self.verified &= !always;
        Ok(tlv(0x7c, &tlv(0x82, &answer)))
    }

    fn get_data(&self, data: &[u8]) -> Answer {
        let id = object(data).ok_or(BAD_DATA)?;
        if id == PRINTED && !self.verified {
            return Err(NOT_ALLOWED);
        }
        if id == ATTESTATION {
            let certificate = attest::root(&self.memory).ok_or(BAD_DATA)?;
            // As certificates are kept: the certificate, that it is not compressed, no check sum.
            let body = [tlv(0x70, &certificate), vec![0x71, 1, 0, 0xfe, 0]].concat();
            return Ok(tlv(0x53, &body));
        }
        self.memory.objects.get(&id).map(|value| tlv(0x53, value)).ok_or(NOT_FOUND)
    }

    fn put_data(&mut self, data: &[u8]) -> Answer {
        self.managed()?;
        let id = object(data).ok_or(BAD_DATA)?;
        let before = match find(data, 0x53).ok_or(BAD_DATA)? {
            [] => self.memory.objects.remove(&id),
            value => self.memory.objects.insert(id, value.to_vec()),
        };
        self.replaced = before.map(|value| (id, value));
        self.save()
    }

    fn metadata(&self, which: u8) -> Answer {
        let of = |reference: &Reference, default: &[u8; 8]| {
            let default = u8::from(reference.value == *default);
            [tlv(1, &[0xff]), tlv(5, &[default]), tlv(6, &[reference.most, reference.left])]
                .concat()
        };
        match which {
            0x80 => Ok(of(&self.memory.pin, PIN)),
            0x81 => Ok(of(&self.memory.puk, PUK)),
            0x9b => {
                let default = u8::from(self.memory.management_key == MANAGEMENT_KEY);
                let algorithm = self.management_algorithm();
                Ok([tlv(1, &[algorithm]), tlv(2, &[0, 1]), tlv(5, &[default])].concat())
            }
            _ => {
                // "Reference data not found."
                let stored = self.memory.keys.get(&slot(which)?).ok_or(Status(0x6a88))?;
                let origin = if stored.generated { 1 } else { 2 };
                Ok([
                    tlv(1, &[stored.algorithm]),
                    tlv(2, &[stored.pin_policy, stored.touch_policy]),
                    tlv(3, &[origin]),
                    tlv(4, &public(stored).ok_or(BAD_DATA)?),
                ]
                .concat())
            }
        }
    }

    fn attest(&self, which: u8) -> Answer {
        let which = slot(which)?;
        let stored = self.memory.keys.get(&which).filter(|stored| stored.generated);
        let stored = stored.ok_or(BAD_DATA)?;
        attest::slot(&self.memory, which, stored, VERSION).ok_or(BAD_DATA)
    }

    fn save(&self) -> Answer {
        // Memory failure.
        self.memory.save().map(|()| vec![]).map_err(|_| Status(0x6581))
    }

    /// As much of the answer as fits into one message.
    fn next(&mut self) -> Vec<u8> {
        let rest = self.going.split_off(self.going.len().min(256));
        let mut part = std::mem::replace(&mut self.going, rest);
        let left = u8::try_from(self.going.len()).unwrap_or(0);
        part.extend_from_slice(&if self.going.is_empty() { [0x90, 0x00] } else { [0x61, left] });
        part
    }
}

impl vpicc::VSmartCard for Card {
    fn power_on(&mut self) {
        self.forget();
    }

    fn power_off(&mut self) {
        self.forget();
    }

    fn reset(&mut self) {
        self.forget();
    }

    fn execute(&mut self, message: &[u8]) -> Vec<u8> {
        let [class, ins, p1, p2, rest @ ..] = message else {
            return WRONG_LENGTH.0.to_be_bytes().to_vec();
        };
        if *ins == 0xc0 {
            return self.next();
        }
        let (length, rest) = rest.split_first().unwrap_or((&0, &[]));
        self.coming.extend_from_slice(&rest[..rest.len().min(usize::from(*length))]);
        if class & 0x10 != 0 {
            return vec![0x90, 0x00];
        }
        let data = std::mem::take(&mut self.coming);
        match self.command(*ins, &Command { p1: *p1, p2: *p2, data: &data }) {
            Ok(answer) => {
                self.going = answer;
                self.next()
            }
            Err(status) => status.0.to_be_bytes().to_vec(),
        }
    }
}

fn slot(number: u8) -> Result<u8, Status> {
    let known = SLOTS.contains(&number) || (0x82..=0x95).contains(&number);
    if known { Ok(number) } else { Err(BAD_PARAMETER) }
}

/// A private-key operation without padding: the padding is the host's business.
fn raw_rsa(key: &rsa::RsaPrivateKey, input: &[u8]) -> Result<Vec<u8>, Status> {
    let number = BigUint::from_bytes_be(input);
    if input.len() != key.size() || number >= *key.n() {
        return Err(BAD_DATA);
    }
    let plain = rsa::hazmat::rsa_decrypt_and_check(key, Some(&mut OsRng), &number);
    let plain = plain.map_err(|_| BAD_DATA)?.to_bytes_be();
    Ok([vec![0; input.len() - plain.len()], plain].concat())
}

/// The public key as the card tells it.
fn public(stored: &Stored) -> Option<Vec<u8>> {
    Some(match stored.private()? {
        Private::Ec(key) => tlv(0x86, key.public_key().to_encoded_point(false).as_bytes()),
        Private::Rsa(key) => {
            let exponent = key.e().to_bytes_be();
            [tlv(0x81, &key.n().to_bytes_be()), tlv(0x82, &exponent)].concat()
        }
    })
}

fn object(data: &[u8]) -> Option<u32> {
    let id = find(data, 0x5c)?;
    (id.len() <= 4).then(|| id.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte)))
}

fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head = match value.len() {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head, value].concat()
}

/// The value of the first of these tags.
fn find(mut data: &[u8], tag: u8) -> Option<&[u8]> {
    loop {
        let (first, rest) = data.split_first()?;
        let (length, rest) = match rest {
            [0x82, high, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
            [0x81, low, rest @ ..] | [low, rest @ ..] => (usize::from(*low), rest),
            [] => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        if *first == tag {
            return Some(value);
        }
        data = rest;
    }
}
