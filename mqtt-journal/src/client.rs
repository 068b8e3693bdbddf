//! Encodes and decodes the records of a client's session machine. `docs/JOURNAL.md` has their byte tables.

use mqtt_proto::{PacketId, Version};

use crate::error::Fault;
use crate::fields::{Fields, Head};
use crate::format::Format;
use crate::record::{Kind, Parts, Record};

/// The longest note, in bytes.
pub const MAX_NOTE: usize = 64;

const SESSION: Kind = Kind::new(1);
pub(crate) const OUTGOING: Kind = Kind::new(2);
pub(crate) const RECEIVED: Kind = Kind::new(3);

/// A decoded record of a client's session machine.
///
/// The enum is exhaustive: a machine that ignored a new kind of record would lose a part of its state, so its code must not compile
/// until it reads them all. The same holds for [`Outgoing`].
///
/// ```
/// use mqtt_journal::{Entry, Received, Record, proto::PacketId};
/// let id = PacketId::new(7).unwrap();
/// let entry = Entry::Received(id, Some(Received { serial: 1, released: false, note: None }));
/// let mut bytes = [0; 32];
/// let len = entry.write(&mut bytes).unwrap();
/// let (record, _) = Record::read(&bytes[..len]).unwrap().unwrap();
/// assert_eq!(Entry::read(&record), Ok(Some(entry)));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry<'a> {
    /// The first record: version and machine.
    Format(Format),
    /// The session.
    Session(Session<'a>),
    /// A message to the server, by its number in the order of acceptance; `None` when it has ended.
    Outgoing(u64, Option<Outgoing<'a>>),
    /// A message from the server, by its packet identifier; `None` when the identifier is free.
    Received(PacketId, Option<Received<'a>>),
}

/// The session that the client has at the server, or has requested.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Session<'a> {
    /// The number of the session. The server does not know messages of another number.
    pub serial: u32,
    /// Whether the client has asked for a clean session and has not received CONNACK: each CONNECT must ask for it again.
    pub clean: bool,
    /// The client identifier.
    pub client_id: &'a str,
}

/// The state of a message to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outgoing<'a> {
    /// The message is not acknowledged; at QoS 2 PUBREC has not arrived.
    Message {
        /// The session in which it got its packet identifier.
        serial: u32,
        /// The packet identifier of the message; `None` if it has none yet or has QoS 0.
        id: Option<PacketId>,
        /// The version in which its packet is encoded.
        version: Version,
        /// The complete PUBLISH packet.
        packet: &'a [u8],
    },
    /// PUBREC has arrived. PUBREL is sent until PUBCOMP arrives, and the message is not sent again.
    Released {
        /// The session in which it got its packet identifier.
        serial: u32,
        /// The packet identifier of the message.
        id: PacketId,
    },
}

/// The state of a message from the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received<'a> {
    /// The session in which it arrived.
    pub serial: u32,
    /// Whether the identifier is free (at QoS 2, PUBREL has arrived) and the record exists only for its note.
    pub released: bool,
    /// The note that the program stored with its acknowledgement.
    pub note: Option<Note<'a>>,
}

