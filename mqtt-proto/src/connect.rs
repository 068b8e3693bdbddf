//! CONNECT: section 3.1.
//!
//! | bytes | what |
//! | --- | --- |
//! | string | protocol name: `MQTT`, or `MQIsdp` in 3.1 |
//! | 1 | protocol level: 3, 4 or 5 |
//! | 1 | flags: user name, password, will retain, will QoS (2), will, clean session, reserved |
//! | 2 | keep-alive in seconds |
//! | block | properties (5) |
//! | fields | client identifier; will properties (5), will topic, will payload; user name; password, each if flagged |

use crate::error::{EncodeError, Field, Rule};
use crate::header::PacketType;
use crate::id::QoS;
use crate::properties::Properties;
use crate::property::Place;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
use crate::topic::{self, TopicName};
use crate::version::Version;

/// A client asks for a connection. The one packet that says its version itself.
///
/// ```
/// use mqtt_proto::{Connect, Decoded, Encode, MAX_PACKET, Packet, Version};
/// let connect = Connect { keep_alive: 60, ..Connect::new(Version::V311, "pump-7") };
/// let mut buffer = [0; 64];
/// let len = connect.encode(Version::V311, &mut buffer).unwrap();
/// let decoded = Packet::decode(&buffer[..len], Version::V311, MAX_PACKET).unwrap();
/// assert_eq!(decoded, Decoded::Packet { packet: Packet::Connect(connect), consumed: len });
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connect<'a> {
    /// The version asked for. It decides how this packet is written, whatever the argument of `encode`.
    pub version: Version,
    /// Clean session (3.1.1) or clean start (5): forget what was before.
    pub clean_start: bool,
    /// Keep-alive in seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Client identifier; empty asks the server for one.
    pub client_id: &'a str,
    /// What the server publishes if the connection ends without DISCONNECT.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password; before MQTT 5 only with a user name.
    pub password: Option<&'a [u8]>,
    /// Properties (5).
    pub properties: Properties<'a>,
}

/// The message that a server publishes for a client that is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Will<'a> {
    /// Its topic.
    pub topic: TopicName<'a>,
    /// Its payload, at most 65,535 bytes.
    pub payload: &'a [u8],
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Will properties (5).
    pub properties: Properties<'a>,
}

impl<'a> Will<'a> {
    /// A will at QoS 0, not retained.
    #[must_use]
    pub const fn new(topic: TopicName<'a>, payload: &'a [u8]) -> Self {
        Self {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::EMPTY,
        }
    }
}

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

