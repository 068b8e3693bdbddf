//! Encodes and decodes the records of a broker. `docs/JOURNAL.md` has their byte tables.

use mqtt_proto::{PacketId, VarInt};

use crate::error::Fault;
use crate::fields::Fields;
use crate::format::Format;
use crate::record::{Kind, MAX_RECORD, Record};

mod short;
mod values;

use values::{text, whole_u64};

pub use values::{
    Away, Delivery, DueWill, Flow, Identifiers, Message, Retained, Session, Subscription, Target,
    Targets, Will,
};

const SESSION: Kind = Kind::new(16);
const SUBSCRIPTION: Kind = Kind::new(17);
const WISH: Kind = Kind::new(18);
pub(crate) const RECEIVED: Kind = Kind::new(19);
const RETAINED: Kind = Kind::new(20);
pub(crate) const MESSAGE: Kind = Kind::new(21);
pub(crate) const FLOW: Kind = Kind::new(22);
pub(crate) const DUE_WILL: Kind = Kind::new(23);

/// Stands for a time that is never reached.
pub const NEVER: u64 = u64::MAX;

/// A decoded record of a broker. Sessions and messages have numbers; a number is not used again while a record with it exists.
/// Times are milliseconds since the beginning of 1970, or [`NEVER`].
///
/// The enum is exhaustive: a broker that ignored a new kind of record would lose a part of its state, so its code must not compile
/// until it reads them all. The same holds for [`Flow`].
///
/// ```
/// use mqtt_journal::{Record, broker::{Entry, Flow}};
/// let entry = Entry::Flow { message: 7, session: 2, flow: Some(Flow::Sent(1)) };
/// let mut bytes = [0; 64];
/// let len = entry.write(&mut bytes).unwrap();
/// let (record, _) = Record::read(&bytes[..len]).unwrap().unwrap();
/// assert_eq!(Entry::read(&record), Ok(Some(entry)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are the key and the value")]
pub enum Entry<'a> {
    /// The first record: version and machine.
    Format(Format),
    /// A session; `None` when it has ended.
    Session(u64, Option<Session<'a>>),
    /// A subscription of a session; `None` when it has ended.
    Subscription {
        session: u64,
        filter: &'a str,
        options: Option<Subscription>,
    },
    /// The retained messages of this subscription are still to be sent to the session; `wanted` is false when they have been
    /// sent.
    Wish {
        session: u64,
        filter: &'a str,
        wanted: bool,
    },
    /// The identifier of a QoS 2 message from the client of a session, and the number of that message. A number other than 0 is
    /// valid only together with the record of the message. `None` when the identifier is free.
    Received {
        session: u64,
        id: PacketId,
        message: Option<u64>,
    },
    /// The retained message of a topic; `None` when there is none.
    Retained(&'a str, Option<Retained<'a>>),
    /// A message for sessions that outlive their connections; `None` when all of them have received it.
    Message(u64, Option<Message<'a>>),
    /// A will that is being published to many receivers; `None` when it is recorded as a message for its receivers.
    DueWill(u64, Option<DueWill<'a>>),
    /// The delivery state of a message for one session, if it differs from the record of the message.
    Flow {
        message: u64,
        session: u64,
        flow: Option<Flow<'a>>,
    },
}

impl<'a> Entry<'a> {
    /// Decodes a record. Returns `None` if its kind is unknown and may be skipped.
    ///
    /// # Errors
    /// The kind is unknown and must not be skipped, or the key or value is not valid for the kind.
    pub fn read(record: &Record<'a>) -> Result<Option<Self>, Fault> {
        let mut key = Fields::key(record.key);
        let value = record.value.map(Fields::value);
        let entry = match record.kind {
            Format::KIND => Self::Format(Format::read(record)?),
            SESSION => Self::Session(key.u64()?, value.map(Session::read).transpose()?),
            SUBSCRIPTION => Self::Subscription {
                session: key.u64()?,
                filter: text(key.rest(), Fault::Key)?,
                options: value.map(Subscription::read).transpose()?,
            },
            WISH => Self::Wish {
                session: key.u64()?,
                filter: text(key.rest(), Fault::Key)?,
                wanted: value.map(Fields::end).transpose()?.is_some(),
            },
            RECEIVED => Self::Received {
                session: key.u64()?,
                id: PacketId::new(key.u16()?).ok_or(Fault::Key)?,
                message: value.map(whole_u64).transpose()?,
            },
            RETAINED => Self::Retained(
                text(key.rest(), Fault::Key)?,
                value.map(Retained::read).transpose()?,
            ),
            MESSAGE => Self::Message(key.u64()?, value.map(Message::read).transpose()?),
            DUE_WILL => Self::DueWill(key.u64()?, value.map(DueWill::read).transpose()?),
            FLOW => Self::Flow {
                message: key.u64()?,
                session: key.u64()?,
                flow: value.map(Flow::read).transpose()?,
            },
            kind if kind.is_optional() => return Ok(None),
            kind => return Err(Fault::UnknownKind(kind.byte())),
        };
        key.end()?;
        Ok(Some(entry))
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Format(_) => Format::KIND,
            Self::Session(..) => SESSION,
            Self::Subscription { .. } => SUBSCRIPTION,
            Self::Wish { .. } => WISH,
            Self::Received { .. } => RECEIVED,
            Self::Retained(..) => RETAINED,
            Self::Message(..) => MESSAGE,
            Self::Flow { .. } => FLOW,
            Self::DueWill(..) => DUE_WILL,
        }
    }

    fn deletes(&self) -> bool {
        match self {
            Self::Format(_) => false,
            Self::Session(_, value) => value.is_none(),
            Self::Subscription { options, .. } => options.is_none(),
            Self::Wish { wanted, .. } => !wanted,
            Self::Received { message, .. } => message.is_none(),
            Self::Retained(_, value) => value.is_none(),
            Self::Message(_, value) => value.is_none(),
            Self::Flow { flow, .. } => flow.is_none(),
            Self::DueWill(_, value) => value.is_none(),
        }
    }

    fn put_key(&self, put: &mut impl FnMut(&[u8])) {
        match self {
            Self::Format(_) => {}
            Self::Session(number, _) | Self::Message(number, _) | Self::DueWill(number, _) => {
                put(&number.to_be_bytes());
            }
            Self::Subscription {
                session, filter, ..
            }
            | Self::Wish {
                session, filter, ..
            } => {
                put(&session.to_be_bytes());
                put(filter.as_bytes());
            }
            Self::Received { session, id, .. } => {
                put(&session.to_be_bytes());
                put(&id.get().to_be_bytes());
            }
            Self::Retained(topic, _) => put(topic.as_bytes()),
            Self::Flow {
                message, session, ..
            } => {
                put(&message.to_be_bytes());
                put(&session.to_be_bytes());
            }
        }
    }

    fn put_value(&self, put: &mut impl FnMut(&[u8])) {
        match self {
            Self::Format(format) => put(&format.value()),
            Self::Session(_, Some(session)) => session.put(put),
            Self::Subscription {
                options: Some(options),
                ..
            } => options.put(put),
            Self::Received {
                message: Some(message),
                ..
            } => put(&message.to_be_bytes()),
            Self::Retained(_, Some(retained)) => retained.put(put),
            Self::Message(_, Some(message)) => message.put(put),
            Self::Flow {
                flow: Some(flow), ..
            } => flow.put(put),
            Self::DueWill(_, Some(will)) => {
                put(&[will.qos.get()]);
                put(will.packet);
            }
            _ => {}
        }
    }

    /// Returns the length of the record in bytes; `None` if it would be longer than [`MAX_RECORD`].
    #[must_use]
    pub fn encoded_len(&self) -> Option<usize> {
        let (key_len, body) = self.lengths()?;
        whole(key_len, body)
    }

    /// Returns the length of the key, and the length of the record after its length field.
    fn lengths(&self) -> Option<(VarInt, VarInt)> {
        let count = |len: usize| VarInt::new(u32::try_from(len).ok()?);
        let (mut key, mut value) = (0_usize, 0_usize);
        self.put_key(&mut |bytes| key = key.saturating_add(bytes.len()));
        self.put_value(&mut |bytes| value = value.saturating_add(bytes.len()));
        let key_len = count(key)?;
        let body = key_len
            .encoded_len()
            .saturating_add(1)
            .saturating_add(key)
            .saturating_add(value);
        Some((key_len, count(body)?))
    }

    /// Writes the record to the front of `out` and returns its length. Returns `None` if there is no room, or if the record would
    /// be longer than [`MAX_RECORD`].
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let (mut end, mut fits) = (0_usize, true);
        self.put(&mut |bytes| {
            let start = end;
            end = end.saturating_add(bytes.len());
            match out.get_mut(start..end) {
                Some(room) => room.copy_from_slice(bytes),
                None => fits = false,
            }
        })?;
        fits.then_some(end)
    }

    /// Passes the bytes of the record to `put`, piece by piece, and returns their number. Returns `None`, and passes nothing, if the
    /// record would be longer than [`MAX_RECORD`].
    pub fn put(&self, put: &mut impl FnMut(&[u8])) -> Option<usize> {
        if let Self::Message(number, message) = self {
            return match message {
                Some(message) => put_message(*number, message, put),
                None => Some(put_end_of_message(*number, put)),
            };
        }
        if let Some(short) = self.short() {
            let record = short.record();
            put(record);
            return Some(record.len());
        }
        let (key_len, body) = self.lengths()?;
        let len = whole(key_len, body)?;
        let (body, body_bytes) = body.encode();
        put(body.get(..body_bytes)?);
        put(&[self.kind().first_byte(self.deletes())]);
        let (key_len, key_len_bytes) = key_len.encode();
        put(key_len.get(..key_len_bytes)?);
        self.put_key(put);
        self.put_value(put);
        Some(len)
    }
}

