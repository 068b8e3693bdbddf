//! The packet types.

use core::fmt;

macro_rules! packet_types {
    ($($(#[$doc:meta])* $number:literal $name:ident $text:ident;)*) => {
        /// The 15 packet types.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub enum PacketType {
            $($(#[$doc])* $name = $number,)*
        }

        impl PacketType {
            /// The type that the upper four bits of a first byte say. `None` for 0.
            #[must_use]
            #[inline]
            pub const fn new(value: u8) -> Option<Self> {
                Some(match value { $($number => Self::$name,)* _ => return None })
            }

            /// The number, 1 to 15.
            #[must_use]
            #[inline]
            pub const fn get(self) -> u8 {
                match self { $(Self::$name => $number,)* }
            }
        }

        impl fmt::Display for PacketType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => stringify!($text),)* })
            }
        }

        /// The packet types as numbers, for `match`.
        pub mod kind {
            $($(#[$doc])* pub const $text: u8 = $number;)*
        }
    };
}

packet_types! {
    /// A client asks for a connection.
    1 Connect CONNECT;
    /// The server's answer to CONNECT.
    2 ConnAck CONNACK;
    /// A message.
    3 Publish PUBLISH;
    /// Ends a QoS 1 delivery.
    4 PubAck PUBACK;
    /// A QoS 2 message is received.
    5 PubRec PUBREC;
    /// A QoS 2 message is released.
    6 PubRel PUBREL;
    /// Ends a QoS 2 delivery.
    7 PubComp PUBCOMP;
    /// A client subscribes.
    8 Subscribe SUBSCRIBE;
    /// The server's answer to SUBSCRIBE.
    9 SubAck SUBACK;
    /// A client unsubscribes.
    10 Unsubscribe UNSUBSCRIBE;
    /// The server's answer to UNSUBSCRIBE.
    11 UnsubAck UNSUBACK;
    /// A client asks for a sign of life.
    12 PingReq PINGREQ;
    /// The server's answer to PINGREQ.
    13 PingResp PINGRESP;
    /// Says that the connection ends.
    14 Disconnect DISCONNECT;
    /// Authentication exchange, MQTT 5 only.
    15 Auth AUTH;
}