impl<'a> Connect<'a> {
    /// A clean start with a keep-alive of 60 seconds and nothing else.
    #[must_use]
    pub const fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive: 60,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: Properties::EMPTY,
        }
    }

    /// Whether it has no client identifier and needs one: 3.1 always does, 3.1.1 does without a clean session
    /// (3.1.1 \[MQTT-3.1.3-7\] and \[MQTT-3.1.3-8\]), 5 never. A server refuses it with 0x02, a client does not send it.
    ///
    /// ```
    /// use mqtt_proto::{Connect, Version};
    /// let connect = Connect::new(Version::V311, "");
    /// assert!(!connect.lacks_client_id());
    /// assert!(Connect { clean_start: false, ..connect }.lacks_client_id());
    /// ```
    #[must_use]
    pub const fn lacks_client_id(&self) -> bool {
        let may_be_empty = match self.version {
            Version::V31 => false,
            Version::V311 => self.clean_start,
            Version::V5 => true,
        };
        self.client_id.is_empty() && !may_be_empty
    }

    pub(crate) fn read(body: &mut Reader<'a, '_>) -> Read<Self> {
        let start = body.left();
        let name = body.binary()?;
        let level_at = body.left();
        let level = body.u8()?;
        let version = match (name, level) {
            (b"MQTT", 4) => Version::V311,
            (b"MQTT", 5) if Version::V5.is_v5() => Version::V5,
            (b"MQIsdp", 3) => Version::V31,
            // 3.1.1 [MQTT-3.1.2-2], 5 [MQTT-3.1.2-2]
            (b"MQTT" | b"MQIsdp", found) => {
                return Err(body.fault_at(level_at, Rule::ProtocolLevel { found }));
            }
            // 3.1.1 [MQTT-3.1.2-1], 5 [MQTT-3.1.2-1]
            _ => return Err(body.fault_at(start, Rule::ProtocolName)),
        };
        let flags_at = body.left();
        let flags = body.u8()?;
        check_flags(flags, version).map_err(|rule| body.fault_at(flags_at, rule))?;
        let keep_alive = body.u16()?;
        let properties = read_properties(body, version, Place::packet(PacketType::Connect))?;
        let client_id = body.text()?;
        let will = if flags & WILL == 0 {
            None
        } else {
            Some(Will::read(body, flags, version)?)
        };
        let user_name = if flags & USER_NAME == 0 {
            None
        } else {
            Some(body.text()?)
        };
        let password = if flags & PASSWORD == 0 {
            None
        } else {
            Some(body.binary()?)
        };
        let clean_start = flags & CLEAN_START != 0;
        Ok(Self {
            version,
            clean_start,
            keep_alive,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), Rule> {
    // 3.1.1 [MQTT-3.1.2-3], 5 [MQTT-3.1.2-3]
    if flags & RESERVED != 0 {
        return Err(Rule::ReservedBits { found: flags });
    }
    // 3.1.1 [MQTT-3.1.2-14], 5 [MQTT-3.1.2-12]
    if flags & WILL_QOS == WILL_QOS {
        return Err(Rule::QoS3);
    }
    // 3.1.1 [MQTT-3.1.2-13] and [MQTT-3.1.2-15], 5 [MQTT-3.1.2-11] and [MQTT-3.1.2-13]
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(Rule::WillFlagsWithoutWill);
    }
    // 3.1.1 [MQTT-3.1.2-22]
    if !version.is_v5() && flags & (USER_NAME | PASSWORD) == PASSWORD {
        return Err(Rule::PasswordWithoutUserName);
    }
    Ok(())
}

impl<'a> Will<'a> {
    fn read(body: &mut Reader<'a, '_>, flags: u8, version: Version) -> Read<Self> {
        let properties = read_properties(body, version, Place::WILL)?;
        let topic = topic::read_name(body)?;
        let payload = body.binary()?;
        let qos = QoS::new((flags & WILL_QOS) >> 3).unwrap_or_default();
        Ok(Self {
            topic,
            payload,
            qos,
            retain: flags & WILL_RETAIN != 0,
            properties,
        })
    }

    const fn flags(&self) -> u8 {
        WILL | (self.qos.get() << 3) | if self.retain { WILL_RETAIN } else { 0 }
    }
}

/// The properties, which only MQTT 5 has.
#[inline(always)]
pub(crate) fn read_properties<'a>(
    body: &mut Reader<'a, '_>,
    version: Version,
    place: Place,
) -> Read<Properties<'a>> {
    if version.is_v5() {
        Properties::read(body, place).map(|(properties, _)| properties)
    } else {
        Ok(Properties::EMPTY)
    }
}

/// The properties, or a refusal where the version has none.
#[inline]
pub(crate) fn write_properties<S: Sink>(
    properties: &Properties<'_>,
    version: Version,
    place: Place,
    out: &mut S,
) {
    if version.is_v5() {
        properties.write(place, None, out);
    } else {
        out.refuse_if(
            !properties.is_empty(),
            EncodeError::NeedsV5(Field::Properties),
        );
    }
}

impl Body for Connect<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Connect.first_byte()
    }

    fn write<S: Sink>(&self, _: Version, out: &mut S) {
        let version = self.version;
        out.binary(Field::ClientId, version.protocol_name().as_bytes());
        out.u8(version.level());
        let mut flags = self.will.as_ref().map_or(0, Will::flags);
        for (set, bit) in [
            (self.clean_start, CLEAN_START),
            (self.user_name.is_some(), USER_NAME),
            (self.password.is_some(), PASSWORD),
        ] {
            flags |= if set { bit } else { 0 };
        }
        out.refuse_if(
            check_flags(flags, version).is_err(),
            EncodeError::PasswordWithoutUserName,
        );
        out.u8(flags);
        out.u16(self.keep_alive);
        write_properties(
            &self.properties,
            version,
            Place::packet(PacketType::Connect),
            out,
        );
        out.text(Field::ClientId, self.client_id);
        if let Some(will) = &self.will {
            write_properties(&will.properties, version, Place::WILL, out);
            out.refuse_if(will.topic.is_none(), EncodeError::NoTopic);
            out.binary(Field::TopicName, will.topic.as_bytes());
            out.binary(Field::WillPayload, will.payload);
        }
        if let Some(user_name) = self.user_name {
            out.text(Field::UserName, user_name);
        }
        if let Some(password) = self.password {
            out.binary(Field::Password, password);
        }
    }
}
