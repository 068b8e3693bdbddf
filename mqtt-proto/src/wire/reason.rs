//! Reason codes (5, section 2.4), and the return codes of CONNACK and SUBACK in 3.1.1, which become reason codes.

use core::fmt;

use super::packet_type::PacketType;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal $text:literal [$($packet:ident)*];)*) => {
        /// Why an operation succeeded or failed: the reason codes of MQTT 5. The return codes of 3.1.1 map to them one to one.
        ///
        /// A code below 0x80 is a success, any other a failure.
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl ReasonCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The packets of MQTT 5 that may have each code, as sets of packet type numbers.
            const PACKETS: &'static [u16] = &[$(0 $(| (1_u16 << PacketType::$packet.get()))*),*];

            /// Returns the code with this number. `None` if MQTT 5 has no such code.
            #[must_use]
            #[inline]
            pub const fn new(value: u8) -> Option<Self> {
                Some(match value { $($value => Self::$name,)* _ => return None })
            }
        }

        impl fmt::Display for ReasonCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

reason_codes! {
    /// 0x00: success; in SUBACK granted QoS 0, in DISCONNECT a normal end.
    #[default]
    Success = 0x00 "success" [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth];
    /// 0x01: granted QoS 1.
    GrantedQoS1 = 0x01 "granted QoS 1" [SubAck];
    /// 0x02: granted QoS 2.
    GrantedQoS2 = 0x02 "granted QoS 2" [SubAck];
    /// 0x04: disconnect, and publish the will.
    DisconnectWithWill = 0x04 "disconnect with will message" [Disconnect];
    /// 0x10: accepted, but there is no subscriber.
    NoMatchingSubscribers = 0x10 "no matching subscribers" [PubAck PubRec];
    /// 0x11: there was no such subscription.
    NoSubscriptionExisted = 0x11 "no subscription existed" [UnsubAck];
    /// 0x18: continue the authentication.
    ContinueAuthentication = 0x18 "continue authentication" [Auth];
    /// 0x19: authenticate again.
    ReAuthenticate = 0x19 "re-authenticate" [Auth];
    /// 0x80: unspecified error; the only failure of 3.1.1's SUBACK.
    UnspecifiedError = 0x80 "unspecified error" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    /// 0x81: malformed packet.
    MalformedPacket = 0x81 "malformed packet" [ConnAck Disconnect];
    /// 0x82: protocol error.
    ProtocolError = 0x82 "protocol error" [ConnAck Disconnect];
    /// 0x83: valid, but not accepted by this implementation.
    ImplementationSpecificError = 0x83 "implementation specific error" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    /// 0x84: unsupported protocol version (0x01 in 3.1.1).
    UnsupportedProtocolVersion = 0x84 "unsupported protocol version" [ConnAck];
    /// 0x85: client identifier not valid (0x02 in 3.1.1).
    ClientIdentifierNotValid = 0x85 "client identifier not valid" [ConnAck];
    /// 0x86: bad user name or password (0x04 in 3.1.1).
    BadUserNameOrPassword = 0x86 "bad user name or password" [ConnAck];
    /// 0x87: not authorized (0x05 in 3.1.1).
    NotAuthorized = 0x87 "not authorized" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    /// 0x88: server unavailable (0x03 in 3.1.1).
    ServerUnavailable = 0x88 "server unavailable" [ConnAck];
    /// 0x89: server busy.
    ServerBusy = 0x89 "server busy" [ConnAck Disconnect];
    /// 0x8A: banned.
    Banned = 0x8A "banned" [ConnAck];
    /// 0x8B: server shutting down.
    ServerShuttingDown = 0x8B "server shutting down" [Disconnect];
    /// 0x8C: bad authentication method.
    BadAuthenticationMethod = 0x8C "bad authentication method" [ConnAck Disconnect];
    /// 0x8D: keep alive timeout.
    KeepAliveTimeout = 0x8D "keep alive timeout" [Disconnect];
    /// 0x8E: another connection took the session over.
    SessionTakenOver = 0x8E "session taken over" [Disconnect];
    /// 0x8F: topic filter not accepted.
    TopicFilterInvalid = 0x8F "topic filter invalid" [SubAck UnsubAck Disconnect];
    /// 0x90: topic name not accepted.
    TopicNameInvalid = 0x90 "topic name invalid" [ConnAck PubAck PubRec Disconnect];
    /// 0x91: packet identifier in use.
    PacketIdentifierInUse = 0x91 "packet identifier in use" [PubAck PubRec SubAck UnsubAck];
    /// 0x92: packet identifier not found.
    PacketIdentifierNotFound = 0x92 "packet identifier not found" [PubRel PubComp];
    /// 0x93: more messages than the receive maximum allows.
    ReceiveMaximumExceeded = 0x93 "receive maximum exceeded" [Disconnect];
    /// 0x94: topic alias beyond the maximum, or unknown.
    TopicAliasInvalid = 0x94 "topic alias invalid" [Disconnect];
    /// 0x95: packet too large.
    PacketTooLarge = 0x95 "packet too large" [ConnAck Disconnect];
    /// 0x96: messages come too fast.
    MessageRateTooHigh = 0x96 "message rate too high" [Disconnect];
    /// 0x97: quota exceeded.
    QuotaExceeded = 0x97 "quota exceeded" [ConnAck PubAck PubRec SubAck Disconnect];
    /// 0x98: administrative action.
    AdministrativeAction = 0x98 "administrative action" [Disconnect];
    /// 0x99: payload does not match its format indicator.
    PayloadFormatInvalid = 0x99 "payload format invalid" [ConnAck PubAck PubRec Disconnect];
    /// 0x9A: retain not supported.
    RetainNotSupported = 0x9A "retain not supported" [ConnAck Disconnect];
    /// 0x9B: QoS not supported.
    QoSNotSupported = 0x9B "QoS not supported" [ConnAck Disconnect];
    /// 0x9C: use another server, for now.
    UseAnotherServer = 0x9C "use another server" [ConnAck Disconnect];
    /// 0x9D: server moved, for good.
    ServerMoved = 0x9D "server moved" [ConnAck Disconnect];
    /// 0x9E: shared subscriptions not supported.
    SharedSubscriptionsNotSupported = 0x9E "shared subscriptions not supported" [SubAck Disconnect];
    /// 0x9F: connection rate exceeded.
    ConnectionRateExceeded = 0x9F "connection rate exceeded" [ConnAck Disconnect];
    /// 0xA0: maximum connect time.
    MaximumConnectTime = 0xA0 "maximum connect time" [Disconnect];
    /// 0xA1: subscription identifiers not supported.
    SubscriptionIdentifiersNotSupported = 0xA1 "subscription identifiers not supported" [SubAck Disconnect];
    /// 0xA2: wildcard subscriptions not supported.
    WildcardSubscriptionsNotSupported = 0xA2 "wildcard subscriptions not supported" [SubAck Disconnect];
}

