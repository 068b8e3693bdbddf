//! Puts defects into a packet on purpose, to test how a broker or a client reacts.

use clap::ValueEnum;

use crate::anatomy::Row;
use crate::failure::{Failure, fail};

/// A defect.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Defect {
    /// Packet type 0, which is reserved
    Type,
    /// Flags of the fixed header that this packet type must not have
    Flags,
    /// The remaining length is one less than what follows
    LengthShort,
    /// The remaining length is one more than what follows
    LengthLong,
    /// A remaining length that takes five bytes
    LengthEndless,
    /// The last byte is missing; the remaining length says so
    Cut,
    /// A byte 0xff follows the last field; the remaining length counts it
    Extra,
    /// The packet identifier is 0
    PacketIdZero,
    /// There is no packet identifier
    PacketIdMissing,
    /// The first string is longer than the packet
    StringLength,
    /// The first string has a null character
    StringNull,
    /// The first string is not valid UTF-8
    StringUtf8,
    /// The topic name is empty
    TopicEmpty,
    /// The topic name has a wildcard
    TopicWildcard,
    /// A topic filter has a wildcard where none is allowed
    FilterWildcard,
    /// SUBSCRIBE or UNSUBSCRIBE without a topic filter
    NoFilters,
    /// QoS 3
    Qos3,
    /// The protocol name is not MQTT
    ProtocolName,
    /// A protocol level that no version has
    ProtocolLevel,
    /// A reserved bit is set in CONNECT, CONNACK or the options of SUBSCRIBE
    ReservedBit,
    /// A reason code or return code that does not exist
    Code,
    /// A property that does not exist (5)
    PropertyUnknown,
    /// The first property twice (5)
    PropertyTwice,
    /// A property that belongs to a will only (5)
    PropertyMisplaced,
}

/// The fixed header and the body.
struct Parts<'a> {
    first: u8,
    body: Vec<u8>,
    rows: &'a [Row],
    /// The position of the body.
    header: usize,
}

impl Defect {
    /// Returns the packet with this defect. `rows` are the fields of `bytes`.
    pub(crate) fn put(self, bytes: &[u8], rows: &[Row]) -> Result<Vec<u8>, Failure> {
        let parts = Parts::of(bytes, rows);
        parts.and_then(|parts| self.make(parts)).ok_or_else(|| {
            let packet = rows.first().map_or("this packet", |row| &row.name);
            let name = self.to_possible_value();
            let name = name.as_ref().map_or("", |value| value.get_name());
            fail(format!("--bad {name}: {packet} has no place for it"))
        })
    }

    fn make(self, mut it: Parts<'_>) -> Option<Vec<u8>> {
        let len = it.body.len();
        match self {
            Self::Type => it.first &= 0x0F,
            Self::Flags => it.first = it.wrong_flags(),
            Self::LengthShort => return Some(it.with_length(len.checked_sub(1)?)),
            Self::LengthLong => return Some(it.with_length(len + 1)),
            Self::LengthEndless => {
                let mut bytes = vec![it.first, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
                bytes.append(&mut it.body);
                return Some(bytes);
            }
            Self::Cut => drop(it.body.pop()?),
            Self::Extra => {
                // A packet with a longer payload would be valid.
                if it.row("payload").is_some() || it.first >> 4 == 3 {
                    return None;
                }
                it.body.push(0xFF);
            }
            Self::PacketIdZero => it.replace("packet identifier", &[0, 0])?,
            Self::PacketIdMissing => it.replace("packet identifier", &[])?,
            Self::StringLength => it.edit_string(|text| text[..2].fill(0xFF))?,
            Self::StringNull => it.edit_string(|text| text[2] = 0)?,
            Self::StringUtf8 => it.edit_string(|text| text[2] = 0xFF)?,
            Self::TopicEmpty => it.replace(it.topic()?, &[0, 0])?,
            Self::TopicWildcard => it.replace(it.topic()?, b"\0\x03a/#")?,
            Self::FilterWildcard => it.replace("topic filter", b"\0\x02a#")?,
            Self::NoFilters => {
                let at = it.row("topic filter")?.at - it.header;
                it.body.truncate(at);
            }
            Self::Qos3 if it.first >> 4 == 3 => it.first |= 0b0110,
            Self::Qos3 => {
                let at = it.at("options").or_else(|| it.will_flags())?;
                it.body[at] |= if it.first >> 4 == 1 { 0b0001_1000 } else { 3 };
            }
            Self::ProtocolName => it.replace("protocol name", b"\0\x04MQTX")?,
            Self::ProtocolLevel => it.replace("protocol level", &[9])?,
            Self::ReservedBit => it.set_reserved_bit()?,
            Self::Code => {
                let at = it.at("reason code").or_else(|| it.at("return code"))?;
                it.body[at] = 0x7F;
            }
            Self::PropertyUnknown => it.add_property(&[0x7F, 0])?,
            Self::PropertyMisplaced => it.add_property(&[0x18, 0, 0, 0, 1])?,
            Self::PropertyTwice => it.repeat_property()?,
        }
        let len = it.body.len();
        Some(it.with_length(len))
    }
}

impl<'a> Parts<'a> {
    fn of(bytes: &[u8], rows: &'a [Row]) -> Option<Self> {
        let header = 1 + rows.get(1)?.bytes.len();
        Some(Self {
            first: *bytes.first()?,
            body: bytes.get(header..)?.to_vec(),
            rows,
            header,
        })
    }