/// Bytes that the program stores in the same record as an acknowledgement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Note<'a> {
    /// The number of the note. The note with the highest number is valid.
    pub order: u64,
    /// At most [`MAX_NOTE`] bytes.
    pub bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Decodes a record. Returns `None` if its kind is unknown and may be skipped.
    ///
    /// # Errors
    /// The kind is unknown and must not be skipped, or key or value do not fit it.
    pub fn read(record: &Record<'a>) -> Result<Option<Self>, Fault> {
        let mut key = Fields::key(record.key);
        let value = record.value.map(Fields::value);
        let entry = match (record.kind, value) {
            (Format::KIND, _) => Self::Format(Format::read(record)?),
            (SESSION, Some(value)) => Self::Session(Session::read(value)?),
            (SESSION, None) => return Err(Fault::Value),
            (OUTGOING, value) => Self::Outgoing(key.u64()?, value.map(Outgoing::read).transpose()?),
            (RECEIVED, value) => {
                let id = PacketId::new(key.u16()?).ok_or(Fault::Key)?;
                Self::Received(id, value.map(Received::read).transpose()?)
            }
            (kind, _) if kind.is_optional() => return Ok(None),
            (kind, _) => return Err(Fault::UnknownKind(kind.byte())),
        };
        key.end()?;
        Ok(Some(entry))
    }

    /// Returns the length of the record in bytes; `None` if the record cannot be encoded.
    #[must_use]
    pub fn encoded_len(&self) -> Option<usize> {
        self.parts(|parts| parts.encoded_len())
    }

    /// Writes the record to the front of `out` and returns its length. Returns `None` if there is no room, if a note has more
    /// than [`MAX_NOTE`] bytes, or if the record would be longer than [`MAX_RECORD`](crate::MAX_RECORD).
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        self.parts(|parts| parts.write(out))
    }

    /// Calls `then` with the parts of the record.
    fn parts<T>(&self, then: impl FnOnce(&Parts<'_>) -> Option<T>) -> Option<T> {
        let (kind, key, value) = match self {
            Self::Format(format) => {
                let head = Head::default().with(&format.value());
                (Format::KIND, Head::default(), Some((head, &[][..])))
            }
            Self::Session(session) => (SESSION, Head::default(), Some(session.value())),
            Self::Outgoing(order, message) => {
                let key = Head::default().with(&order.to_be_bytes());
                (OUTGOING, key, message.as_ref().map(Outgoing::value))
            }
            Self::Received(id, message) => {
                let value = match message {
                    Some(message) => Some(message.value()?),
                    None => None,
                };
                let key = Head::default().with(&id.get().to_be_bytes());
                (RECEIVED, key, value)
            }
        };
        then(&Parts {
            kind,
            key: key.bytes(),
            value: value.as_ref().map(|(head, rest)| [head.bytes(), *rest]),
        })
    }
}

impl<'a> Session<'a> {
    fn read(mut value: Fields<'a>) -> Result<Self, Fault> {
        Ok(Self {
            clean: value.flag()?,
            serial: value.u32()?,
            client_id: str::from_utf8(value.rest()).map_err(|_| Fault::Value)?,
        })
    }

    fn value(&self) -> (Head, &'a [u8]) {
        let head = Head::default()
            .with(&[u8::from(self.clean)])
            .with(&self.serial.to_be_bytes());
        (head, self.client_id.as_bytes())
    }
}

impl<'a> Outgoing<'a> {
    fn read(mut value: Fields<'a>) -> Result<Self, Fault> {
        let released = value.flag()?;
        let serial = value.u32()?;
        let id = PacketId::new(value.u16()?);
        if released {
            let id = id.ok_or(Fault::Value)?;
            value.end()?;
            return Ok(Self::Released { serial, id });
        }
        let version = match value.u8()? {
            3 => Version::V31,
            4 => Version::V311,
            5 => Version::V5,
            _ => return Err(Fault::Value),
        };
        Ok(Self::Message {
            serial,
            id,
            version,
            packet: value.rest(),
        })
    }

    fn value(&self) -> (Head, &'a [u8]) {
        match *self {
            Self::Message {
                serial,
                id,
                version,
                packet,
            } => {
                let head = Head::default()
                    .with(&[0])
                    .with(&serial.to_be_bytes())
                    .with(&id.map_or(0, PacketId::get).to_be_bytes())
                    .with(&[version.level()]);
                (head, packet)
            }
            Self::Released { serial, id } => {
                let head = Head::default()
                    .with(&[1])
                    .with(&serial.to_be_bytes())
                    .with(&id.get().to_be_bytes());
                (head, &[])
            }
        }
    }
}

impl<'a> Received<'a> {
    fn read(mut value: Fields<'a>) -> Result<Self, Fault> {
        let released = value.flag()?;
        let serial = value.u32()?;
        let rest = value.rest();
        let note = if rest.is_empty() {
            None
        } else {
            let mut rest = Fields::value(rest);
            let order = rest.u64()?;
            let bytes = rest.rest();
            if bytes.len() > MAX_NOTE {
                return Err(Fault::Value);
            }
            Some(Note { order, bytes })
        };
        Ok(Self {
            serial,
            released,
            note,
        })
    }

    fn value(&self) -> Option<(Head, &'a [u8])> {
        let head = Head::default()
            .with(&[u8::from(self.released)])
            .with(&self.serial.to_be_bytes());
        match self.note {
            None => Some((head, &[])),
            Some(note) if note.bytes.len() <= MAX_NOTE => {
                Some((head.with(&note.order.to_be_bytes()), note.bytes))
            }
            Some(_) => None,
        }
    }
}