impl ReasonCode {
    /// Returns the number that MQTT 5 sends.
    #[must_use]
    #[inline]
    #[allow(clippy::as_conversions, reason = "the variants have the numbers")]
    pub const fn get(self) -> u8 {
        self as u8
    }

    /// Returns whether the code is a failure: 0x80 and above.
    #[must_use]
    #[inline]
    pub const fn is_error(self) -> bool {
        self.get() >= 0x80
    }

    /// Returns whether `packet` may have the code in MQTT 5.
    #[must_use]
    #[inline]
    pub fn belongs_in(self, packet: PacketType) -> bool {
        reason_fits(packet.get(), true, self.get())
    }

    /// Returns the byte that a packet has for the code in a version. `None` if the packet cannot have the code.
    pub(crate) fn code(self, packet: PacketType, v5: bool) -> Option<u8> {
        if !v5 && packet == PacketType::ConnAck {
            return self.to_return_code();
        }
        reason_fits(packet.get(), v5, self.get()).then_some(self.get())
    }

    /// Returns the code of SUBACK that grants a quality of service.
    #[must_use]
    pub const fn granted(qos: crate::QoS) -> Self {
        match qos {
            crate::QoS::AtMostOnce => Self::Success,
            crate::QoS::AtLeastOnce => Self::GrantedQoS1,
            crate::QoS::ExactlyOnce => Self::GrantedQoS2,
        }
    }

    /// Returns the return code of CONNACK in 3.1.1 with the same meaning (table 3.1), 0 to 5. `None` if there is none.
    #[must_use]
    pub const fn to_return_code(self) -> Option<u8> {
        Some(match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::ServerUnavailable => 3,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized => 5,
            _ => return None,
        })
    }

    /// Returns the reason code with the meaning of a return code of CONNACK in 3.1.1. `None` above 5.
    #[must_use]
    pub const fn from_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }
}

/// How many codes are below 0x80.
const LOW: usize = 8;
/// How many codes are 0x80 or above. Their numbers have no gap.
const HIGH: usize = 0x23;

/// The packets that may have each code, as sets: bit n is packet type n, and bit 0 is SUBACK before MQTT 5.
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
const fn packets<const N: usize>(from: usize) -> [u16; N] {
    let (mut table, mut index) = ([0; N], 0);
    while index < N {
        let code = ReasonCode::ALL[from + index].get();
        table[index] = ReasonCode::PACKETS[from + index] | if is_old(code) { 1 } else { 0 };
        index += 1;
    }
    table
}

/// Returns whether SUBACK may have the code before MQTT 5 (3.1.1 [MQTT-3.9.3-2]).
const fn is_old(code: u8) -> bool {
    matches!(code, 0..=2 | 0x80)
}

static LOW_PACKETS: [u16; LOW] = packets(0);
static HIGH_PACKETS: [u16; HIGH] = packets(LOW);

/// Returns whether a packet may have a reason code. Before MQTT 5, callers ask this for SUBACK only.
#[must_use]
pub fn reason_fits(kind: u8, v5: bool, reason: u8) -> bool {
    if !cfg!(feature = "v5") {
        return is_old(reason);
    }
    let packets = match HIGH_PACKETS.get(usize::from(reason.wrapping_sub(0x80))) {
        Some(packets) => *packets,
        None => ReasonCode::ALL
            .iter()
            .zip(&LOW_PACKETS)
            .find(|(code, _)| code.get() == reason)
            .map_or(0, |(_, packets)| *packets),
    };
    // 5 [MQTT-3.2.2-8] and [MQTT-3.15.2-1]: packets to be sent are checked as well.
    let kind = if v5 { kind } else { 0 };
    packets.wrapping_shr(u32::from(kind)) & 1 != 0
}