    fn row(&self, name: &str) -> Option<&'a Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Returns the position of a field in the body.
    fn at(&self, name: &str) -> Option<usize> {
        self.row(name).map(|row| row.at - self.header)
    }

    fn topic(&self) -> Option<&'static str> {
        ["topic name", "will topic"]
            .into_iter()
            .find(|name| self.row(name).is_some())
    }

    /// Returns the position of the flags of CONNECT, if there is a will.
    fn will_flags(&self) -> Option<usize> {
        self.row("will topic")?;
        self.at("connect flags")
    }

    const fn wrong_flags(&self) -> u8 {
        match self.first >> 4 {
            // PUBLISH: QoS 3. PUBREL, SUBSCRIBE and UNSUBSCRIBE must have 0b0010.
            3 => self.first | 0b0110,
            6 | 8 | 10 => self.first & 0xF0,
            _ => self.first | 1,
        }
    }

    fn replace(&mut self, name: &str, with: &[u8]) -> Option<()> {
        let row = self.row(name)?;
        let at = row.at - self.header;
        self.body
            .splice(at..at + row.bytes.len(), with.iter().copied());
        Some(())
    }

    /// Changes the first string that is not empty and not the protocol name, with its length.
    fn edit_string(&mut self, edit: impl FnOnce(&mut [u8])) -> Option<()> {
        const STRINGS: [&str; 5] = [
            "client identifier",
            "topic name",
            "topic filter",
            "user name",
            "reason string",
        ];
        let row = self
            .rows
            .iter()
            .find(|row| STRINGS.contains(&row.name.as_str()) && row.bytes.len() > 2)?;
        // A property has its identifier before the length.
        let from = row.at - self.header + usize::from(row.name == "reason string");
        edit(
            self.body
                .get_mut(from..row.at - self.header + row.bytes.len())?,
        );
        Some(())
    }

    fn set_reserved_bit(&mut self) -> Option<()> {
        let flags = [
            ("connect flags", 1),
            ("acknowledge flags", 0x80),
            ("options", 0x80),
        ];
        let mut found = flags
            .iter()
            .filter_map(|(name, bit)| Some((self.at(name)?, *bit)));
        let (at, bit) = found.next()?;
        self.body[at] |= bit;
        Some(())
    }

    /// Adds the first property of the first block again, unless it may be there twice.
    fn repeat_property(&mut self) -> Option<()> {
        let length = self
            .rows
            .iter()
            .position(|row| row.name == "property length")?;
        let first = self.rows.get(length + 1)?;
        if self.rows[length].value == 0 || first.name == "user property" {
            return None;
        }
        self.add_property(&first.bytes)
    }

    /// Adds a property at the end of the first block.
    fn add_property(&mut self, property: &[u8]) -> Option<()> {
        let row = self.row("property length")?;
        let len = usize::try_from(row.value.as_u64()?).ok()?;
        let at = row.at - self.header;
        let end = at + row.bytes.len() + len;
        self.body.splice(end..end, property.iter().copied());
        let length = varint(len + property.len());
        self.body.splice(at..at + row.bytes.len(), length);
        Some(())
    }

    fn with_length(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![self.first];
        bytes.extend(varint(len));
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A variable byte integer.
pub(crate) fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7F) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
