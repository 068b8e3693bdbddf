//! CONNECT: section 3.1.
//!
//! | bytes | what |
//! | --- | --- |
//! | string | protocol name: `MQTT`, or `MQIsdp` in 3.1 |
//! | 1 | protocol level: 3, 4 or 5; 0x83 or 0x84 of a bridge |
//! | 1 | flags: user name, password, will retain, will QoS (2), will, clean session, reserved |
//! | 2 | keep-alive in seconds |
//! | block | properties (5) |
//! | fields | client identifier; will properties (5), will topic, will payload; user name; password, each if flagged |

use core::fmt;

use crate::encode::Body;
use crate::error::{Field, Unencodable};
use crate::id::QoS;
use crate::num::{checked_str, to_usize};
use crate::out::Out;
use crate::properties::Properties;
use crate::topic::TopicName;
use crate::version::Version;
use crate::wire::view::connect::*;
use crate::wire::view::{WILL_PROPERTIES, connect_fault};
use crate::wire::{Reader, View, kind, text_fits};

/// A client's request for a connection. This is the only packet that contains its version.
///
/// ```
/// use mqtt_proto::{Connect, Decoded, Encode, MAX_PACKET, Packet, Version};
/// let connect = Connect { keep_alive: 60, ..Connect::new(Version::V311, "pump-7") };
/// let mut buffer = [0; 64];
/// let len = connect.encode(Version::V311, &mut buffer).unwrap();
/// let decoded = Packet::decode(&buffer[..len], Version::V311, MAX_PACKET).unwrap();
/// assert_eq!(decoded, Decoded::Packet { packet: Packet::Connect(connect), consumed: len });
/// ```
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Connect<'a> {
    /// The version that the client asks for. The packet is encoded in this version; the argument of `encode` is ignored.
    pub version: Version,
    /// Clean session (3.1.1) or clean start (5): the server discards an earlier session of this client.
    pub clean_start: bool,
    /// The keep-alive in seconds, 0 to 65,535; 0 turns it off.
    pub keep_alive: u16,
    /// The client identifier. If it is empty, the client asks the server for one.
    pub client_id: &'a str,
    /// The message that the server publishes if the connection ends without DISCONNECT.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password. Before MQTT 5 it needs a user name (3.1.1 \[MQTT-3.1.2-22\]).
    pub password: Option<&'a [u8]>,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
    /// Whether the client is a bridge: another server, which gets no message back that it published itself, and RETAIN as it was
    /// published. Bit 7 of the protocol level tells it, an extension of Mosquitto to 3.1 and 3.1.1. MQTT 5 has options of a
    /// subscription for it, and this field is not encoded there.
    pub bridge: bool,
}

/// Shows whether there is a password, and never shows the password.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("password", &self.password.map(|_| ".."))
            .field("properties", &self.properties)
            .field("bridge", &self.bridge)
            .finish()
    }
}

/// The message that a server publishes if the connection of a client ends without DISCONNECT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Will<'a> {
    /// The topic.
    pub topic: TopicName<'a>,
    /// The payload, at most 65,535 bytes.
    pub payload: &'a [u8],
    /// The quality of service.
    pub qos: QoS,
    /// Whether the server retains the message.
    pub retain: bool,
    /// The will properties (MQTT 5).
    pub properties: Properties<'a>,
}

