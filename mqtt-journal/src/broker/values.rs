//! Holds the values of the broker's records.

use mqtt_proto::num::to_u16;
use mqtt_proto::{QoS, Version};

use super::NEVER;
use crate::error::Fault;
use crate::fields::Fields;

/// A session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Session<'a> {
    /// The version of the last connection of its client.
    pub version: Version,
    /// How long the session outlives its connection, in seconds; `u32::MAX`: for ever.
    pub expiry: u32,
    /// The times that count while its client is not connected; `None` while the client is connected.
    pub away: Option<Away>,
    /// The client identifier.
    pub client_id: &'a str,
    /// The user name of its last CONNECT.
    pub user_name: Option<&'a str>,
    /// The will of the session, if it has one.
    pub will: Option<Will<'a>>,
}

/// The times that count while the client of a session is not connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Away {
    /// When the session ends.
    pub ends: u64,
    /// When its will is published.
    pub will: u64,
}

const NOT_AWAY: Away = Away {
    ends: NEVER,
    will: NEVER,
};

/// A will.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Will<'a> {
    /// After how many seconds without a connection it is published.
    pub delay: u32,
    /// The quality of service of the will.
    pub qos: QoS,
    /// The PUBLISH packet of the will in MQTT 5, encoded with QoS 0.
    pub packet: &'a [u8],
}

/// A will that is being published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DueWill<'a> {
    /// The quality of service of the will.
    pub qos: QoS,
    /// The PUBLISH packet of the will in MQTT 5, encoded with QoS 0.
    pub packet: &'a [u8],
}

/// The options of a subscription.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription {
    /// The highest quality of service of its messages.
    pub qos: QoS,
    /// Whether messages of the same client are left out.
    pub no_local: bool,
    /// Whether messages keep the RETAIN flag of their PUBLISH.
    pub retain_as_published: bool,
    /// The subscription identifier.
    pub identifier: Option<u32>,
}

/// A retained message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retained<'a> {
    /// When it expires.
    pub expires: u64,
    /// The quality of service of its PUBLISH.
    pub qos: QoS,
    /// The client identifier of its publisher; empty if the broker's host published it.
    pub publisher: &'a str,
    /// The user name of its publisher.
    pub user_name: Option<&'a str>,
    /// The version of its publisher; `None` if the record is of a release that did not tell it, and the user name is not known then.
    pub version: Option<Version>,
    /// The PUBLISH packet of the message in MQTT 5, encoded with QoS 0.
    pub packet: &'a [u8],
}

/// A message and the sessions that get it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message<'a> {
    /// When it expires.
    pub expires: u64,
    /// The quality of service of its PUBLISH.
    pub qos: QoS,
    /// The sessions that get it.
    pub targets: Targets<'a>,
    /// The PUBLISH packet of the message in MQTT 5, encoded with QoS 0.
    pub packet: &'a [u8],
}

/// The targets of a message, as encoded by [`Target::write`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Targets<'a> {
    count: u32,
    bytes: &'a [u8],
}

/// A session that gets a message, and the delivery of the message to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target<'a> {
    /// The number of the session.
    pub session: u64,
    /// How it is delivered.
    pub delivery: Delivery<'a>,
}

/// How a message is delivered to one session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delivery<'a> {
    /// The quality of service.
    pub qos: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// The subscription identifiers.
    pub identifiers: Identifiers<'a>,
    /// The filter of the shared subscription for which the session was chosen.
    pub share: Option<&'a str>,
    /// The number of its sent packet; the lower half is the packet identifier. `None` before it is sent.
    pub sent: Option<u32>,
}

