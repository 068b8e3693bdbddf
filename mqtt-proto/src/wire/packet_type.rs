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
            /// Returns the type with this number, which is the upper half of the first byte of a packet. `None` for 0 and above
            /// 15.
            #[must_use]
            #[inline]
            pub const fn new(value: u8) -> Option<Self> {
                Some(match value { $($number => Self::$name,)* _ => return None })
            }

            /// Returns the number, 1 to 15.
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

        /// The packet types as numbers, for use in `match`.
        pub mod kind {
            $($(#[$doc])* pub const $text: u8 = $number;)*
        }
    };
}

packet_types! {
    /// A client's request for a connection.
    1 Connect CONNECT;
    /// The server's answer to CONNECT.
    2 ConnAck CONNACK;
    /// An application message.
    3 Publish PUBLISH;
    /// Ends the delivery of a message at QoS 1.
    4 PubAck PUBACK;
    /// At QoS 2: the receiver has stored the message.
    5 PubRec PUBREC;
    /// At QoS 2: the sender has got PUBREC and will not send the message again.
    6 PubRel PUBREL;
    /// Ends the delivery of a message at QoS 2.
    7 PubComp PUBCOMP;
    /// A client's request for subscriptions.
    8 Subscribe SUBSCRIBE;
    /// The server's answer to SUBSCRIBE.
    9 SubAck SUBACK;
    /// A client's request to end subscriptions.
    10 Unsubscribe UNSUBSCRIBE;
    /// The server's answer to UNSUBSCRIBE.
    11 UnsubAck UNSUBACK;
    /// A client asks the server to show that it is alive.
    12 PingReq PINGREQ;
    /// The server's answer to PINGREQ.
    13 PingResp PINGRESP;
    /// Announces the end of the connection.
    14 Disconnect DISCONNECT;
    /// A step of an extended authentication, MQTT 5 only.
    15 Auth AUTH;
}