impl<'a> Will<'a> {
    /// Makes a will at QoS 0 that is not retained.
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

impl<'a> Connect<'a> {
    /// Makes a CONNECT with a clean start and a keep-alive of 60 seconds, without a will, credentials or properties.
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
            bridge: false,
        }
    }

    /// Returns whether the client identifier is empty and must not be. MQTT 3.1 always requires one, 3.1.1 requires one without
    /// a clean session (3.1.1 \[MQTT-3.1.3-7\] and \[MQTT-3.1.3-8\]), MQTT 5 never does. A server refuses such a CONNECT with
    /// the return code 0x02, and a client does not send it.
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

    /// Returns how many seconds the session is to outlive the connection; `u32::MAX` means for ever. Before MQTT 5, a clean
    /// session ends with its connection, and any other one does not expire (3.1.1 \[MQTT-3.1.2-4\] and \[MQTT-3.1.2-6\]).
    ///
    /// ```
    /// use mqtt_proto::{Connect, Version};
    /// let connect = Connect::new(Version::V311, "pump");
    /// assert_eq!(connect.session_expiry(), 0);
    /// assert_eq!(Connect { clean_start: false, ..connect }.session_expiry(), u32::MAX);
    /// let without_property = Connect { clean_start: false, ..Connect::new(Version::V5, "pump") };
    /// # #[cfg(feature = "v5")]
    /// assert_eq!(without_property.session_expiry(), 0);
    /// ```
    #[must_use]
    pub fn session_expiry(&self) -> u32 {
        if self.version.is_v5() {
            self.properties.session_expiry_interval().unwrap_or(0)
        } else if self.clean_start {
            0
        } else {
            u32::MAX
        }
    }

    /// The fast path: decodes a CONNECT of 3.1.1 without a will. Returns `None` for any other, and if it breaks a rule.
    #[inline]
    pub(crate) fn plain(body: &'a [u8]) -> Option<Self> {
        let (head, rest) = body.split_first_chunk::<10>()?;
        let [0, 4, b'M', b'Q', b'T', b'T', 4, flags, high, low] = *head else {
            return None;
        };
        if flags & WILL != 0 || connect_fault(flags, false).is_some() {
            return None;
        }
        let mut rest = Reader::new(rest);
        let connect = Self {
            clean_start: flags & CLEAN_START != 0,
            keep_alive: u16::from_be_bytes([high, low]),
            ..Self::new(Version::V311, plain_text(rest.binary())?)
        };
        let user_name = match flags & USER_NAME {
            0 => None,
            _ => Some(plain_text(rest.binary())?),
        };
        let password = (flags & PASSWORD != 0).then(|| rest.binary());
        let whole = rest.fault.is_none() && rest.rest.is_empty();
        whole.then_some(Self {
            user_name,
            password,
            ..connect
        })
    }

    pub(crate) fn of(view: &View<'a>) -> Self {
        let version = match view.level & !BRIDGE {
            3 => Version::V31,
            4 => Version::V311,
            _ => Version::V5,
        };
        let has = |flag| view.flags & flag != 0;
        let mut rest = Reader::new(view.body);
        Self {
            version,
            clean_start: has(CLEAN_START),
            keep_alive: view.id,
            client_id: checked_str(view.topic),
            properties: view.properties(),
            bridge: view.level & BRIDGE != 0,
            // These three fields follow in this order.
            will: has(WILL).then(|| Will::read(&mut rest, view.flags, version)),
            user_name: has(USER_NAME).then(|| checked_str(rest.binary())),
            password: has(PASSWORD).then(|| rest.binary()),
        }
    }

    fn flags(&self) -> u8 {
        let flag = |set, bit| if set { bit } else { 0 };
        let will = self.will.as_ref().map_or(0, |will| {
            WILL | will.qos.get() << 3 | flag(will.retain, WILL_RETAIN)
        });
        will | flag(self.clean_start, CLEAN_START)
            | flag(self.user_name.is_some(), USER_NAME)
            | flag(self.password.is_some(), PASSWORD)
    }
}

/// Returns the bytes as text if they are UTF-8 without U+0000.
#[inline]
fn plain_text(bytes: &[u8]) -> Option<&str> {
    let text = core::str::from_utf8(bytes).ok()?;
    text_fits(bytes, false).then_some(text)
}

impl<'a> Will<'a> {
    fn read(rest: &mut Reader<'a>, flags: u8, version: Version) -> Self {
        let properties = if version.is_v5() {
            let len = rest.varint();
            Properties::validated(rest.take(to_usize(len)))
        } else {
            Properties::EMPTY
        };
        Self {
            topic: TopicName::validated(rest.binary()),
            payload: rest.binary(),
            qos: QoS::new((flags & WILL_QOS) >> 3).unwrap_or_default(),
            retain: flags & WILL_RETAIN != 0,
            properties,
        }
    }
}

impl Body for Connect<'_> {
    fn first_byte(&self) -> u8 {
        kind::CONNECT << 4
    }

    fn write(&self, _: Version, out: &mut Out<'_>) {
        let version = self.version;
        out.writer.binary(version.protocol_name().as_bytes());
        let bridge = self.bridge && !version.is_v5();
        out.writer
            .u8(version.level() | if bridge { BRIDGE } else { 0 });
        // 3.1.1 [MQTT-3.1.2-22]: the types of the fields exclude all other wrong flags.
        let alone = self.password.is_some() && self.user_name.is_none();
        let wrong = alone && !version.is_v5();
        out.refuse_if(wrong, Unencodable::PasswordWithoutUserName);
        out.writer.u8(self.flags());
        out.writer.u16(self.keep_alive);
        self.properties.write_if(version, kind::CONNECT, out);
        out.text(Field::ClientId, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            will.properties.write_if(version, WILL_PROPERTIES, out);
            out.refuse_if(will.topic.is_none(), Unencodable::NoTopic);
            out.binary(Field::TopicName, will.topic.as_bytes());
            out.binary(Field::WillPayload, will.payload);
        }
        if let Some(user_name) = self.user_name {
            out.text(Field::UserName, user_name.as_bytes());
        }
        if let Some(password) = self.password {
            out.binary(Field::Password, password);
        }
    }
}