/// Subscription identifiers. The enum is exhaustive: a record has them in one form, and a caller in one.
#[derive(Clone, Copy, Debug)]
pub enum Identifiers<'a> {
    /// Numbers to be encoded.
    Numbers(&'a [u32]),
    /// Numbers as encoded in a record.
    Bytes(&'a [u8]),
}

/// The delivery state of a message for one session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flow<'a> {
    /// The session is a target in addition to those in the record of the message.
    Target(Delivery<'a>),
    /// The message was sent with this number.
    Sent(u32),
    /// PUBREC has arrived: PUBREL is sent until PUBCOMP arrives, and the message is not sent again.
    Released(u32),
    /// The session has received the message, or the message was dropped.
    Done,
}

impl<'a> Session<'a> {
    pub(super) fn read(mut value: Fields<'a>) -> Result<Self, Fault> {
        let version = version(value.u8()?)?;
        let expiry = value.u32()?;
        let is_away = value.flag()?;
        let away = Away {
            ends: value.u64()?,
            will: value.u64()?,
        };
        if !is_away && away != NOT_AWAY {
            return Err(Fault::Value);
        }
        let client_id = text(value.binary()?, Fault::Value)?;
        let user_name = if value.flag()? {
            Some(text(value.binary()?, Fault::Value)?)
        } else {
            None
        };
        let will = if value.flag()? {
            Some(Will {
                delay: value.u32()?,
                qos: qos(value.u8()?)?,
                packet: value.rest(),
            })
        } else {
            value.end()?;
            None
        };
        Ok(Self {
            version,
            expiry,
            away: is_away.then_some(away),
            client_id,
            user_name,
            will,
        })
    }

    pub(super) fn put(&self, put: &mut impl FnMut(&[u8])) {
        put(&[self.version.level()]);
        put(&self.expiry.to_be_bytes());
        put(&[u8::from(self.away.is_some())]);
        let away = self.away.unwrap_or(NOT_AWAY);
        put(&away.ends.to_be_bytes());
        put(&away.will.to_be_bytes());
        put_binary(self.client_id.as_bytes(), put);
        put(&[u8::from(self.user_name.is_some())]);
        if let Some(user_name) = self.user_name {
            put_binary(user_name.as_bytes(), put);
        }
        put(&[u8::from(self.will.is_some())]);
        if let Some(will) = &self.will {
            put(&will.delay.to_be_bytes());
            put(&[will.qos.get()]);
            put(will.packet);
        }
    }
}

impl<'a> DueWill<'a> {
    pub(super) fn read(mut value: Fields<'a>) -> Result<Self, Fault> {
        Ok(Self {
            qos: qos(value.u8()?)?,
            packet: value.rest(),
        })
    }
}

const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;

impl Subscription {
    pub(super) fn read(mut value: Fields<'_>) -> Result<Self, Fault> {
        let options = value.u8()?;
        let identifier = value.u32()?;
        value.end()?;
        if options & !(3 | NO_LOCAL | RETAIN_AS_PUBLISHED) != 0 {
            return Err(Fault::Value);
        }
        Ok(Self {
            qos: qos(options & 3)?,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
            identifier: (identifier != 0).then_some(identifier),
        })
    }

    pub(super) fn put(self, put: &mut impl FnMut(&[u8])) {
        let mut options = self.qos.get();
        if self.no_local {
            options |= NO_LOCAL;
        }
        if self.retain_as_published {
            options |= RETAIN_AS_PUBLISHED;
        }
        put(&[options]);
        put(&self.identifier.unwrap_or(0).to_be_bytes());
    }
}

impl<'a> Retained<'a> {
    pub(super) fn read(mut value: Fields<'a>) -> Result<Self, Fault> {
        let expires = value.u64()?;
        let flags = value.u8()?;
        let publisher = text(value.binary()?, Fault::Value)?;
        let has_user_name = flags & HAS_USER_NAME != 0;
        let user_name = if has_user_name {
            Some(text(value.binary()?, Fault::Value)?)
        } else {
            None
        };
        let version = match flags >> VERSION_SHIFT {
            0 => None,
            level => Some(version(level)?),
        };
        Ok(Self {
            expires,
            qos: qos(flags & !(HAS_USER_NAME | VERSION_BITS))?,
            publisher,
            user_name,
            version,
            packet: value.rest(),
        })
    }

    pub(super) fn put(&self, put: &mut impl FnMut(&[u8])) {
        put(&self.expires.to_be_bytes());
        let level = self.version.map_or(0, Version::level) << VERSION_SHIFT;
        let has_user_name = if self.user_name.is_some() {
            HAS_USER_NAME
        } else {
            0
        };
        put(&[self.qos.get() | has_user_name | level]);
        put_binary(self.publisher.as_bytes(), put);
        if let Some(name) = self.user_name {
            put_binary(name.as_bytes(), put);
        }
        put(self.packet);
    }
}

impl<'a> Message<'a> {
    pub(super) fn read(mut value: Fields<'a>) -> Result<Self, Fault> {
        let expires = value.u64()?;
        let qos = qos(value.u8()?)?;
        let count = value.u32()?;
        let start = value.left();
        for _ in 0..count {
            Target::read(&mut value)?;
        }
        let len = start.len().saturating_sub(value.left().len());
        Ok(Self {
            expires,
            qos,
            targets: Targets {
                count,
                bytes: start.get(..len).unwrap_or_default(),
            },
            packet: value.rest(),
        })
    }

    pub(super) fn put(&self, put: &mut impl FnMut(&[u8])) {
        put(&self.expires.to_be_bytes());
        put(&[self.qos.get()]);
        put(&self.targets.count.to_be_bytes());
        put(self.targets.bytes);
        put(self.packet);
    }
}

impl<'a> Targets<'a> {
    /// Makes a list of `count` targets, which [`Target::write`] wrote one after the other.
    #[must_use]
    pub const fn new(count: u32, bytes: &'a [u8]) -> Self {
        Self { count, bytes }
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    pub(super) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the targets in their order.
    pub fn iter(self) -> impl Iterator<Item = Target<'a>> {
        let mut fields = Fields::value(self.bytes);
        (0..self.count).map_while(move |_| Target::read(&mut fields).ok())
    }
}

impl<'a> Target<'a> {
    pub(super) fn read(value: &mut Fields<'a>) -> Result<Self, Fault> {
        Ok(Self {
            session: value.u64()?,
            delivery: Delivery::read(value)?,
        })
    }

    /// Passes the bytes of the target to `put`, piece by piece.
    pub fn write(&self, put: &mut impl FnMut(&[u8])) {
        if let Delivery {
            identifiers: Identifiers::Numbers([]),
            share: None,
            sent: Some(sent),
            ..
        } = self.delivery
        {
            // Most targets have this form: one piece takes less time than five.
            let [a, b, c, d, e, f, g, h] = self.session.to_be_bytes();
            let [i, j, k, l] = sent.to_be_bytes();
            let flags = self.delivery.flags();
            return put(&[a, b, c, d, e, f, g, h, flags, 0, 0, i, j, k, l]);
        }
        put(&self.session.to_be_bytes());
        self.delivery.put(put);
    }
}

const RETAIN: u8 = 4;
const SHARED: u8 = 8;
const SENT: u8 = 16;

impl<'a> Delivery<'a> {
    pub(super) fn read(value: &mut Fields<'a>) -> Result<Self, Fault> {
        let flags = value.u8()?;
        if flags & !(3 | RETAIN | SHARED | SENT) != 0 {
            return Err(Fault::Value);
        }
        let count = usize::from(value.u16()?);
        let identifiers = value.bytes(count.saturating_mul(size_of::<u32>()))?;
        let share = if flags & SHARED == 0 {
            None
        } else {
            Some(text(value.binary()?, Fault::Value)?)
        };
        let sent = if flags & SENT == 0 {
            None
        } else {
            Some(value.u32()?)
        };
        Ok(Self {
            qos: qos(flags & 3)?,
            retain: flags & RETAIN != 0,
            identifiers: Identifiers::Bytes(identifiers),
            share,
            sent,
        })
    }

    const fn flags(&self) -> u8 {
        let mut flags = self.qos.get();
        flags |= if self.retain { RETAIN } else { 0 };
        flags |= if self.share.is_some() { SHARED } else { 0 };
        flags | if self.sent.is_some() { SENT } else { 0 }
    }

    pub(super) fn put(&self, put: &mut impl FnMut(&[u8])) {
        put(&[self.flags()]);
        // A client cannot have more subscriptions that match one topic.
        let most = usize::from(u16::MAX);
        let count = self.identifiers.iter().take(most).count();
        put(&to_u16(count).to_be_bytes());
        for identifier in self.identifiers.iter().take(most) {
            put(&identifier.to_be_bytes());
        }
        if let Some(share) = self.share {
            put_binary(share.as_bytes(), put);
        }
        if let Some(number) = self.sent {
            put(&number.to_be_bytes());
        }
    }
}

impl Identifiers<'_> {
    /// Returns the identifiers in their order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let (numbers, bytes) = match self {
            Self::Numbers(numbers) => (*numbers, &[][..]),
            Self::Bytes(bytes) => (&[][..], *bytes),
        };
        let read = bytes
            .chunks_exact(4)
            .filter_map(|chunk| Some(u32::from_be_bytes(chunk.try_into().ok()?)));
        numbers.iter().copied().chain(read)
    }
}