/// Passes the record of a message to `put` in three pieces, since a broker writes one for each message.
fn put_message(number: u64, message: &Message<'_>, put: &mut impl FnMut(&[u8])) -> Option<usize> {
    let (targets, packet) = (message.targets.bytes(), message.packet);
    let body = FRONT.checked_add(targets.len())?;
    let body = body.checked_add(packet.len())?;
    let len = VarInt::new(u32::try_from(body).ok()?)?;
    let whole = len.encoded_len().checked_add(body)?;
    if whole > MAX_RECORD {
        return None;
    }
    // The length ends where the other fields begin.
    let mut bytes = [0; 4 + FRONT];
    let (room, fields) = bytes.split_first_chunk_mut::<4>()?;
    let (len, len_bytes) = len.encode();
    let start = 4_usize.checked_sub(len_bytes)?;
    for (to, from) in room.get_mut(start..)?.iter_mut().zip(len) {
        *to = from;
    }
    let (kind, fields) = fields.split_first_chunk_mut()?;
    *kind = [MESSAGE.first_byte(false), 8];
    let (key, fields) = fields.split_first_chunk_mut()?;
    *key = number.to_be_bytes();
    let (expires, fields) = fields.split_first_chunk_mut()?;
    *expires = message.expires.to_be_bytes();
    let (qos, fields) = fields.split_first_mut()?;
    *qos = message.qos.get();
    *fields.first_chunk_mut()? = message.targets.count().to_be_bytes();
    put(bytes.get(start..)?);
    put(targets);
    put(packet);
    Some(whole)
}

/// The bytes of a message's record between its length and its targets: kind, length of the key, number, expiry, QoS, and how many
/// targets there are.
const FRONT: usize = 2 + 8 + 8 + 1 + 4;

/// Passes the record of a message's end to `put`. Returns its length.
fn put_end_of_message(number: u64, put: &mut impl FnMut(&[u8])) -> usize {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    let first = MESSAGE.first_byte(true);
    let record = [10, first, 8, a, b, c, d, e, f, g, h];
    put(&record);
    record.len()
}

/// Returns the length of a record; `None` if it would be longer than [`MAX_RECORD`].
fn whole(key_len: VarInt, body: VarInt) -> Option<usize> {
    let len = body
        .encoded_len()
        .checked_add(usize::try_from(body.get()).ok()?)?;
    (len <= MAX_RECORD && key_len.get() <= body.get()).then_some(len)
}
