//! A model of TLS as a stage: records that are cut anywhere, a handshake of three flights, tickets after it, and an end of its own,
//! but no cryptography. A tag in each record depends on its bytes and on its place in the stream, so a byte that is lost, doubled,
//! changed or moved is an error, as in TLS.

use bytes::{Buf, BufMut, BytesMut};
use mqtt_transport::{Error, ErrorKind, OUTGOING_LIMIT, Stage};

use super::Random;

/// The bytes of the handshake messages: of the client, of the server, and of the client again.
const FLIGHTS: [usize; 3] = [220, 900, 52];
/// The length of the ticket that the server sends after the handshake. It brings the client no plain bytes.
const TICKET: usize = 90;
/// The bytes of a record before and behind its content: kind and length, and the tag.
const HEAD: usize = 3;
const TAG: usize = 4;
/// How long the content of a record is at most, and the lengths that this model prefers.
const LONGEST: [usize; 4] = [1, 17, 300, 16 << 10];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Close = 21,
    Handshake = 22,
    Data = 23,
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct ModelTls {
    role: Role,
    random: Random,
    /// The first bytes of a record that is not whole.
    partial: BytesMut,
    outgoing: BytesMut,
    /// How many records were written and read.
    written: u32,
    read: u32,
    /// How many bytes of the peer's handshake messages have come.
    shaken: usize,
    is_closed: bool,
    is_ended: bool,
    failed: Option<Error>,
}

impl ModelTls {
    /// Makes a side. The seed decides where its records are cut.
    pub(super) fn new(role: Role, seed: u64) -> Self {
        let mut side = Self {
            role,
            random: Random::new(seed),
            partial: BytesMut::new(),
            outgoing: BytesMut::new(),
            written: 0,
            read: 0,
            shaken: 0,
            is_closed: false,
            is_ended: false,
            failed: None,
        };
        if role == Role::Client {
            side.write(Kind::Handshake, &[1; FLIGHTS[0]]);
        }
        side
    }

    /// The bytes of the peer's handshake messages after which this side may send.
    const fn expects(&self) -> usize {
        match self.role {
            Role::Client => FLIGHTS[1],
            Role::Server => FLIGHTS[0] + FLIGHTS[2],
        }
    }

    /// Writes bytes as records of random lengths.
    fn write(&mut self, kind: Kind, mut bytes: &[u8]) {
        let longest = LONGEST[self.random.below(LONGEST.len())];
        // A record may be empty.
        if kind == Kind::Data && self.random.once_in(8) {
            self.write_record(Kind::Data, &[]);
        }
        while !bytes.is_empty() {
            let len = (1 + self.random.below(longest)).min(bytes.len());
            self.write_record(kind, &bytes[..len]);
            bytes = &bytes[len..];
        }
    }

    fn write_record(&mut self, kind: Kind, content: &[u8]) {
        self.outgoing.put_u8(kind as u8);
        self.outgoing
            .put_u16(u16::try_from(content.len()).expect("a record is short"));
        self.outgoing.put_slice(content);
        self.outgoing
            .put_u32(tag(kind as u8, self.written, content));
        self.written += 1;
    }

    /// Returns the next whole record.
    fn next_record(&mut self) -> Result<Option<(Kind, BytesMut)>, Error> {
        let Some((head, _)) = self.partial.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let (number, len) = (head[0], usize::from(u16::from_be_bytes([head[1], head[2]])));
        let kind = [Kind::Close, Kind::Handshake, Kind::Data]
            .into_iter()
            .find(|kind| *kind as u8 == number)
            .ok_or_else(|| fault(format!("there is no record of kind {number}")))?;
        if self.partial.len() < HEAD + len + TAG {
            return Ok(None);
        }
        self.partial.advance(HEAD);
        let content = self.partial.split_to(len);
        if self.partial.get_u32() != tag(number, self.read, &content) {
            return Err(fault(format!("the tag of record {} is wrong", self.read)));
        }
        self.read += 1;
        Ok(Some((kind, content)))
    }

    /// Takes bytes of the peer's handshake messages, and answers when a flight is whole.
    fn shake_hands(&mut self, len: usize) {
        let before = self.shaken;
        self.shaken += len;
        let completes = |flight: usize| before < flight && before + len >= flight;
        match self.role {
            Role::Server if completes(FLIGHTS[0]) => {
                self.write(Kind::Handshake, &[2; FLIGHTS[1]]);
            }
            Role::Client if completes(FLIGHTS[1]) => {
                self.write(Kind::Handshake, &[20; FLIGHTS[2]]);
            }
            Role::Server if completes(self.expects()) => {
                self.write(Kind::Handshake, &[4; TICKET]);
            }
            _ => {}
        }
    }

    fn read(&mut self, plain: &mut BytesMut) -> Result<(), Error> {
        while !self.is_ended
            && let Some((kind, content)) = self.next_record()?
        {
            match kind {
                Kind::Close => self.is_ended = true,
                Kind::Handshake => self.shake_hands(content.len()),
                Kind::Data if self.is_open() => plain.put_slice(&content),
                Kind::Data => return Err(fault("data before the end of the handshake".to_owned())),
            }
        }
        Ok(())
    }
}

fn fault(message: String) -> Error {
    Error::new(ErrorKind::Tls, message)
}

/// Returns the tag of a record.
fn tag(kind: u8, number: u32, content: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    content.iter().fold(step(number ^ 0x811C_9DC5, &kind), step)
}

impl Stage for ModelTls {
    fn input(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.partial.extend_from_slice(wire);
        let result = self.read(plain);
        self.failed = result.as_ref().err().cloned();
        result
    }

    fn output(&mut self, plain: &[u8]) -> usize {
        let room = OUTGOING_LIMIT.saturating_sub(self.outgoing.len());
        let mut n = plain.len().min(room);
        if n == 0 || !self.is_open() || self.is_closed {
            return 0;
        }
        // A stage may take a part of the bytes.
        if self.random.once_in(3) {
            n = 1 + self.random.below(n);
        }
        self.write(Kind::Data, &plain[..n]);
        n
    }

    fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    fn sent(&mut self, n: usize) {
        self.outgoing.advance(n);
    }

    fn end_of_file(&mut self) -> Result<(), Error> {
        let kind = match (self.is_ended, self.is_open()) {
            (true, _) => return Ok(()),
            (false, true) => ErrorKind::Truncated,
            (false, false) => ErrorKind::HandshakeCut,
        };
        Err(Error::new(kind, "the stream ends without the end of TLS"))
    }

    fn close(&mut self) {
        if !self.is_closed {
            self.write_record(Kind::Close, &[]);
            self.is_closed = true;
        }
    }

    fn is_open(&self) -> bool {
        self.shaken >= self.expects()
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}