impl PartialEq for Identifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> Flow<'a> {
    pub(super) fn read(mut value: Fields<'a>) -> Result<Self, Fault> {
        let flow = match value.u8()? {
            0 => Self::Target(Delivery::read(&mut value)?),
            1 => Self::Sent(value.u32()?),
            2 => Self::Released(value.u32()?),
            3 => Self::Done,
            _ => return Err(Fault::Value),
        };
        value.end()?;
        Ok(flow)
    }

    pub(super) fn put(&self, put: &mut impl FnMut(&[u8])) {
        match self {
            Self::Target(delivery) => {
                put(&[0]);
                delivery.put(put);
            }
            Self::Sent(number) => {
                put(&[1]);
                put(&number.to_be_bytes());
            }
            Self::Released(number) => {
                put(&[2]);
                put(&number.to_be_bytes());
            }
            Self::Done => put(&[3]),
        }
    }
}

fn put_binary(bytes: &[u8], put: &mut impl FnMut(&[u8])) {
    // A text of MQTT is not longer. A longer one is written as empty, and the reader rejects its record.
    let len = u16::try_from(bytes.len()).unwrap_or(0);
    put(&len.to_be_bytes());
    put(bytes.get(..usize::from(len)).unwrap_or_default());
}

pub(super) fn whole_u64(mut value: Fields<'_>) -> Result<u64, Fault> {
    let number = value.u64()?;
    value.end()?;
    Ok(number)
}

pub(super) fn text(bytes: &[u8], fault: Fault) -> Result<&str, Fault> {
    str::from_utf8(bytes).map_err(|_| fault)
}

/// Bits beside the quality of service of a retained message.
const HAS_USER_NAME: u8 = 0x08;
const VERSION_BITS: u8 = 0xF0;
const VERSION_SHIFT: u8 = 4;

fn qos(byte: u8) -> Result<QoS, Fault> {
    QoS::new(byte).ok_or(Fault::Value)
}

const fn version(byte: u8) -> Result<Version, Fault> {
    match byte {
        3 => Ok(Version::V31),
        4 => Ok(Version::V311),
        5 => Ok(Version::V5),
        _ => Err(Fault::Value),
    }
}
