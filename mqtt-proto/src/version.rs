//! The protocol versions, as CONNECT names them (section 3.1.2.1 and 3.1.2.2 of both standards).

use core::fmt;

/// A version of the protocol. It is an argument of every decode and encode: one type per packet serves all.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3. Its packets are those of 3.1.1.
    V31,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    #[default]
    V311,
    /// MQTT 5: protocol name `MQTT`, level 5.
    V5,
}

impl Version {
    /// Whether properties and reason codes exist. Without the feature `v5` this is a constant `false`.
    #[must_use]
    #[inline]
    pub const fn is_v5(self) -> bool {
        cfg!(feature = "v5") && matches!(self, Self::V5)
    }

    /// The protocol name that CONNECT carries.
    #[must_use]
    pub const fn protocol_name(self) -> &'static str {
        match self {
            Self::V31 => "MQIsdp",
            Self::V311 | Self::V5 => "MQTT",
        }
    }

    /// The protocol level (3.1.1) or protocol version (5) byte that CONNECT carries.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        })
    }
}
