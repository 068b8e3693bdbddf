//! Encodes and decodes the records that an agent adds to those of its session machine. `docs/JOURNAL.md` has their byte tables.

use crate::error::Fault;
use crate::fields::{Fields, Head};
use crate::record::{Kind, Record};

const SUBSCRIPTION: Kind = Kind::new(4);
/// Programs without this kind skip it.
const OWNER: Kind = Kind::new(5).optional();

/// A record of an agent: one filter to which its program subscribed.
///
/// ```
/// use mqtt_journal::{Asked, Record, Subscribed};
/// let subscribed = Subscribed { filter: "pumps/#", state: Some(Asked { standing: 2, options: 1, identifier: 0 }) };
/// let mut bytes = [0; 32];
/// let len = subscribed.write(&mut bytes).unwrap();
/// let (record, _) = Record::read(&bytes[..len]).unwrap().unwrap();
/// assert_eq!(Subscribed::read(&record), Ok(Some(subscribed)));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscribed<'a> {
    /// The topic filter.
    pub filter: &'a str,
    /// The state of the filter at the server; `None` when the server does not have the filter any more.
    pub state: Option<Asked>,
}

/// The subscription of an agent to one filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asked {
    /// 0: UNSUBSCRIBE is not answered. 1: SUBSCRIBE is not answered. 2: the server granted it.
    pub standing: u8,
    /// The options byte of SUBSCRIBE in MQTT 5.
    pub options: u8,
    /// The subscription identifier, 0 if there is none (5).
    pub identifier: u32,
}

impl<'a> Subscribed<'a> {
    /// Decodes a record. `None` if it is not of this kind.
    ///
    /// # Errors
    /// Key or value do not fit the kind. Whether the filter is a valid topic filter is not checked.
    pub fn read(record: &Record<'a>) -> Result<Option<Self>, Fault> {
        if record.kind != SUBSCRIPTION {
            return Ok(None);
        }
        let filter = str::from_utf8(record.key).map_err(|_| Fault::Key)?;
        let state = record.value.map(Asked::read).transpose()?;
        Ok(Some(Self { filter, state }))
    }

    /// Returns the length of the record in bytes. `None` if it cannot be written.
    #[must_use]
    pub fn encoded_len(&self) -> Option<usize> {
        self.record(&self.value()).encoded_len()
    }

    /// Writes the record to the front of `out` and returns its length. `None` if there is no room.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        self.record(&self.value()).write(out)
    }

    fn value(&self) -> Option<Head> {
        self.state.map(Asked::value)
    }

    fn record<'b>(&self, value: &'b Option<Head>) -> Record<'b>
    where
        'a: 'b,
    {
        Record {
            kind: SUBSCRIPTION,
            key: self.filter.as_bytes(),
            value: value.as_ref().map(Head::bytes),
        }
    }
}

/// A record of an agent: the client identifier to which the records belong before there is a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner<'a> {
    /// The client identifier.
    pub client_id: &'a str,
}

impl<'a> Owner<'a> {
    /// Decodes a record. `None` if it is not of this kind.
    ///
    /// # Errors
    /// Key or value do not fit the kind.
    pub fn read(record: &Record<'a>) -> Result<Option<Self>, Fault> {
        if record.kind != OWNER {
            return Ok(None);
        }
        Fields::key(record.key).end()?;
        let value = record.value.unwrap_or_default();
        let client_id = str::from_utf8(value).map_err(|_| Fault::Value)?;
        Ok(Some(Self { client_id }))
    }

    /// Returns the record.
    #[must_use]
    pub const fn record(&self) -> Record<'a> {
        Record {
            kind: OWNER,
            key: &[],
            value: Some(self.client_id.as_bytes()),
        }
    }
}

impl Asked {
    fn read(value: &[u8]) -> Result<Self, Fault> {
        let mut value = Fields::value(value);
        let asked = Self {
            standing: value.u8()?,
            options: value.u8()?,
            identifier: value.u32()?,
        };
        value.end()?;
        // QoS 3 and a third way of handling retained messages do not exist.
        let valid = asked.standing <= 2
            && asked.options & 3 < 3
            && asked.options >> 4 < 3
            && asked.identifier <= MAX_IDENTIFIER;
        if valid { Ok(asked) } else { Err(Fault::Value) }
    }

    fn value(self) -> Head {
        Head::default()
            .with(&[self.standing, self.options])
            .with(&self.identifier.to_be_bytes())
    }
}

/// The largest variable byte integer.
const MAX_IDENTIFIER: u32 = 268_435_455;
